//! What batching itself costs: forming batches (the pure decision) and one trip through a queue and its threads.
//!
//! `cargo bench -p millrace-benches --bench batching`; per-item figures are the printed time divided by the item count.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use millrace_batching::{
    Arrival, BatchConfig, BatchFormer, BatchQueue, ComputePool, Decision, FormerConfig, PoolConfig, Sizes, Waiting,
};
use millrace_core::{CallerId, Group, InferFuture, InferRequest, Priority, RequestContext, Tensor};
use millrace_testkit::FakeModel;

#[expect(clippy::disallowed_methods, reason = "a bench reads the real clock")]
fn now() -> Instant {
    Instant::now()
}

fn forming(c: &mut Criterion) {
    let mut group = c.benchmark_group("form");
    for n_items in [1_u64, 32, 256] {
        let former = || {
            let config = FormerConfig {
                is_batched: true,
                is_mixed: false,
                max_rows: 1024,
                max_work: 1024,
                waiting: Waiting::Learned,
                sizes: Sizes::Learned,
                max_groups: 64,
                workers: 2,
            };
            let mut former = BatchFormer::new(config);
            former.set_admitted(&Group::default(), 1);
            former
        };
        group.throughput(Throughput::Elements(n_items));
        group.bench_function(format!("push_and_take_{n_items}"), |bencher| {
            let (mut former, start) = (former(), now());
            let mut dropped = Vec::new();
            bencher.iter(|| {
                for item in 0..n_items {
                    let arrival = Arrival {
                        group: &Group::default(),
                        rows: 1,
                        work: 1,
                        bytes: 40,
                        caller: CallerId(item % 8),
                        priority: Priority::default(),
                        deadline: Some(start + Duration::from_secs(30)),
                        is_alone: false,
                    };
                    former.push(item, arrival, start);
                }
                while let Decision::Run(formed) = former.take(start, &mut |_| false, &mut dropped) {
                    former.observe(formed.key, formed.rows, Duration::from_micros(5));
                    former.complete(formed.key);
                    black_box(&formed.items);
                }
            });
        });
    }
    group.finish();
}

fn request(context: RequestContext) -> InferRequest {
    let tensor = Tensor::from_vec(&[1], vec![1.0_f32]).expect("one element");
    InferRequest::new([tensor].into_iter().collect::<millrace_core::TensorList>(), context)
}

fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    let threads = NonZeroUsize::MIN;
    let pool = ComputePool::new(PoolConfig { threads, ..PoolConfig::default() });
    let model = FakeModel::builder().build().as_model();
    let name = "fake".parse().expect("a model name");
    let queue = BatchQueue::new(model, name, 1, BatchConfig::default(), &pool).expect("the fake gives instances");
    for in_flight in [1_u64, 32] {
        group.throughput(Throughput::Elements(in_flight));
        group.bench_function(format!("round_trip_{in_flight}_in_flight"), |bencher| {
            bencher.iter_batched(
                || (0..in_flight).map(|_| request(RequestContext::new(now()))).collect::<Vec<_>>(),
                |requests| {
                    let futures: Vec<InferFuture> = requests.into_iter().map(|request| queue.infer(request)).collect();
                    for future in futures {
                        pollster::block_on(future).expect("the fake answers");
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, forming, queue);
criterion_main!(benches);
