//! Several requests in one run: joined once, cut by the same handle.

use smallvec::SmallVec;

use crate::{DType, Shape, Signature, Tensor, TensorError, TensorList};

/// One request's rows inside a batch.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its inputs, in the signature's order, checked.
    pub inputs: TensorList,
    /// How many rows they have.
    pub rows: usize,
}

/// The requests of one run. All are of one group, so that their inputs join along axis 0, unless the signature
/// [mixes](Signature::mixed) sizes.
#[derive(Debug)]
pub struct Batch {
    parts: Vec<Part>,
    padding: usize,
}

impl Batch {
    /// A batch of `parts` (at least one), with `padding` rows after them that repeat the last real row. Batches of a mixed
    /// signature have none.
    pub fn new(parts: Vec<Part>, padding: usize) -> Self {
        Self { parts, padding }
    }

    /// A batch of one request.
    pub fn single(inputs: TensorList, rows: usize) -> Self {
        Self::new(vec![Part { inputs, rows }], 0)
    }

    /// Rows to run, padding included.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum::<usize>() + self.padding
    }

    /// The requests.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Takes the requests back.
    pub fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    /// Input `index` of the whole batch. With one part and no padding this is that part's tensor, not a copy.
    ///
    /// # Errors
    /// [`TensorError`] when the parts do not join, which checked requests of one group do.
    pub fn gather(&self, index: usize) -> Result<Tensor, TensorError> {
        let mut pieces: SmallVec<[Tensor; 8]> =
            self.parts.iter().filter_map(|part| part.inputs.get(index).cloned()).collect();
        if let Some(last) = pieces.last().filter(|_| self.padding > 0).cloned() {
            let rows = last.shape().rows().unwrap_or(0);
            let row = last.rows(rows.saturating_sub(1)..rows);
            pieces.extend(std::iter::repeat_n(row, self.padding));
        }
        Tensor::concat(&pieces)
    }

    /// Copies input `index` of the whole batch into `target`, the backend's own buffer: the one copy on the way in.
    ///
    /// # Errors
    /// [`ContractError::Gather`] when `target` has another length than the input's bytes, or the input is `BYTES`.
    pub fn gather_into(&self, index: usize, target: &mut [u8]) -> Result<(), ContractError> {
        let wrong = || ContractError::Gather { input: index };
        let mut rest = target;
        let mut last_row: &[u8] = &[];
        for part in &self.parts {
            let bytes = part.inputs.get(index).and_then(Tensor::bytes).ok_or_else(wrong)?;
            let (head, tail) = rest.split_at_mut_checked(bytes.len()).ok_or_else(wrong)?;
            head.copy_from_slice(bytes);
            rest = tail;
            last_row = &bytes[bytes.len() - bytes.len() / part.rows.max(1)..];
        }
        for _ in 0..self.padding {
            let (head, tail) = rest.split_at_mut_checked(last_row.len()).ok_or_else(wrong)?;
            head.copy_from_slice(last_row);
            rest = tail;
        }
        if rest.is_empty() { Ok(()) } else { Err(wrong()) }
    }

    /// Checks the outputs of a run against `signature` and cuts them, one list per part, in order.
    ///
    /// A part's share is a slice of the joined output, not a copy, unless it is so small that it would keep a much
    /// larger buffer alive. Unwanted outputs stay `None`.
    ///
    /// # Errors
    /// [`ContractError`] when an output is missing in number, has the wrong dtype or the wrong number of rows: the
    /// backend broke its contract, and nobody gets rows that may be another's.
    pub fn split(&self, outputs: &BatchOutputs, signature: &Signature) -> Result<Vec<PartOutputs>, ContractError> {
        let (expected, got) = (signature.outputs().len(), outputs.0.len());
        if expected != got {
            return Err(ContractError::Count { expected, got });
        }
        let rows = self.rows();
        for (index, (spec, output)) in signature.outputs().iter().zip(&outputs.0).enumerate() {
            let Some(tensor) = output else { continue };
            if tensor.dtype() != spec.dtype {
                return Err(ContractError::DType { output: index, expected: spec.dtype, got: tensor.dtype() });
            }
            if tensor.shape().len() != spec.shape.len() {
                return Err(ContractError::Rank {
                    output: index,
                    expected: spec.shape.len(),
                    got: tensor.shape().clone(),
                });
            }
            if spec.batch_axis == Some(0) && tensor.shape().rows() != Some(rows) {
                return Err(ContractError::Rows { output: index, expected: rows, got: tensor.shape().clone() });
            }
        }
        if let [_] = self.parts.as_slice()
            && self.padding == 0
        {
            return Ok(vec![outputs.0.iter().cloned().collect()]);
        }
        if !signature.is_batched() {
            return Err(ContractError::Unbatched { parts: self.parts.len() });
        }
        let mut start = 0;
        let mut shares = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let range = start..start + part.rows;
            start = range.end;
            let mut own = PartOutputs::with_capacity(outputs.0.len());
            for (index, (spec, output)) in signature.outputs().iter().zip(&outputs.0).enumerate() {
                let Some(whole) = output else {
                    own.push(None);
                    continue;
                };
                let mut share = share(whole, range.clone());
                if signature.is_mixed() {
                    for (axis, size) in signature.own_sizes(spec, &part.inputs) {
                        share = share.narrowed(axis, size).ok_or_else(|| {
                            let got = share.shape().clone();
                            ContractError::Size { output: index, axis, expected: size, got }
                        })?;
                    }
                }
                own.push(Some(share));
            }
            shares.push(own);
        }
        Ok(shares)
    }
}

