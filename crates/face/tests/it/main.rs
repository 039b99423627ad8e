//! The face pipelines over the real networks, and over models that misbehave.

#![cfg(test)]

mod building;
mod golden;
mod harness;
mod inner;
mod pictures;
mod repository;
mod steps;
