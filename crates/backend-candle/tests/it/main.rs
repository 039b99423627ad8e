//! What the engine makes of files that it loads, of those that it cannot load, and of those that are damaged.

#![cfg(test)]

mod architectures;
mod gguf;
mod hostile;