/// One part's share of the outputs, in the signature's order.
pub type PartOutputs = SmallVec<[Option<Tensor>; 1]>;

/// Below this size a share is copied when it is less than a quarter of the buffer that it would pin.
const SMALL: usize = 16 * 1024;
/// A buffer of so few bytes may be pinned by any share: a copy would take about as much.
const TINY: usize = 1024;

fn share(whole: &Tensor, range: std::ops::Range<usize>) -> Tensor {
    let slice = whole.rows(range);
    let pins = whole.n_bytes() > TINY && slice.n_bytes() < whole.n_bytes() / 4;
    if pins && slice.n_bytes() <= SMALL { slice.detached() } else { slice }
}

/// What a run gave: one tensor per output of the signature, for the whole batch.
#[derive(Debug, Clone)]
pub struct BatchOutputs(pub SmallVec<[Option<Tensor>; 2]>);

impl BatchOutputs {
    /// Every output, in the signature's order.
    pub fn all(tensors: impl IntoIterator<Item = Tensor>) -> Self {
        Self(tensors.into_iter().map(Some).collect())
    }
}

/// A backend did not do what it must. Not the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each field is")]
pub enum ContractError {
    /// The buffer for an input has the wrong size.
    #[error("the buffer for input {input} does not fit the batch")]
    Gather { input: usize },
    /// Too few or too many outputs.
    #[error("expected {expected} outputs, got {got}")]
    Count { expected: usize, got: usize },
    /// An output of the wrong element type.
    #[error("output {output}: expected {expected}, got {got}")]
    DType { output: usize, expected: DType, got: DType },
    /// An output of the wrong rank.
    #[error("output {output}: expected rank {expected}, got shape {got}")]
    Rank { output: usize, expected: usize, got: Shape },
    /// An output with too few or too many rows.
    #[error("output {output}: expected {expected} rows, got shape {got}")]
    Rows { output: usize, expected: usize, got: Shape },
    /// An output that is too short along the axis of a mixed symbol.
    #[error("output {output}: expected at least {expected} along axis {axis}, got shape {got}")]
    Size { output: usize, axis: usize, expected: usize, got: Shape },
    /// Several requests in one run of a model that is not batched.
    #[error("{parts} requests in one run of a model without a batch axis")]
    Unbatched { parts: usize },
}
