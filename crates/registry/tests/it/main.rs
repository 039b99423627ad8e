//! The registry from outside: real directories, real threads, the fake engine.
#![cfg(test)]

mod allocations;
mod disk;
mod metrics;
mod orders;
mod repository;
mod swap;
mod versions;
