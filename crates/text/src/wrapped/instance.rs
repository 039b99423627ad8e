//! Runs a batch: rows sorted by length, cut into runs, each given to the inner network, and their answers put in place.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use millrace_core::{
    Batch, BatchOutputs, DType, Instance, Part, RunContext, RunError, Tensor, TensorError, TensorList, Wanted,
};
use smallvec::SmallVec;

use super::cut;
use super::model::Shared;
use super::rows::Request;
use crate::export::Gives;

/// The most numbers in the vectors of all tokens of a batch.
const MOST_NUMBERS: usize = 1 << 28;

/// The mutable state of one worker.
pub(super) struct TextInstance {
    shared: Arc<Shared>,
    inner: Box<dyn Instance>,
    computed: usize,
}

/// A row of a batch: which request, which of its rows, how long, and which row of the batch it is.
#[derive(Debug, Clone, Copy)]
struct Row {
    request: usize,
    index: usize,
    length: usize,
    place: usize,
}

impl TextInstance {
    pub(super) fn new(shared: Arc<Shared>, inner: Box<dyn Instance>) -> Self {
        Self { shared, inner, computed: 0 }
    }
}

impl Instance for TextInstance {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        self.computed = 0;
        let requests = batch.parts().iter().map(|part| Request::of(&part.inputs)).collect::<Result<Vec<_>, _>>()?;
        for request in &requests {
            request.check(&self.shared.vocabulary).map_err(|error| RunError::InvalidInput(error.to_string()))?;
        }
        let rows = sorted(&requests);
        let lengths: Vec<usize> = rows.iter().map(|row| row.length).collect();
        let threads = usize::from(context.threads > 1);
        let cost = self.shared.costs[threads].lock().clone();
        let runs = cut::runs(&lengths, &cost);
        let mut answers = Answers::new(&self.shared, &requests, rows.len(), context.wanted)?;
        let inner_wanted = answers.inner_wanted(&self.shared.export.gives);
        let inner_context = RunContext { wanted: &inner_wanted, ..*context };
        let mut runs: Vec<Range<usize>> = runs.into_iter().rev().collect();
        while let Some(run) = runs.pop() {
            if (context.cancelled)() {
                return Err(RunError::Cancelled);
            }
            let (own, length) = (&rows[run.clone()], lengths[run.end - 1]);
            // Together they may be more than the engine takes, though each may be run.
            if own.len() > 1 && self.shared.admit(own.len(), length).is_err() {
                let middle = run.start + own.len() / 2;
                runs.extend([middle..run.end, run.start..middle]);
                continue;
            }
            let inputs = self.shared.inputs(&requests, own, length)?;
            let batch = Batch::new(vec![Part { inputs, rows: own.len() }], 0);
            let (outputs, seconds) = timed(|| self.inner.run(&batch, &inner_context));
            let outputs = outputs?;
            self.shared.costs[threads].lock().learn(own.len(), length, seconds);
            self.computed += own.len() * length;
            answers.take(&self.shared, &requests, own, length, &outputs)?;
        }
        // Batches of requests of different lengths have no rows of padding.
        answers.finish(&self.shared)
    }

    fn computed(&self) -> usize {
        self.computed
    }
}

/// The rows of all requests, shortest first; equal ones in their order.
fn sorted(requests: &[Request<'_>]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (request, inputs) in requests.iter().enumerate() {
        let first = rows.len();
        let row = |index| Row { request, index, length: inputs.length(index), place: first + index };
        rows.extend((0..inputs.n_rows()).map(row));
    }
    rows.sort_by_key(|row| row.length);
    rows
}

