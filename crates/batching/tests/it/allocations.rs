//! How often the way through a queue allocates, counted where one thread does it all.

use millrace_core::InferFuture;
use millrace_testkit::{CountingAllocator, FakeModel, Gate};

use crate::guests::{TRIES, lent, ran_here, settled};
use crate::harness::{pool, wait};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations from asking to the last answer of `count` requests that share a run on this thread.
fn allocations(count: usize, model: &FakeModel, queue: &millrace_batching::BatchQueue) -> usize {
    for _ in 0..TRIES {
        let requests: Vec<_> = (0..count).map(|index| lent(&[index as f32])).collect();
        let mut futures: Vec<InferFuture> = Vec::with_capacity(count);
        let before = CountingAllocator::count();
        futures.extend(requests.into_iter().map(|request| queue.infer(request)));
        let mut good = 0;
        for future in futures {
            good += usize::from(wait(future).is_ok());
        }
        let allocations = CountingAllocator::count() - before;
        assert_eq!(good, count);
        if ran_here(model) && model.runs().last() == Some(&count) {
            return allocations;
        }
    }
    panic!("{count} requests never shared a run on the thread that asked");
}

#[test]
fn a_request_more_in_a_batch_costs_a_handful_of_allocations() {
    let pool = pool(1);
    let (model, queue) = settled(&pool, &Gate::closed());
    let (one, many) = (allocations(1, &model, &queue), allocations(8, &model, &queue));
    let each = (many - one).div_ceil(7);
    assert!(one <= MOST_ALONE && each <= MOST_EACH, "{one} alone, {each} each");
}

/// The slot, its leader, the vectors of the batch, and what the fake model itself takes. Counted: 13.
const MOST_ALONE: usize = 14;
/// The slot, its share of the output and the like. Counted: 4.
const MOST_EACH: usize = 5;
