//! The loops around the innermost step of a product with a matrix of weights.

use millrace_huggingface::Activation;

use super::isa::{Step, Work};
use super::math::activate;

/// Rows to multiply, and room to lay them out anew.
pub(super) struct Operand<'a> {
    pub(super) x: &'a [f32],
    pub(super) inputs: usize,
    pub(super) packed: &'a mut Vec<f32>,
}

/// Gives a matrix by its panels.
pub(super) trait Panels {
    /// Panel `index`, `[inputs][width]`.
    fn panel(&mut self, index: usize) -> &[f32];
}

/// `out = activation(x·Wᵀ + bias)`, where `panels` gives W.
pub(super) struct Product<'a, P> {
    pub(super) operand: Operand<'a>,
    pub(super) outputs: usize,
    pub(super) bias: &'a [f32],
    pub(super) activation: Activation,
    pub(super) panels: P,
    pub(super) out: &'a mut [f32],
}

/// The most numbers of a tile, of any processor.
pub(super) const TILE: usize = 8 * 48;

impl<P: Panels> Work for Product<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Step>(mut self) {
        let k = self.operand.inputs;
        let rows = self.operand.x.len() / k;
        pack::<S>(&mut self.operand, rows);
        let mut tile = [0.0_f32; TILE];
        for (index, start) in (0..self.outputs).step_by(S::WIDTH).enumerate() {
            let panel = self.panels.panel(index);
            let end = self.outputs.min(start + S::WIDTH);
            for (first, a) in (0..rows).step_by(S::ROWS).zip(self.operand.packed.chunks(S::ROWS * k)) {
                let count = S::ROWS.min(rows - first);
                S::tile(k, count, S::WIDTH, a, panel, &mut tile);
                for (r, sums) in tile.chunks_exact(S::WIDTH).take(count).enumerate() {
                    let row = (first + r) * self.outputs;
                    let out = &mut self.out[row + start..row + end];
                    if self.bias.is_empty() {
                        out.copy_from_slice(&sums[..end - start]);
                    } else {
                        for ((out, sum), bias) in out.iter_mut().zip(sums).zip(&self.bias[start..end]) {
                            *out = sum + bias;
                        }
                    }
                    activate(self.activation, out);
                }
            }
        }
    }
}

/// Lays the rows out as the step reads them: in groups, and in each all first numbers, then all second ones and so on.
#[inline(always)]
fn pack<S: Step>(operand: &mut Operand<'_>, rows: usize) {
    let k = operand.inputs;
    operand.packed.resize(rows * k, 0.0);
    for (packed, group) in operand.packed.chunks_mut(S::ROWS * k).zip(operand.x.chunks(S::ROWS * k)) {
        interleave(group, k, packed);
    }
}

/// `packed[i][r] = rows[r][i]` for rows of `k` numbers.
#[inline(always)]
pub(super) fn interleave(rows: &[f32], k: usize, packed: &mut [f32]) {
    let count = rows.len() / k;
    for (r, row) in rows.chunks_exact(k).enumerate() {
        for (place, x) in packed[r..].iter_mut().step_by(count).zip(row) {
            *place = *x;
        }
    }
}
