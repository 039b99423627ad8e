//! Resolving is on the path of every request: it allocates nothing, and so waits for nobody's allocator lock.

use millrace_core::{Control, ModelRef};
use millrace_testkit::{CountingAllocator, FakeBackend, Gate};
use pollster::block_on;

use crate::repository::{Repository, start};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations of `work` on this thread.
fn counted<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = CountingAllocator::count();
    let result = work();
    (CountingAllocator::count() - before, result)
}

#[test]
fn resolving_allocates_nothing_however_the_version_is_named_and_whatever_loads_meanwhile() {
    let repository = Repository::new();
    repository.version("m", 1).version("m", 2);
    repository.file("m/model.toml", "versions = \"all\"\n[aliases]\nstable = 1");
    let gate = Gate::opened();
    let served = start(repository.config(), FakeBackend::default().load_gate(gate.clone()));
    let choices = [
        (ModelRef::new("m"), 2),
        (ModelRef::with_version("m", 1), 1),
        (ModelRef::with_label("m", "stable"), 1),
        (ModelRef::with_label("m", "latest"), 2),
    ];
    // A thread's first look sets up its own part of the pointer swap.
    served.resolve(&choices[0].0).unwrap();
    let all_free = || {
        for (choice, version) in &choices {
            let (allocations, lease) = counted(|| served.resolve(choice));
            assert_eq!((allocations, lease.unwrap().version()), (0, *version), "{choice:?}");
        }
    };
    all_free();
    gate.close();
    let before = gate.arrived();
    repository.version("slow", 1);
    let rescan = served.0.rescan();
    gate.wait_for(before + 1);
    all_free();
    gate.open();
    block_on(rescan).unwrap();
}

#[test]
fn the_counter_counts() {
    let (allocations, _kept) = counted(|| vec![1_u8; 100]);
    assert_eq!(allocations, 1);
}
