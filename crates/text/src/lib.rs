//! Text in place of token ids.
//!
//! [`TextSupport`] finds out whether a version's files are those of a text model and turns text into its token ids, with the
//! folder's `tokenizer.json` and through the library `tokenizers`.//!
//! Which protocol the text came by is left to the front-ends, and on which thread it is cut to the registry.

#![forbid(unsafe_code)]

mod canonical;
mod factory;
mod folder;
mod guard;
mod options;
mod processor;
mod template;
mod tokenizer;
mod truncation;

pub use factory::TextSupport;

