//! What stands in place of `cuda` in a program without that feature: there is never a card.

use std::convert::Infallible;

use bytes::Bytes;
use candle_core::{Device, Tensor, WithDType};

use super::memory::Free;

/// Whether this program could use a card.
pub(super) const IS_BUILT_IN: bool = false;

/// Numbers that a place takes.
pub(crate) trait Number: WithDType + bytemuck::Pod {}

impl<T: WithDType + bytemuck::Pod> Number for T {}

/// No error of candle's is about a card's memory here.
pub(super) fn is_out_of_memory(_error: &candle_core::Error) -> bool {
    false
}

/// A card that nobody can have.
#[derive(Debug)]
pub(super) struct Card(Infallible);

impl Card {
    pub(super) fn open(_number: usize) -> Result<Self, String> {
        Err("this program was built without CUDA; `cargo xtask build-cuda` builds one with it".to_owned())
    }

    pub(super) fn device(&self) -> Device {
        match self.0 {}
    }

    pub(super) fn name(&self) -> &str {
        match self.0 {}
    }

    pub(super) fn trim(&self) {
        match self.0 {}
    }
}

impl Free for Card {
    fn free(&self) -> Option<u64> {
        match self.0 {}
    }
}

/// The buffers of a card that nobody can have.
#[derive(Debug)]
pub(crate) struct Pinned(Infallible);

#[expect(clippy::needless_pass_by_ref_mut, reason = "the other form of it changes its buffers")]
impl Pinned {
    pub(super) fn new(card: &Card) -> Self {
        match card.0 {}
    }

    pub(super) fn upload<T: Number>(&mut self, _values: &[T], _shape: &[usize]) -> candle_core::Result<Tensor> {
        match self.0 {}
    }

    pub(super) fn download(&mut self, _tensor: &Tensor) -> candle_core::Result<Bytes> {
        match self.0 {}
    }
}
