//! Runs a formed batch on one instance, whatever happens: in several runs where batches lose, bisected where a run
//! fails, with panics contained.
//!
//! No queue, no threads and no answers here: parts go in, one result per part comes out.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_core::{Batch, Group, Instance, Model, Part, PartOutputs, Prepared, RunContext};
use smallvec::SmallVec;

use crate::clock;
use crate::failure::Failure;
use crate::reply::join;

/// What a part came to.
pub(crate) type PartResult = Result<PartOutputs, Failure>;

/// One batch being run.
pub(crate) struct Runner<'a> {
    pub(crate) model: &'a dyn Model,
    /// `None` before the first run that finds none free, and after a panic.
    pub(crate) instance: Option<Box<dyn Instance>>,
    pub(crate) context: RunContext<'a>,
    /// Called before every run but the first with its rows: the time it takes was not in the batch's prediction.
    pub(crate) before_more: &'a dyn Fn(usize),
    /// Whether nothing succeeded in recent batches either: then bisecting stays within the cost of one culprit.
    pub(crate) is_weary: bool,
    /// Rows, padding included, and time of each run that succeeded.
    pub(crate) runs: SmallVec<[(usize, Duration); 1]>,
    /// What instances of mixed models say that their runs computed, in all.
    pub(crate) computed: usize,
    /// How many runs were made only to find culprits.
    pub(crate) extra_runs: usize,
    /// When the first run began.
    pub(crate) started: Option<Instant>,
    /// When the last run ended.
    pub(crate) finished: Option<Instant>,
}

impl Runner<'_> {
    /// Runs `parts` in runs of at most `run_rows` rows; `padding` rows are added where one run does.
    pub(crate) fn run_all(&mut self, parts: Vec<Part>, padding: usize, run_rows: usize) -> Vec<PartResult> {
        let rows: usize = parts.iter().map(|part| part.rows).sum();
        if rows <= run_rows || !self.model.signature().is_batched() {
            return self.run_or_bisect(parts, padding);
        }
        let n_parts = parts.len();
        let mut pieces: Vec<SmallVec<[PartOutputs; 1]>> = Vec::new();
        pieces.resize_with(n_parts, SmallVec::new);
        let mut failures: Vec<Option<Failure>> = vec![None; n_parts];
        for (owners, parts) in cut(parts, run_rows) {
            if (self.context.cancelled)() {
                owners.into_iter().for_each(|owner| failures[owner] = Some(Failure::Cancelled));
                continue;
            }
            if owners.iter().all(|owner| failures[*owner].is_some()) {
                continue;
            }
            for (owner, result) in owners.into_iter().zip(self.run_or_bisect(parts, 0)) {
                match result {
                    Ok(outputs) => pieces[owner].push(outputs),
                    Err(failure) => failures[owner] = Some(failure),
                }
            }
        }
        let whole = |(pieces, failure): (SmallVec<[PartOutputs; 1]>, Option<Failure>)| match failure {
            Some(failure) => Err(failure),
            None => join(&pieces).ok_or(Failure::Unjoinable),
        };
        pieces.into_iter().zip(failures).map(whole).collect()
    }

    fn run_or_bisect(&mut self, parts: Vec<Part>, padding: usize) -> Vec<PartResult> {
        let batch = Batch::new(parts, padding);
        let failure = match self.run(&batch) {
            Ok(shares) => return shares.into_iter().map(Ok).collect(),
            Err(failure) => failure,
        };
        let parts = batch.into_parts();
        if parts.len() < 2 || matches!(failure, Failure::Cancelled | Failure::NoInstance(_)) {
            return parts.into_iter().map(|_| Err(failure.clone())).collect();
        }
        self.bisect(parts, &failure)
    }

    /// Runs halves of a failed batch, halves of those that fail again, and so on: at most 2·log2 n extra runs for each
    /// culprit. Breadth first, so that a half without a culprit is answered early.
    fn bisect(&mut self, parts: Vec<Part>, failure: &Failure) -> Vec<PartResult> {
        let n_parts = parts.len();
        let one_culprit = 2 * (usize::BITS - (n_parts - 1).leading_zeros()) as usize;
        let allowance = if self.is_weary { one_culprit } else { usize::MAX };
        // Each culprit pays for itself: until it is found, its failure stands for it.
        let mut results: Vec<PartResult> = parts.iter().map(|_| Err(failure.clone())).collect();
        let mut suspects = VecDeque::new();
        let halve = |suspects: &mut VecDeque<_>, start: usize, mut parts: Vec<Part>| {
            let right = parts.split_off(parts.len() / 2);
            let middle = start + parts.len();
            suspects.push_back((start, parts));
            suspects.push_back((middle, right));
        };
        halve(&mut suspects, 0, parts);
        let mut spent = 0;
        while let Some((start, parts)) = suspects.pop_front() {
            if spent >= allowance {
                break;
            }
            spent += 1;
            let batch = Batch::new(parts, 0);
            match self.run(&batch) {
                Ok(shares) => {
                    for (result, share) in results[start..].iter_mut().zip(shares) {
                        *result = Ok(share);
                    }
                }
                Err(failure) => {
                    let parts = batch.into_parts();
                    for result in &mut results[start..start + parts.len()] {
                        *result = Err(failure.clone());
                    }
                    if matches!(failure, Failure::Cancelled | Failure::NoInstance(_)) {
                        break;
                    }
                    if parts.len() > 1 {
                        halve(&mut suspects, start, parts);
                    }
                }
            }
        }
        self.extra_runs += spent;
        results
    }

    fn run(&mut self, batch: &Batch) -> Result<Vec<PartOutputs>, Failure> {
        let rows = batch.rows();
        if self.started.is_some() {
            (self.before_more)(rows);
        }
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => new_instance(self.model)?,
        };
        // Neighbouring runs share an instant: one ends where the next begins.
        let started = self.finished.unwrap_or_else(clock::now);
        self.started.get_or_insert(started);
        // After a panic the instance is thrown away, so nobody sees it half changed; the batch is only read.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let outputs = instance.run(batch, &self.context)?;
            let shares = batch.split(&outputs, self.model.signature()).map_err(Failure::from)?;
            Ok((shares, instance.computed()))
        }));
        let finished = clock::now();
        self.finished = Some(finished);
        match result {
            Ok(result) => {
                let (result, computed) = match result {
                    Ok((shares, computed)) => (Ok(shares), computed),
                    Err(failure) => (Err(failure), 0),
                };
                self.instance = Some(instance);
                if result.is_ok() {
                    self.computed = self.computed.saturating_add(computed);
                    self.runs.push((rows, finished.saturating_duration_since(started)));
                }
                result
            }
            Err(payload) => {
                // Dropping what has just panicked may panic again.
                drop(catch_unwind(AssertUnwindSafe(move || drop(instance))));
                Err(Failure::panicked(&*payload))
            }
        }
    }
}

