//! The registry from outside: real directories, real threads, the fake engine.
#![cfg(test)]

mod allocations;
mod disk;
mod metrics;
mod orders;
mod registering;
mod replacing;
mod repository;
mod scaling;
mod swap;
mod triton;
mod versions;
