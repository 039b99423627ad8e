//! Trying a model with made-up inputs, once and at load: whether its rows give together what they give alone, which batches
//! rest on.
//!
//! Shapes show which axis carries rows, but an operator may work across it, a reshape may hide it, and a value may depend on
//! the row's place or on how many rows there are. So two different rows are run together and alone. How a model runs is its
//! engine's business, and whether it is tried at all.

use bytes::Bytes;
use half::{bf16, f16};

use crate::{DType, Dim, Shape, Signature, Strings, Tensor, TensorList, TensorSpec};

/// Rows that are run together.
const ROWS: usize = 2;
/// What a string counts, in bytes.
const STRING: usize = 16;

/// How a model is tried.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'t> {
    /// What goes in and out.
    pub signature: &'t Signature,
    /// Sizes for the axes that a request may choose, in the order in which they are tried until one suits the model. At least
    /// one.
    pub free: &'t [usize],
    /// Bytes of one row of one input. A model with larger ones is not tried: loading must not take minutes.
    pub most_bytes: usize,
}

/// What trying showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Rows together are what they are alone.
    Independent,
    /// They are not; in words.
    Mixing(String),
    /// It could not be tried: no invented input suits it.
    Unknown,
}

impl Trial<'_> {
    /// Tries a batched model. `answer` gives its outputs for inputs of so many rows, or `None` where they do not suit it; equal
    /// answers may be apart by `tolerance` of the largest number in them.
    pub fn rows(&self, tolerance: f64, mut answer: impl FnMut(&TensorList, usize) -> Option<TensorList>) -> Verdict {
        let Some((all, together)) = self.once(ROWS, &mut answer) else { return Verdict::Unknown };
        for row in 0..ROWS {
            let one: TensorList = all.iter().map(|tensor| tensor.rows(row..row + 1)).collect();
            let Some(alone) = answer(&one, 1) else { return Verdict::Unknown };
            for (spec, (together, alone)) in self.signature.outputs().iter().zip(together.iter().zip(&alone)) {
                let own = (together.shape().rows() == Some(ROWS)).then(|| together.rows(row..row + 1));
                if !own.is_some_and(|own| is_same(&own, alone, tolerance)) {
                    let text = format!("output `{}`: rows run together are not what they are alone", spec.name);
                    return Verdict::Mixing(text);
                }
            }
        }
        Verdict::Independent
    }

    /// Inputs of `rows` rows that suit the model, and its answer to them. The same at every load.
    pub fn once(
        &self,
        rows: usize,
        mut answer: impl FnMut(&TensorList, usize) -> Option<TensorList>,
    ) -> Option<(TensorList, TensorList)> {
        let sizes = if self.signature.symbols().is_empty() { self.free.get(..1)? } else { self.free };
        sizes.iter().find_map(|&size| {
            let inputs = self.invent(rows, size)?;
            let answer = answer(&inputs, rows)?;
            Some((inputs, answer))
        })
    }

    fn invent(&self, rows: usize, free: usize) -> Option<TensorList> {
        // Every element differs from its neighbours and from the same place in the other row.
        let mut state = 0x9e37_79b9_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        let most = rows.saturating_mul(self.most_bytes);
        self.signature.inputs().iter().map(|spec| tensor(spec, (rows, free), most, &mut next)).collect()
    }
}

/// Numbers between -1 and 1; for integers 0 and 1, which are tokens of any vocabulary.
fn tensor(
    spec: &TensorSpec,
    (rows, free): (usize, usize),
    most: usize,
    next: &mut dyn FnMut() -> u32,
) -> Option<Tensor> {
    let size = |(axis, dim): (usize, &Dim)| match dim {
        _ if spec.batch_axis == Some(axis) => Some(rows),
        Dim::Fixed(size) => Some(*size),
        Dim::Symbol(_) => Some(free),
        Dim::Expr(_) | Dim::Unknown => None,
    };
    let sizes = spec.shape.iter().enumerate().map(size).collect::<Option<Vec<_>>>()?;
    let shape = Shape::new(&sizes).ok()?;
    let elements = shape.n_elements();
    if elements.checked_mul(spec.dtype.size().unwrap_or(STRING))? > most {
        return None;
    }
    let Some(width) = spec.dtype.size() else {
        let strings: Strings = (0..elements).map(|_| if next() & 1 == 0 { &b"0"[..] } else { b"1" }).collect();
        return Tensor::from_strings(&sizes, strings).ok();
    };
    let mut bytes = Vec::with_capacity(elements * width);
    for _ in 0..elements {
        let random = next();
        let (sign, unit) = (random & 1, f32::from(u16::try_from(random >> 17).unwrap_or_default()) / 32_768.0);
        let value = if sign == 0 { unit } else { -unit };
        match spec.dtype {
            DType::Fp32 => bytes.extend_from_slice(&value.to_le_bytes()),
            DType::Fp64 => bytes.extend_from_slice(&f64::from(value).to_le_bytes()),
            DType::Fp16 => bytes.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
            DType::Bf16 => bytes.extend_from_slice(&bf16::from_f32(value).to_le_bytes()),
            DType::Bool
            | DType::Uint8
            | DType::Uint16
            | DType::Uint32
            | DType::Uint64
            | DType::Int8
            | DType::Int16
            | DType::Int32
            | DType::Int64 => {
                bytes.push(u8::from(sign == 1));
                bytes.resize(bytes.len() + width - 1, 0);
            }
            DType::Bytes => return None,
        }
    }
    Tensor::new(spec.dtype, shape, Bytes::from(bytes)).ok()
}

