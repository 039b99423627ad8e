//! Counts allocations, thread by thread, for tests that bound what a path may allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread on its own. A test binary installs it as its `#[global_allocator]`.
#[derive(Debug)]
pub struct CountingAllocator;

impl CountingAllocator {
    /// How often this thread has allocated. Growing something in place counts as well: it may move.
    pub fn count() -> usize {
        COUNT.get()
    }
}

#[expect(unsafe_code, reason = "an allocator can be counted only by standing in for it")]
// SAFETY: every call is passed on to the system's allocator as it came; counting touches a thread-local integer only.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more, and nobody who reads it.
        let _ended = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