/// Makes an instance; a panic while doing so is a failure like any other.
pub(crate) fn new_instance(model: &dyn Model) -> Result<Box<dyn Instance>, Failure> {
    match catch_unwind(AssertUnwindSafe(|| model.instance())) {
        Ok(instance) => instance.map_err(|error| Failure::NoInstance(Arc::new(error))),
        Err(payload) => Err(Failure::panicked(&*payload)),
    }
}

/// Specialises the model and says for what it is specialised then; contains panics.
pub(crate) fn prepare(model: &dyn Model, group: &Group, rows: usize) -> Result<Prepared, Failure> {
    let prepare = || model.prepare(group, rows).map(|()| model.prepared(group));
    match catch_unwind(AssertUnwindSafe(prepare)) {
        Ok(prepared) => prepared.map_err(|error| Failure::NoInstance(Arc::new(error))),
        Err(payload) => Err(Failure::panicked(&*payload)),
    }
}

/// Cuts parts into runs of `run_rows` rows, the last perhaps of fewer, with the position of the part that each piece is of.
fn cut(parts: Vec<Part>, run_rows: usize) -> Vec<(Vec<usize>, Vec<Part>)> {
    let run_rows = run_rows.max(1);
    let mut runs: Vec<(Vec<usize>, Vec<Part>)> = Vec::new();
    let mut room = 0;
    for (owner, part) in parts.into_iter().enumerate() {
        let mut start = 0;
        while start < part.rows {
            if room == 0 {
                runs.push((Vec::new(), Vec::new()));
                room = run_rows;
            }
            let end = part.rows.min(start + room);
            let inputs = part.inputs.iter().map(|input| input.rows(start..end)).collect();
            if let Some((owners, pieces)) = runs.last_mut() {
                owners.push(owner);
                pieces.push(Part { inputs, rows: end - start });
            }
            room -= end - start;
            start = end;
        }
    }
    runs
}

#[cfg(test)]
mod tests;
