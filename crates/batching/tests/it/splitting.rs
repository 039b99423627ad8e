//! Requests with more rows than one run holds.

use std::time::Duration;

use millrace_batching::{BatchConfig, Sizes, Waiting};
use millrace_core::Reason;
use millrace_testkit::{FakeModel, Misbehaviour};

use crate::harness::{ask, count, pool, queue};

#[test]
fn an_oversized_request_runs_in_pieces_and_comes_back_whole() {
    let pool = pool(2);
    let model = FakeModel::builder().build();
    let config = BatchConfig { max_batch_size: count(10), ..BatchConfig::default() };
    let queue = queue(model.as_model(), config, &pool);
    let x: Vec<f32> = (0..95_u8).map(f32::from).collect();
    let expected: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
    assert_eq!(ask(&queue, &x).unwrap(), expected);
    let runs = model.runs();
    assert!(runs.iter().all(|rows| *rows <= 10), "{runs:?}");
    assert_eq!(runs.iter().sum::<usize>(), 95);
    assert_eq!(queue.statistics().answered.count, 1);
}

#[test]
fn one_bad_piece_fails_the_whole_request_once() {
    let pool = pool(2);
    let config = BatchConfig { max_batch_size: count(4), ..BatchConfig::default() };
    let queue = queue(FakeModel::builder().build().as_model(), config, &pool);
    let mut x = vec![1.0; 30];
    x[17] = Misbehaviour::InvalidInput.value();
    assert_eq!(ask(&queue, &x), Err(Reason::InvalidInput));
    assert_eq!(ask(&queue, &[1.0; 30]).unwrap(), [2.0; 30]);
    let statistics = queue.statistics();
    assert_eq!((statistics.answered.count, statistics.failed.count, statistics.refused), (1, 1, 0));
    assert_eq!(statistics.rows, 30);
}

#[test]
fn allowed_sizes_are_met_by_padding_that_nobody_sees() {
    let pool = pool(1);
    let model = FakeModel::builder().build();
    let sizes = [2, 8, 32].map(count).to_vec();
    let config = BatchConfig { sizes: Sizes::Allowed(sizes), max_batch_size: count(32), ..BatchConfig::default() };
    let queue = queue(model.as_model(), config, &pool);
    for rows in [1, 2, 3, 8, 9, 31, 32] {
        assert_eq!(ask(&queue, &vec![1.5; rows]).unwrap(), vec![3.0; rows]);
    }
    assert_eq!(model.runs(), [2, 2, 8, 8, 32, 32, 32]);
}

#[test]
fn a_waiting_batch_leaves_at_a_preferred_size() {
    let pool = pool(1);
    let model = FakeModel::builder().build();
    let config = BatchConfig {
        sizes: Sizes::Preferred([4, 8].map(count).to_vec()),
        waiting: Waiting::Fixed(Duration::from_secs(3600)),
        max_batch_size: count(16),
        ..BatchConfig::default()
    };
    let queue = queue(model.as_model(), config, &pool);
    let futures: Vec<_> = (0..4).map(|_| queue.infer(crate::harness::request(&[1.0]))).collect();
    for future in futures {
        assert_eq!(crate::harness::answer(future).unwrap(), [2.0]);
    }
    assert_eq!(model.runs(), [4]);
}