impl Shared {
    /// The inner network's inputs for `rows`, padded to `length`.
    fn inputs(&self, requests: &[Request<'_>], rows: &[Row], length: usize) -> Result<TensorList, TensorError> {
        let pad = i64::try_from(self.vocabulary.pad).unwrap_or(0);
        let matrix = |which: usize| {
            let mut matrix = Vec::with_capacity(rows.len() * length);
            for row in rows {
                matrix.extend_from_slice(&requests[row.request].row(which, row.index)[..row.length]);
                matrix.extend(std::iter::repeat_n(if which == 0 { pad } else { 0 }, length - row.length));
            }
            matrix
        };
        let tensor = |(which, dtype): &(usize, DType)| {
            let sizes = [rows.len(), length];
            if *dtype == DType::Int32 {
                // Ids and types have been checked against tables that are far smaller; where no file says how large they
                // are, the engine does it, and must not see another id.
                let narrow = matrix(*which).into_iter().map(|number| i32::try_from(number).unwrap_or(i32::MAX));
                return Tensor::from_vec(&sizes, narrow.collect());
            }
            Tensor::from_vec(&sizes, matrix(*which))
        };
        self.export.inputs.iter().map(tensor).collect()
    }
}

/// The outputs of the batch while runs fill them; what nobody wants is empty.
#[derive(Debug)]
struct Answers {
    rows: usize,
    /// The vector of each row: of its text, or the numbers of its classification.
    vectors: Option<Matrix>,
    /// The vector of each text before its length was made 1.
    before: Option<Matrix>,
    /// The vectors of all tokens, with room for the longest request of the batch.
    tokens: Option<Matrix>,
    longest: usize,
}

/// Numbers, so many for each row.
#[derive(Debug)]
struct Matrix {
    numbers: Vec<f32>,
    width: usize,
}

impl Matrix {
    fn new(rows: usize, width: usize) -> Self {
        Self { numbers: vec![0.0; rows * width], width }
    }

