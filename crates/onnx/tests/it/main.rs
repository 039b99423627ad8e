//! The reader from outside: what it says about real files, and what it does with wrong ones.
#![cfg(test)]

mod files;
mod hostile;
mod make;
mod walk;
