//! Normalisation of rows to mean 0 and variance 1, with a learned scale and shift.

use super::isa::{ISA, Step, Work, on};
use super::math::sum;

/// The learned part.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) eps: f32,
}

/// Normalises each row of `x + added` (Ba, Kiros, Hinton: Layer Normalization, 2016).
pub(crate) fn layer_norm(norm: &Norm, x: &[f32], added: Option<&[f32]>) -> Vec<f32> {
    struct Rows<'a>(&'a Norm, &'a [f32], Option<&'a [f32]>, &'a mut [f32]);
    impl Work for Rows<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Step>(self) {
            let Self(norm, x, added, out) = self;
            let width = norm.weight.len();
            #[expect(clippy::cast_precision_loss, reason = "a width is far below 2^24")]
            let share = 1.0 / width as f32;
            for (index, (row, x)) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
                match added {
                    Some(added) => {
                        for ((out, x), y) in row.iter_mut().zip(x).zip(&added[index * width..]) {
                            *out = x + y;
                        }
                    }
                    None => row.copy_from_slice(x),
                }
                let mean = sum(row, |x| x) * share;
                let variance = sum(row, |x| (x - mean) * (x - mean)) * share;
                let scale = 1.0 / (variance + norm.eps).sqrt();
                for ((x, weight), bias) in row.iter_mut().zip(&norm.weight).zip(&norm.bias) {
                    *x = ((*x - mean) * scale).mul_add(*weight, *bias);
                }
            }
        }
    }
    let mut out = vec![0.0; x.len()];
    on(*ISA, Rows(norm, x, added, &mut out));
    out
}
