//! The registry from outside: real directories, real threads, the fake engine.
#![cfg(test)]

mod allocations;
mod disk;
mod inputs;
mod letters;
mod metrics;
mod orders;
mod pipelines;
mod registering;
mod replacing;
mod repository;
mod scaling;
mod swap;
mod text;
mod triton;
mod versions;
