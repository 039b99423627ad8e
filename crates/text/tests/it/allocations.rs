//! What one text may allocate. Most of it is the library's: text and places of each token.

use millrace_core::{Strings, Tensor};
use millrace_testkit::CountingAllocator;

use crate::tools::processor;

/// Allocations of one request with this text so often.
fn allocations(model: &str, text: &str, rows: usize) -> usize {
    let processor = processor(model);
    let texts = std::iter::repeat_n(text, rows).collect::<Strings>();
    let given = [Tensor::from_strings(&[rows], texts).unwrap()];
    // The library remembers words.
    processor.process(&given).unwrap();
    let before = CountingAllocator::count();
    processor.process(&given).unwrap();
    CountingAllocator::count() - before
}

#[test]
fn a_text_costs_a_bounded_number_of_allocations_per_token() {
    for (model, per_token) in [("bert_mean", 0), ("roberta_mean", 0), ("xlm_roberta_mean", 0)] {
        let text = "The mill stands by the river";
        let one = allocations(model, text, 1);
        let many = allocations(model, text, 65);
        let each = (many - one) / 64;
        println!("{model}: {one} for one text, {each} for each further, {per_token}");
    }
}
