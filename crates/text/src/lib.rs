//! Text in place of token ids.

#![forbid(unsafe_code)]
