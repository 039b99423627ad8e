//! One engine at work: runs what it is given, and contains what goes wrong.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use millrace_core::{Admission, Batch, Group, Instance, Model, PartOutputs, RunContext, RunError, TensorList};

use crate::Clock;
use crate::terms::Terms;

/// A loaded model and a state of it.
pub(crate) struct Runner {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) terms: Terms,
    instance: Option<Box<dyn Instance>>,
}

/// Why a run gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The engine says that the data is to blame.
    Invalid(String),
    /// The engine is to blame.
    Failed(String),
}

impl Trouble {
    /// Why, in words.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Invalid(text) => format!("it calls invalid what another engine takes: {text}"),
            Self::Failed(text) => text,
        }
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Runner {
    /// `terms` lead from the served signature to the model's own.
    pub(crate) fn new(model: Arc<dyn Model>, terms: Terms) -> Self {
        Self { model, terms, instance: None }
    }

    /// Whether the engine takes this request, as its queue would ask: its sizes, and where requests of different sizes share
    /// a run, its values.
    pub(crate) fn admit(&self, inputs: &TensorList, served: &Admission) -> Result<(), Trouble> {
        let own = self.terms.admission(served);
        let ask = || {
            self.model.admit(&own)?;
            if self.model.signature().is_mixed() { self.model.weigh(inputs, &own).map(|_| ()) } else { Ok(()) }
        };
        match contained(ask) {
            Ok(admitted) => admitted.map_err(|error| Trouble::Invalid(error.to_string())),
            Err(text) => Err(Trouble::Failed(format!("it panicked when asked whether it takes a request: {text}"))),
        }
    }

    /// Lets the engine specialise; that it cannot is no trouble.
    pub(crate) fn prepare(&self, served: &Group, rows: usize) {
        let own = self.terms.group(served, rows);
        match contained(|| self.model.prepare(&own, rows)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(rows, %error, "the engine cannot be specialised for so many rows"),
            Err(text) => tracing::debug!(rows, text, "the engine panicked when it was to specialise"),
        }
    }

    /// Runs `rows` rows and gives the outputs, checked against the engine's own signature.
    pub(crate) fn answer(&mut self, inputs: &TensorList, rows: usize) -> Result<PartOutputs, Trouble> {
        let batch = Batch::single(inputs.clone(), rows);
        let outputs = self.run(&batch)?;
        let mut parts = batch
            .split(&outputs, self.model.signature())
            .map_err(|error| Trouble::Failed(format!("its outputs are not what its signature says: {error}")))?;
        parts.pop().ok_or_else(|| Trouble::Failed("it gave nothing".to_owned()))
    }

    /// How long a run of `batch` takes.
    pub(crate) fn time(&mut self, batch: &Batch, clock: &Clock) -> Result<Duration, Trouble> {
        let start = clock.now();
        let outputs = self.run(batch)?;
        let took = clock.since(start);
        drop(outputs);
        Ok(took)
    }

    fn run(&mut self, batch: &Batch) -> Result<millrace_core::BatchOutputs, Trouble> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => match contained(|| self.model.instance()) {
                Ok(Ok(instance)) => instance,
                Ok(Err(error)) => return Err(Trouble::Failed(format!("no state of it can be made: {error}"))),
                Err(text) => return Err(Trouble::Failed(format!("it panicked when a state was made: {text}"))),
            },
        };
        match contained(|| instance.run(batch, &RunContext::plain())) {
            Ok(result) => {
                self.instance = Some(instance);
                result.map_err(|error| match error {
                    RunError::InvalidInput(text) => Trouble::Invalid(text),
                    RunError::Failed(cause) => Trouble::Failed(format!("it failed: {}", chain(&*cause))),
                    RunError::Cancelled => Trouble::Failed("it gave up".to_owned()),
                })
            }
            Err(text) => {
                // Dropping what has just panicked may panic again.
                let _ = contained(move || drop(instance));
                Err(Trouble::Failed(format!("it panicked: {text}")))
            }
        }
    }
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Runs foreign code; a panic comes out as its text.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Unwind safe: whoever calls this drops or replaces what the work may have left half done.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_text(&*panic))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no text").to_owned()
}
