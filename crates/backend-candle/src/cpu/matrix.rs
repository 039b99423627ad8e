//! A matrix of weights laid out for products, and the product.

use std::cell::RefCell;

use half::{bf16, f16};
use millrace_huggingface::Activation;
use rayon::prelude::*;

use super::isa::{ISA, Isa};
use super::product::{Operand, Panels, Product};
use super::store::Store;

/// `y = f(x·Wᵀ + b)` for W of `outputs` × `inputs`.
#[derive(Debug)]
pub(crate) struct Matrix {
    inputs: usize,
    outputs: usize,
    weights: Layout,
    bias: Vec<f32>,
    isa: Isa,
}

/// How W is kept.
#[derive(Debug)]
enum Layout {
    /// In panels of as many columns of Wᵀ as the processor likes, the last one filled up with zeros.
    Panels(Store),
    /// As W: blocks of quantised numbers cannot be taken apart. A panel is made whenever it is needed.
    Rows(Store),
}

impl Matrix {
    /// From W, row by row, and b of `outputs` numbers (or none).
    pub(crate) fn new(inputs: usize, outputs: usize, weights: Store, bias: Vec<f32>) -> Self {
        Self::with(*ISA, inputs, outputs, weights, bias)
    }

    pub(super) fn with(isa: Isa, inputs: usize, outputs: usize, weights: Store, bias: Vec<f32>) -> Self {
        let width = isa.width();
        let weights = match weights {
            Store::Fp32(rows) => Layout::Panels(Store::Fp32(panels(&rows, inputs, outputs, width))),
            Store::Fp16(rows) => Layout::Panels(Store::Fp16(panels::<f16>(&rows, inputs, outputs, width))),
            Store::Bf16(rows) => Layout::Panels(Store::Bf16(panels::<bf16>(&rows, inputs, outputs, width))),
            blocks @ Store::Blocks(_) => Layout::Rows(blocks),
        };
        Self { inputs, outputs, weights, bias, isa }
    }

    /// Numbers given.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes that it takes.
    pub(crate) fn n_bytes(&self) -> usize {
        let (Layout::Panels(store) | Layout::Rows(store)) = &self.weights;
        store.n_bytes() + size_of_val(self.bias.as_slice())
    }

    /// `activation(x·Wᵀ + b)`, row by row.
    pub(crate) fn multiply(&self, x: &[f32], activation: Activation) -> Vec<f32> {
        let rows = x.len() / self.inputs;
        let mut out = vec![0.0; rows * self.outputs];
        let threads = rayon::current_num_threads().max(1);
        // Less would not be worth another thread's attention.
        const LEAST_ROWS: usize = 16;
        let share = rows.div_ceil(threads).max(LEAST_ROWS).next_multiple_of(8);
        if threads == 1 || share >= rows {
            self.part(x, activation, &mut out);
        } else {
            let parts = out.par_chunks_mut(share * self.outputs).zip(x.par_chunks(share * self.inputs));
            parts.for_each(|(out, x)| self.part(x, activation, out));
        }
        out
    }

    /// Some rows, on this thread.
    fn part(&self, x: &[f32], activation: Activation, out: &mut [f32]) {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        /// So many numbers of x at a time stay near the processor while all panels pass by.
        const NEAR: usize = 128 * 1024;
        let rows = (NEAR / self.inputs).next_multiple_of(8).max(8);
        SCRATCH.with_borrow_mut(|scratch| {
            for (x, out) in x.chunks(rows * self.inputs).zip(out.chunks_mut(rows * self.outputs)) {
                let operand = Operand { x, inputs: self.inputs, packed: &mut scratch.packed };
                let product = Product {
                    operand,
                    outputs: self.outputs,
                    bias: &self.bias,
                    activation,
                    panels: Widened { matrix: self, panel: &mut scratch.panel, row: &mut scratch.row },
                    out,
                };
                super::isa::on(self.isa, product);
            }
        });
    }
}

/// The panels of a matrix in FP32, made in `panel` unless they are kept so.
struct Widened<'a> {
    matrix: &'a Matrix,
    panel: &'a mut Vec<f32>,
    row: &'a mut Vec<f32>,
}

impl Panels for Widened<'_> {
    fn panel(&mut self, index: usize) -> &[f32] {
        let (inputs, width) = (self.matrix.inputs, self.matrix.isa.width());
        let size = inputs * width;
        match &self.matrix.weights {
            Layout::Panels(Store::Fp32(panels)) => &panels[index * size..(index + 1) * size],
            Layout::Panels(store) => {
                self.panel.resize(size, 0.0);
                store.widen(index * size, self.panel);
                self.panel
            }
            Layout::Rows(store) => {
                self.panel.clear();
                self.panel.resize(size, 0.0);
                self.row.resize(inputs, 0.0);
                for column in 0..width.min(self.matrix.outputs - index * width) {
                    store.widen((index * width + column) * inputs, self.row);
                    for (place, x) in self.panel[column..].iter_mut().step_by(width).zip(&*self.row) {
                        *place = *x;
                    }
                }
                self.panel
            }
        }
    }
}

#[derive(Default)]
struct Scratch {
    packed: Vec<f32>,
    panel: Vec<f32>,
    row: Vec<f32>,
}

/// W by panels: for each group of `width` rows of W, all their first numbers, then all their second ones and so on.
fn panels<T: Copy + Default>(rows: &[T], inputs: usize, outputs: usize, width: usize) -> Vec<T> {
    let mut panels = vec![T::default(); outputs.div_ceil(width) * width * inputs];
    let groups = rows.chunks(inputs * width);
    for (panel, group) in panels.chunks_exact_mut(inputs * width).zip(groups) {
        for (column, row) in group.chunks_exact(inputs).enumerate() {
            for (place, number) in panel[column..].iter_mut().step_by(width).zip(row) {
                *place = *number;
            }
        }
    }
    panels
}