    fn row(&mut self, index: usize) -> &mut [f32] {
        &mut self.numbers[index * self.width..(index + 1) * self.width]
    }
}

impl Answers {
    /// # Errors
    /// [`RunError::InvalidInput`] where the vectors of tokens would take too much memory. One by one the requests may fit: a
    /// batch that is refused is halved.
    fn new(shared: &Shared, requests: &[Request<'_>], rows: usize, wanted: &Wanted) -> Result<Self, RunError> {
        let longest = requests.iter().map(|request| request.width).max().unwrap_or(0);
        let mut answers = Self { rows, vectors: None, before: None, tokens: None, longest };
        let wants = |index: usize| wanted.includes(index);
        let of_tokens = |width: usize| {
            let size = rows.saturating_mul(longest).saturating_mul(width);
            if size > MOST_NUMBERS {
                let text = format!("vectors of tokens take {size} numbers together; expected at most {MOST_NUMBERS}");
                return Err(RunError::InvalidInput(text));
            }
            Ok(Matrix::new(rows, longest * width))
        };
        match shared.export.gives {
            Gives::Logits { width, .. } => answers.vectors = wants(0).then(|| Matrix::new(rows, width)),
            Gives::Sentence { width, hidden, .. } => {
                answers.vectors = wants(0).then(|| Matrix::new(rows, width));
                let hidden = hidden.filter(|_| wants(1));
                answers.tokens = hidden.map(|(_, width)| of_tokens(width)).transpose()?;
            }
            Gives::Hidden { width, .. } => {
                let steps = &shared.steps;
                let last = 1 + usize::from(steps.before.is_some());
                answers.vectors = wants(0).then(|| Matrix::new(rows, steps.width));
                answers.before = steps.before.filter(|_| wants(1)).map(|width| Matrix::new(rows, width));
                answers.tokens = wants(last).then(|| of_tokens(width)).transpose()?;
            }
        }
        Ok(answers)
    }

    /// Which outputs of the inner network are needed.
    fn inner_wanted(&self, gives: &Gives) -> Wanted {
        let mut wanted = SmallVec::new();
        match gives {
            Gives::Hidden { output, .. } | Gives::Logits { output, .. } => wanted.push(*output),
            Gives::Sentence { output, hidden, .. } => {
                wanted.extend(self.vectors.is_some().then_some(*output));
                wanted.extend(hidden.filter(|_| self.tokens.is_some()).map(|(output, _)| output));
            }
        }
        Wanted::Only(wanted)
    }

    /// Puts what a run of `rows`, padded to `length`, gave in its places.
    fn take(
        &mut self,
        shared: &Shared,
        requests: &[Request<'_>],
        rows: &[Row],
        length: usize,
        outputs: &BatchOutputs,
    ) -> Result<(), RunError> {
        let numbers = |output: usize, sizes: &[usize]| {
            let tensor = outputs.0.get(output).and_then(Option::as_ref);
            let tensor = tensor.filter(|tensor| tensor.shape()[..] == *sizes);
            tensor
                .ok_or_else(|| RunError::Failed(format!("output {output} of the text network is not {sizes:?}").into()))
        };
        let n = rows.len();
        let (vectors, hidden) = match shared.export.gives {
            Gives::Logits { output, width } => (Some((output, width)), None),
            Gives::Sentence { output, width, hidden } => (Some((output, width)), hidden),
            Gives::Hidden { output, width } => (None, Some((output, width))),
        };
        if let (Some((output, width)), Some(matrix)) = (vectors, &mut self.vectors) {
            let tensor = numbers(output, &[n, width])?;
            let elements = tensor.elements::<f32>()?;
            for (row, vector) in rows.iter().zip(elements.chunks_exact(width.max(1))) {
                matrix.row(row.place).copy_from_slice(vector);
            }
        }
        let pools = matches!(shared.export.gives, Gives::Hidden { .. });
        let Some((output, width)) = hidden.filter(|_| pools || self.tokens.is_some()) else { return Ok(()) };
        let tensor = numbers(output, &[n, length, width])?;
        let elements = tensor.elements::<f32>()?;
        for (row, hidden) in rows.iter().zip(elements.chunks_exact((length * width).max(1))) {
            let mask = &requests[row.request].row(1, row.index)[..row.length];
            if pools && (self.vectors.is_some() || self.before.is_some()) {
                let (vector, before) = shared.steps.run(hidden, width, mask);
                if let Some(matrix) = &mut self.vectors {
                    matrix.row(row.place).copy_from_slice(&vector);
                }
                if let (Some(matrix), Some(before)) = (&mut self.before, before) {
                    matrix.row(row.place).copy_from_slice(&before);
                }
            }
            if let Some(matrix) = &mut self.tokens {
                // Where the mask is 0 zeros stay.
                let places =
                    matrix.row(row.place).chunks_exact_mut(width.max(1)).zip(hidden.chunks_exact(width.max(1)));
                for ((place, vector), _) in places.zip(mask).filter(|(_, mask)| **mask == 1) {
                    place.copy_from_slice(vector);
                }
            }
        }
        Ok(())
    }

    /// The outputs in the order of the signature.
    fn finish(self, shared: &Shared) -> Result<BatchOutputs, RunError> {
        let (rows, longest) = (self.rows, self.longest);
        let tensor = |matrix: Option<Matrix>, is_tokens: bool| {
            let Some(Matrix { numbers, width }) = matrix else { return Ok(None) };
            let sizes = if is_tokens { vec![rows, longest, width / longest.max(1)] } else { vec![rows, width] };
            Tensor::from_vec(&sizes, numbers).map(Some)
        };
        let mut outputs = SmallVec::new();
        outputs.push(tensor(self.vectors, false)?);
        if shared.steps.before.is_some() {
            outputs.push(tensor(self.before, false)?);
        }
        if shared.signature.outputs().len() > outputs.len() {
            outputs.push(tensor(self.tokens, true)?);
        }
        Ok(BatchOutputs(outputs))
    }
}

/// What `work` gives, and how many seconds it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    #[expect(clippy::disallowed_methods, reason = "what runs cost is learned from the runs themselves")]
    let now = Instant::now;
    let start = now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}
