//! Where an answer goes: to its caller's slot, or to the joint that waits for the other pieces of a split request.

use std::sync::Arc;

use millrace_core::{InferResponse, PartOutputs, Reason, Refusal, Slot, Stages, Tensor, Wanted};
use parking_lot::Mutex;

/// One queued request's way back, or one piece's.
#[derive(Debug)]
pub(crate) enum Reply {
    Direct(Slot),
    Piece(Arc<Joint>, usize),
}

/// What a request or a piece came to.
pub(crate) type Piece = Result<(PartOutputs, Stages), Refusal>;

impl Reply {
    /// Ways back for the `count` pieces of one request.
    pub(crate) fn pieces(slot: Slot, count: usize) -> impl Iterator<Item = Self> {
        let state = JointState { slot: Some(slot), pieces: vec![None; count], left: count, stages: None };
        let joint = Arc::new(Joint(Mutex::new(state)));
        (0..count).map(move |index| Self::Piece(Arc::clone(&joint), index))
    }

    /// Whether an answer would reach nobody.
    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Direct(slot) => slot.is_cancelled(),
            Self::Piece(joint, _) => joint.0.lock().slot.as_ref().is_none_or(Slot::is_cancelled),
        }
    }

    /// Gives up: the caller has gone. Whether that ends the request, which only its first piece does.
    pub(crate) fn ends(self) -> bool {
        match self {
            Self::Direct(_) => true,
            Self::Piece(joint, _) => joint.0.lock().slot.take().is_some(),
        }
    }

    /// Gives the answer. If that ends the whole request, `record` hears of it first: whoever has an answer finds it
    /// counted.
    pub(crate) fn give(self, piece: Piece, wanted: &Wanted, record: impl FnOnce(Result<Stages, Reason>)) {
        let whole = match self {
            Self::Direct(slot) => Some((slot, piece)),
            Self::Piece(joint, index) => joint.give(index, piece),
        };
        let Some((slot, piece)) = whole else { return };
        let result = piece.and_then(|(outputs, stages)| {
            let outputs = choose(outputs, wanted).ok_or_else(|| {
                Refusal::new(Reason::BackendBroken, "the backend broke its contract: a wanted output is missing")
            })?;
            Ok(InferResponse { outputs, stages })
        });
        record(match &result {
            Ok(response) => Ok(response.stages),
            Err(refusal) => Err(refusal.reason()),
        });
        slot.answer(result);
    }
}

fn choose(mut outputs: PartOutputs, wanted: &Wanted) -> Option<millrace_core::TensorList> {
    match wanted {
        Wanted::All => outputs.into_iter().collect(),
        Wanted::Only(indices) => {
            let mut left = indices.as_slice();
            let mut next = || {
                let (index, rest) = left.split_first()?;
                left = rest;
                let output = outputs.get_mut(*index);
                // Whoever asks for one twice gets it twice.
                Some(output.and_then(|output| if rest.contains(index) { output.clone() } else { output.take() }))
            };
            std::iter::from_fn(&mut next).collect()
        }
    }
}

/// Waits for all pieces of one request, or for the first that failed.
#[derive(Debug)]
pub(crate) struct Joint(Mutex<JointState>);

#[derive(Debug)]
struct JointState {
    /// Gone once the request was answered: what is left of it is not worth running.
    slot: Option<Slot>,
    pieces: Vec<Option<PartOutputs>>,
    left: usize,
    stages: Option<Stages>,
}

impl Joint {
    fn give(&self, index: usize, piece: Piece) -> Option<(Slot, Piece)> {
        let mut state = self.0.lock();
        let (outputs, stages) = match piece {
            Ok(piece) => piece,
            Err(refusal) => return state.slot.take().map(|slot| (slot, Err(refusal))),
        };
        state.stages = Some(match state.stages {
            None => stages,
            // What is said of the batch is said of the largest.
            Some(other) => Stages {
                queued: other.queued.min(stages.queued),
                formed: other.formed.min(stages.formed),
                started: other.started.min(stages.started),
                finished: other.finished.max(stages.finished),
                ..if other.batch_rows > stages.batch_rows { other } else { stages }
            },
        });
        state.pieces[index] = Some(outputs);
        state.left -= 1;
        if state.left > 0 {
            return None;
        }
        let slot = state.slot.take()?;
        let pieces: Vec<_> = state.pieces.drain(..).flatten().collect();
        let stages = state.stages?;
        // Joining copies: not under the lock that `is_cancelled` needs.
        drop(state);
        let joined = join(&pieces).ok_or_else(|| {
            Refusal::new(Reason::BackendBroken, "the backend broke its contract: the pieces do not join")
        });
        Some((slot, joined.map(|outputs| (outputs, stages))))
    }
}

/// Joins the outputs of consecutive pieces of one request, or `None` when they do not fit together.
pub(crate) fn join(pieces: &[PartOutputs]) -> Option<PartOutputs> {
    let first = pieces.first()?;
    let join_one = |index: usize| {
        let tensors: Vec<Tensor> = pieces.iter().filter_map(|piece| piece.get(index).cloned().flatten()).collect();
        match tensors.len() {
            0 => Some(None),
            n if n == pieces.len() => Tensor::concat(&tensors).ok().map(Some),
            _ => None,
        }
    };
    (0..first.len()).map(join_one).collect()
}