fn is_same(a: &Tensor, b: &Tensor, tolerance: f64) -> bool {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return false;
    }
    let (Some(a_floats), Some(b_floats)) = (floats(a), floats(b)) else {
        return a.bytes() == b.bytes() && a.strings() == b.strings();
    };
    let both = a_floats.iter().chain(&b_floats);
    let largest = both.filter(|value| value.is_finite()).fold(0.0, |most: f64, value| most.max(value.abs()));
    a_floats
        .iter()
        .zip(&b_floats)
        .all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * largest)
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.dtype() {
        DType::Fp32 => Some(tensor.elements::<f32>().ok()?.iter().map(|value| f64::from(*value)).collect()),
        DType::Fp64 => Some(tensor.elements::<f64>().ok()?.to_vec()),
        DType::Fp16 => Some(tensor.elements::<f16>().ok()?.iter().map(|value| value.to_f64()).collect()),
        DType::Bf16 => Some(tensor.elements::<bf16>().ok()?.iter().map(|value| value.to_f64()).collect()),
        DType::Bool
        | DType::Uint8
        | DType::Uint16
        | DType::Uint32
        | DType::Uint64
        | DType::Int8
        | DType::Int16
        | DType::Int32
        | DType::Int64
        | DType::Bytes => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Trial, Verdict};
    use crate::{DType, Dim, Signature, Tensor, TensorList, TensorSpec};

    fn signature() -> Signature {
        let spec = |name| TensorSpec::new(name, DType::Fp32, vec![Dim::symbol("N"), Dim::symbol("L")]);
        Signature::new(vec![spec("x")], vec![spec("y")]).unwrap()
    }

    fn judged(most_bytes: usize, answer: impl Fn(&[f32], usize) -> Option<Vec<f32>>) -> Verdict {
        let signature = signature();
        let trial = Trial { signature: &signature, free: &[4, 8], most_bytes };
        trial.rows(1e-3, |inputs: &TensorList, rows| {
            let x = inputs[0].elements::<f32>().unwrap();
            let columns = x.len() / rows;
            Some([Tensor::from_vec(&[rows, columns], answer(&x, columns)?).unwrap()].into_iter().collect())
        })
    }

    #[test]
    fn rows_that_change_each_other_are_found_and_others_are_not() {
        let doubled = |x: &[f32], _| Some(x.iter().map(|x| x * 2.0).collect());
        assert_eq!(judged(1000, doubled), Verdict::Independent);
        let summed = |x: &[f32], _| Some(vec![x.iter().sum(); x.len()]);
        assert!(matches!(judged(1000, summed), Verdict::Mixing(text) if text.contains("`y`")));
        let placed = |x: &[f32], columns: usize| {
            Some(x.iter().enumerate().map(|(index, x)| if index < columns { *x } else { -x }).collect())
        };
        assert!(matches!(judged(1000, placed), Verdict::Mixing(_)));
    }

    #[test]
    fn what_nothing_suits_or_is_too_large_is_not_judged() {
        assert_eq!(judged(1000, |_, _| None), Verdict::Unknown);
        assert_eq!(judged(15, |x, _| Some(x.to_vec())), Verdict::Unknown);
        // The second size suits.
        assert_eq!(judged(1000, |x, columns| (columns == 8).then(|| x.to_vec())), Verdict::Independent);
    }
}
