//! One request's inputs in pieces: who turns a piece, how large one is, and how the results are joined again.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{InputAdapter, InputError, Shape, Tensor, TensorError, TensorList, TextProcessor};

/// So many texts make a piece: few enough that other requests get their turn after a few milliseconds, and enough that
/// handing them over costs nothing beside the work.
const TEXTS: usize = 64;

/// Who turns what was given into what the network takes.
#[derive(Debug, Clone)]
pub(super) enum Worker {
    /// One input of several.
    Input(Arc<dyn InputAdapter>),
    /// All of them.
    Text(Arc<dyn TextProcessor>),
}

impl Worker {
    /// The most rows of a piece. A picture is work enough by itself.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Input(_) => 1,
            Self::Text(_) => TEXTS,
        }
    }

    /// Turns one piece. Foreign code, and CPU work.
    pub(super) fn turn(&self, given: &[Tensor]) -> Result<TensorList, InputError> {
        match self {
            Self::Input(adapter) => given.iter().map(|tensor| adapter.adapt(tensor)).collect(),
            Self::Text(processor) => processor.process(given),
        }
    }

    /// One tensor of `pieces`, one after the other. Pieces of a text's tokens are as long as their longest, and the shorter
    /// are filled up with zeros: the mask, which is filled up as well, says that these are no tokens.
    pub(super) fn join(&self, pieces: &[Tensor]) -> Result<Tensor, TensorError> {
        match self {
            Self::Input(_) => Tensor::concat(pieces),
            Self::Text(_) => padded(pieces),
        }
    }
}

/// Joins along the first axis; along every other one the largest counts.
fn padded(pieces: &[Tensor]) -> Result<Tensor, TensorError> {
    let Some(first) =
        pieces.first().filter(|first| pieces.iter().any(|piece| piece.shape().get(1..) != first.shape().get(1..)))
    else {
        return Tensor::concat(pieces);
    };
    let fits = |piece: &&Tensor| {
        (piece.dtype(), piece.shape().len()) != (first.dtype(), first.shape().len()) || piece.bytes().is_none()
    };
    let mismatch = |piece: &Tensor| TensorError::Join { left: format!("{first:?}"), right: format!("{piece:?}") };
    if let Some(other) = pieces.iter().find(fits) {
        return Err(mismatch(other));
    }
    let width = first.dtype().size().ok_or_else(|| mismatch(first))?;
    let mut sizes: Vec<usize> = first.shape().iter().copied().collect();
    for piece in &pieces[1..] {
        for (axis, (size, own)) in sizes.iter_mut().zip(piece.shape().iter()).enumerate() {
            *size = if axis == 0 { *size + own } else { (*size).max(*own) };
        }
    }
    let shape = Shape::new(&sizes)?;
    let mut joined = vec![0; shape.n_elements().saturating_mul(width)];
    let row = sizes[1..].iter().product::<usize>() * width;
    let mut start = 0;
    for piece in pieces {
        let end = start + piece.shape().first().copied().unwrap_or_default() * row;
        if let Some(bytes) = piece.bytes() {
            copy(&mut joined[start..end], &sizes[1..], bytes, piece.shape(), width);
        }
        start = end;
    }
    Tensor::new(first.dtype(), shape, Bytes::from(joined))
}

/// Copies `source`, of the sizes `own`, into the beginning of each axis of `target`, whose sizes after the first are `inner`.
fn copy(target: &mut [u8], inner: &[usize], source: &[u8], own: &[usize], width: usize) {
    if own.get(1..).is_none_or(|own| own == inner) {
        target.copy_from_slice(source);
        return;
    }
    let (target_row, source_row) =
        (inner.iter().product::<usize>() * width, own[1..].iter().product::<usize>() * width);
    if source_row == 0 {
        return;
    }
    for (target, source) in target.chunks_exact_mut(target_row).zip(source.chunks_exact(source_row)) {
        let used = own[1] * inner[1..].iter().product::<usize>() * width;
        copy(&mut target[..used], &inner[1..], source, &own[1..], width);
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::Tensor;
    use proptest::prelude::*;

    use super::padded;

    fn tensor(sizes: &[usize], from: i64) -> Tensor {
        let elements = sizes.iter().product::<usize>();
        Tensor::from_vec(sizes, (0..elements).map(|index| from + i64::try_from(index).unwrap()).collect()).unwrap()
    }

    #[test]
    fn shorter_pieces_are_filled_up_with_zeros() {
        let joined = padded(&[tensor(&[1, 3], 1), tensor(&[2, 1], 7), tensor(&[1, 0], 0)]).unwrap();
        assert_eq!(joined.shape().as_ref(), [4, 3]);
        assert_eq!(joined.elements::<i64>().unwrap().as_ref(), [1, 2, 3, 7, 0, 0, 8, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_of_another_kind_is_not_joined() {
        let other = Tensor::from_vec(&[1, 2], vec![1_i32, 2]).unwrap();
        assert!(padded(&[tensor(&[1, 3], 1), other]).is_err());
        assert!(padded(&[tensor(&[1, 3], 1), tensor(&[1], 1)]).is_err());
        assert!(padded(&[]).is_err());
    }

    proptest! {
        /// Cutting what was joined gives the pieces back, along any axes.
        #[test]
        fn what_is_joined_can_be_cut_again(shapes in prop::collection::vec((1_usize..4, 0_usize..4, 1_usize..3), 1..5)) {
            let pieces: Vec<Tensor> =
                shapes.iter().enumerate().map(|(index, (a, b, c))| tensor(&[*a, *b, *c], 100 * i64::try_from(index).unwrap())).collect();
            let joined = padded(&pieces).unwrap();
            let mut start = 0;
            for piece in pieces {
                let own = joined.rows(start..start + piece.shape()[0]);
                start += piece.shape()[0];
                let own = own.narrowed(1, piece.shape()[1]).unwrap().narrowed(2, piece.shape()[2]).unwrap();
                prop_assert_eq!(own.elements::<i64>().unwrap(), piece.elements::<i64>().unwrap());
            }
        }
    }
}
