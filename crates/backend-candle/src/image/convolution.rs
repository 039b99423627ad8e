//! A convolution and the normalisation after it, in one matrix.
//!
//! The normalisation of a batch (Ioffe, Szegedy: Batch Normalization, 2015) is, once trained, a factor and a summand for each
//! channel: both are put into the convolution's weights when they are loaded.

use std::ops::Range;

use candle_core::{Result, Tensor};
use millrace_core::LoadError;
use millrace_huggingface::Activation;
use rayon::prelude::*;

use super::product::{Product, multiply};
use super::window::{Picture, Window};
use crate::cpu::Matrix;
use crate::nn::{Kernels, with_floats};
use crate::weights::Scope;

/// What PyTorch adds to variances before their root is taken.
const EPSILON: f32 = 1e-5;

/// So many numbers of windows at a time stay near the processor while they are multiplied.
const NEAR: usize = 128 * 1024;

/// The sizes of a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) window: Window,
    /// Channels that go in.
    pub(super) inputs: usize,
    /// Channels that come out.
    pub(super) outputs: usize,
}

/// A convolution without a bias, and the normalisation after it.
#[derive(Debug)]
pub(super) struct Convolution {
    shape: Shape,
    /// From a window's pixels, with the channels of one side by side, to the channels that come out.
    product: Product,
}

impl Convolution {
    /// Reads `convolution` and `normalization` below `scope`.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor that is absent or of the wrong shape.
    pub(super) fn load(scope: &Scope<'_>, shape: Shape, kernels: Kernels) -> std::result::Result<Self, LoadError> {
        let Shape { window, inputs, outputs } = shape;
        let weight = scope.floats("convolution.weight", &[outputs, inputs, window.size(), window.size()])?;
        let norm = scope.at("normalization");
        let (scale, shift) = (norm.floats("weight", &[outputs])?, norm.floats("bias", &[outputs])?);
        let (mean, variance) = (norm.floats("running_mean", &[outputs])?, norm.floats("running_var", &[outputs])?);
        let factors = scale.iter().zip(&variance).map(|(scale, variance)| scale / (variance + EPSILON).sqrt());
        let factors: Vec<f32> = factors.collect();
        let bias = shift.iter().zip(&mean).zip(&factors).map(|((shift, mean), factor)| shift - mean * factor).collect();
        // From `[outputs][inputs][pixels]` to `[outputs][pixels][inputs]`.
        let n_pixels = window.n_pixels();
        let mut rows = Vec::with_capacity(weight.len());
        for (row, factor) in weight.chunks_exact(inputs * n_pixels).zip(&factors) {
            for pixel in 0..n_pixels {
                rows.extend(row[pixel..].iter().step_by(n_pixels).map(|number| number * factor));
            }
        }
        let product = Product::new(scope.weights(), (inputs * n_pixels, outputs), rows, bias, kernels)?;
        Ok(Self { shape, product })
    }

    /// Its window.
    pub(super) fn window(&self) -> Window {
        self.shape.window
    }

    /// Channels that come out.
    pub(super) fn outputs(&self) -> usize {
        self.shape.outputs
    }

    /// `activation(convolution + added)` of `[rows, height, width, channels]`.
    ///
    /// # Errors
    /// candle's.
    pub(super) fn forward(&self, given: &Tensor, activation: Activation, added: Option<&Tensor>) -> Result<Tensor> {
        let window = self.shape.window;
        let (rows, height, width, _) = given.dims4()?;
        let shape = (rows, window.places(height), window.places(width), self.shape.outputs);
        match &self.product {
            Product::Own(matrix) if !window.is_pixel() => {
                let sizes = (rows, height, width);
                let work =
                    |given: &[f32], added: Option<&[f32]>| self.by_lines(matrix, given, sizes, activation, added);
                let numbers = match added {
                    Some(added) => with_floats(given, |given| with_floats(added, |added| work(given, Some(added))))??,
                    None => with_floats(given, |given| work(given, None))?,
                };
                Tensor::from_vec(numbers, shape, given.device())
            }
            product => {
                let windows = if window.is_pixel() { given.flatten_to(2)? } else { window.cut_by_candle(given)? };
                let added = added.map(|added| added.flatten_to(2)).transpose()?;
                product.forward(&windows, activation, added.as_ref())?.reshape(shape)
            }
        }
    }

    /// A few lines of windows after the other, so that windows never leave the processor's own memory.
    fn by_lines(
        &self,
        matrix: &Matrix,
        given: &[f32],
        (rows, height, width): (usize, usize, usize),
        activation: Activation,
        added: Option<&[f32]>,
    ) -> Vec<f32> {
        let Shape { window, inputs: channels, outputs } = self.shape;
        let (down, across) = (window.places(height), window.places(width));
        let (line, windows_of_line) = (across * outputs, across * window.n_pixels() * channels);
        let mut out = vec![0.0; rows * down * line];
        let lines = (NEAR / windows_of_line).clamp(1, down);
        let one = |row: usize, lines: Range<usize>, out: &mut [f32]| {
            let size = height * width * channels;
            let picture = Picture { numbers: &given[row * size..][..size], height, width, channels };
            let mut windows = Vec::with_capacity(lines.len() * windows_of_line);
            let start = (row * down + lines.start) * line;
            window.cut(picture, lines, &mut windows);
            let added = added.map(|added| &added[start..start + out.len()]);
            out.copy_from_slice(&multiply(matrix, &windows, activation, added));
        };
        let picture = |(row, out): (usize, &mut [f32])| {
            let piece = |(piece, out): (usize, &mut [f32])| one(row, piece * lines..down.min((piece + 1) * lines), out);
            if rayon::current_num_threads() > 1 {
                out.par_chunks_mut(lines * line).enumerate().for_each(piece);
            } else {
                out.chunks_mut(lines * line).enumerate().for_each(piece);
            }
        };
        out.chunks_mut(down * line).enumerate().for_each(picture);
        out
    }
}
