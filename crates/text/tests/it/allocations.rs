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

/// Measured: 194, 159 and 186 for each further text of some ten tokens; of these six are this crate's.
#[test]
fn a_text_costs_a_bounded_number_of_allocations() {
    let text = "The mill stands by the river";
    for (model, most) in [("bert_mean", 200), ("roberta_mean", 165), ("xlm_roberta_mean", 192)] {
        let (one, many) = (allocations(model, text, 1), allocations(model, text, 65));
        let each = (many - one) / 64;
        assert!(each <= most, "{model}: {each} allocations for each text; expected at most {most}");
    }
}
