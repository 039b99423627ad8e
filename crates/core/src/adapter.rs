//! The seam to declared inputs: a model takes an input in another form than its network does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{InputError, LoadError, Tensor, TensorSpec};

/// Makes adapters of one kind: what `[inputs.NAME]` and `kind = "…"` in a `model.toml` name.
pub trait InputAdapterFactory: fmt::Debug + Send + Sync + 'static {
    /// The kind's name.
    fn name(&self) -> &'static str;

    /// Makes the adapter for the network's input `inner`. `options` are the other keys of the table: strings without
    /// quotes, the rest as TOML writes it (`[8, 8]`, `0.5`, `true`).
    ///
    /// # Errors
    /// [`LoadError`] for options that are wrong or do not fit the input: which key, and what would be right.
    fn build(&self, inner: &TensorSpec, options: &BTreeMap<String, String>)
    -> Result<Arc<dyn InputAdapter>, LoadError>;
}

/// Turns what callers give into what the network takes.
pub trait InputAdapter: fmt::Debug + Send + Sync {
    /// What callers give. It has the network's name for the input, and the same batch symbol as first axis.
    fn spec(&self) -> &TensorSpec;

    /// Whether `given`, the input of a whole request, can be taken as far as that can be told without turning it: a limit of
    /// instances, say. Cheap: it is called where the request arrives, before any instance is turned.
    ///
    /// # Errors
    /// [`InputError`] for what [`InputAdapter::adapt`] would refuse anyhow, or for too many instances.
    fn admit(&self, _given: &Tensor) -> Result<(), InputError> {
        Ok(())
    }

    /// The network's tensor for `given`, which fits [`InputAdapter::spec`], with as many rows. It may hold some of a
    /// request's instances only. CPU work: it is called on a compute thread.
    ///
    /// # Errors
    /// [`InputError::Instance`] for an instance that cannot be turned, counted from the first of `given`.
    fn adapt(&self, given: &Tensor) -> Result<Tensor, InputError>;
}
