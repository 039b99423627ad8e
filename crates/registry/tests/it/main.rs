//! The registry from outside: real directories, real threads, the fake engine.
#![cfg(test)]

mod disk;
mod orders;
mod repository;
mod swap;
mod versions;
