//! The public surface, over the fixtures.

#![cfg(test)]

mod allocations;
mod hostile;
mod networks;
mod replay;
mod texts;
mod tools;

#[global_allocator]
static ALLOCATOR: millrace_testkit::CountingAllocator = millrace_testkit::CountingAllocator;
