//! One worker's state: buffers for what has to be gathered. Sessions belong to the model.

use std::sync::Arc;
use std::thread;

use millrace_core::{Batch, BatchOutputs, Instance, Quoted, RunContext, RunError, Tensor, guarded};
use ort::{Error, ErrorCode};
use smallvec::SmallVec;

use crate::input::{Buffers, Gathered};
use crate::model::Loaded;

type Answers = SmallVec<[Option<Tensor>; 2]>;

pub(crate) struct OnnxRuntimeInstance {
    loaded: Arc<Loaded>,
    buffers: Buffers,
}

impl OnnxRuntimeInstance {
    pub(crate) fn new(loaded: Arc<Loaded>) -> Self {
        let buffers = Buffers::new(loaded.signature.inputs().len());
        Self { loaded, buffers }
    }
}

impl Instance for OnnxRuntimeInstance {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        if (context.cancelled)() {
            return Err(RunError::Cancelled);
        }
        let inputs = self.buffers.gather(batch)?;
        let rows = if self.loaded.signature.is_batched() { batch.rows() } else { 1 };
        let wanted = |index| context.wanted.includes(index);
        // Rows side by side on the session of one thread need no memory of their own and gain more than threads inside
        // one operator do: 1.9 times as many rows on two cores, against 1.6.
        let pieces = context.threads.min(rows);
        let outcome = if pieces > 1 {
            side_by_side(&self.loaded, &inputs, rows, pieces, &wanted)?
        } else {
            guarded(|| self.loaded.runner(context.threads).run(&inputs, &wanted).map_err(run_error))
                .map_err(|panicked| RunError::Failed(Box::new(panicked)))??
        };
        Ok(BatchOutputs(outcome))
    }
}

/// Runs `pieces` pieces of the rows, each on a thread, and joins what comes out.
fn side_by_side(
    loaded: &Loaded,
    inputs: &[Gathered<'_>],
    rows: usize,
    pieces: usize,
    wanted: &(dyn Fn(usize) -> bool + Sync),
) -> Result<Answers, RunError> {
    let run = |piece: usize| -> Result<Answers, RunError> {
        let range = piece * rows / pieces..(piece + 1) * rows / pieces;
        let part: SmallVec<[Gathered<'_>; 4]> = inputs.iter().map(|input| input.rows(range.clone())).collect();
        guarded(|| loaded.runner.run(&part, &|index| wanted(index)).map_err(run_error))
            .map_err(|panicked| RunError::Failed(Box::new(panicked)))?
    };
    let answers = thread::scope(|scope| {
        let others: SmallVec<[_; 8]> = (1..pieces)
            .map(|piece| {
                let run = &run;
                thread::Builder::new().spawn_scoped(scope, move || run(piece))
            })
            .collect();
        let mut answers: SmallVec<[Result<Answers, RunError>; 8]> = SmallVec::new();
        answers.push(run(0));
        for (piece, other) in (1..).zip(others) {
            answers.push(match other.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(RunError::Failed("a thread of the run panicked".into())),
                // Without a thread the piece runs here.
                Err(_) => run(piece),
            });
        }
        answers.into_iter().collect::<Result<SmallVec<[Answers; 8]>, _>>()
    })?;
    let join = |index: usize| {
        let parts: Option<SmallVec<[Tensor; 8]>> = answers.iter().map(|answer| answer[index].clone()).collect();
        parts.map(|parts| Tensor::concat(&parts)).transpose()
    };
    Ok((0..loaded.signature.outputs().len()).map(join).collect::<Result<_, _>>()?)
}

/// Whose fault it was. The engine says so by a code; operators that check values give the same one as those that check
/// shapes.
pub(crate) fn run_error(error: Error) -> RunError {
    match error.code() {
        ErrorCode::InvalidArgument => RunError::InvalidInput(words(error.message())),
        _ => RunError::Failed(Box::new(error)),
    }
}

/// What the engine says, without the places in its source code.
pub(crate) fn words(message: &str) -> String {
    let text = message.split_once("Status Message: ").map_or(message, |(_, text)| text);
    let node =
        message.split_once("while running ").and_then(|(_, rest)| rest.split_once(" node")).map(|(name, _)| name);
    let text = text.split(|c: char| c.is_whitespace()).filter(|word| !is_place(word)).collect::<Vec<_>>().join(" ");
    let plain: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    match node {
        Some(node) => format!("the operator {} refuses the input: {plain}", Quoted(node)),
        None => plain,
    }
}

fn is_place(word: &str) -> bool {
    word.starts_with('/') || word.contains("::") || word.contains(".cc:") || word.contains(".h:")
}
