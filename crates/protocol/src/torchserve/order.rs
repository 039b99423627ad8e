//! The parameters of management orders, from pairs of key and text: a query string's, a JSON body's, a message's.
//!
//! Keys that TorchServe has and millrace has no use for are accepted and mean nothing: handlers, runtimes, time-outs of
//! worker processes. Keys of nobody are accepted too, as there.

use std::time::Duration;

use millrace_core::{ModelName, Reason, Refusal, Registration};

use super::failure::Failure;
use crate::tfs::Bare;

/// Which part of the list of models is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The most entries.
    pub limit: usize,
    /// How many come before.
    pub offset: usize,
}

/// The most entries of a page, and how many it has unless told otherwise.
const PAGE: usize = 100;

impl Default for Page {
    fn default() -> Self {
        Self { limit: PAGE, offset: 0 }
    }
}

impl Page {
    /// A page by TorchServe's rule: a limit outside of 0 to 100 is 100, a negative token 0.
    pub fn new(limit: i64, token: i64) -> Self {
        let limit = usize::try_from(limit).ok().filter(|limit| *limit <= PAGE).unwrap_or(PAGE);
        Self { limit, offset: usize::try_from(token).unwrap_or(0) }
    }

    /// Reads `limit` and `next_page_token`.
    ///
    /// # Errors
    /// A [`Failure`] for text that is not a whole number.
    pub fn read<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Failure> {
        let (mut limit, mut token) = (None, None);
        for (key, value) in pairs {
            match key {
                "limit" => limit = Some(whole(key, value)?),
                "next_page_token" => token = Some(whole(key, value)?),
                _ => {}
            }
        }
        Ok(Self::new(limit.unwrap_or(100), token.unwrap_or(0)))
    }
}

/// An order to register a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// The folder or file, relative to the repository or a store.
    pub url: String,
    /// The model's name; by default the folder's or file's.
    pub model_name: Option<ModelName>,
    /// The most rows of one run.
    pub batch_size: Option<usize>,
    /// How long a batch waits for company.
    pub max_batch_delay: Option<Duration>,
    /// Executors that it has at first; with 0 it refuses requests until it is scaled.
    pub initial_workers: usize,
    /// Whether the caller waits until the model can serve.
    pub synchronous: bool,
}

impl Register {
    /// Reads the parameters. Of a repeated one, the last counts.
    ///
    /// # Errors
    /// A [`Failure`] for a missing `url`, a name that no model may have, or a number that is none.
    pub fn read<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Failure> {
        let (mut url, mut model_name, mut batch_size, mut max_batch_delay) = (None, None, None, None);
        let (mut initial_workers, mut synchronous) = (0, true);
        for (key, value) in pairs {
            match key {
                "url" => url = Some(value).filter(|url| !url.is_empty()),
                "model_name" if !value.is_empty() => {
                    model_name = Some(value.parse().map_err(|error| invalid(format!("{error}")))?);
                }
                "batch_size" => batch_size = Some(at_least(1, key, value)?),
                "max_batch_delay" => {
                    max_batch_delay = Some(Duration::from_millis(at_least(0, key, value)? as u64));
                }
                "initial_workers" => initial_workers = at_least(0, key, value)?,
                "synchronous" => synchronous = flag(key, value)?,
                _ => {}
            }
        }
        let url = url.ok_or_else(|| invalid("Parameter url is required.".to_owned()))?.to_owned();
        Ok(Self { url, model_name, batch_size, max_batch_delay, initial_workers, synchronous })
    }

    /// The order in core's terms.
    pub fn registration(&self) -> Registration {
        Registration {
            name: self.model_name.clone(),
            executors: Some(self.initial_workers),
            max_batch_size: self.batch_size,
            batch_delay: self.max_batch_delay,
            // A later version does not become the default by itself.
            keep_default: true,
            ..Registration::new(&*self.url)
        }
    }
}

/// An order to scale a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// The fewest workers.
    pub min_worker: usize,
    /// The most workers: the bound on runs at once.
    pub max_worker: usize,
    /// Whether the caller waits until it is done.
    pub synchronous: bool,
}

impl Scale {
    /// A scaling by TorchServe's rule: `min_worker` is 1 and `max_worker` as many, where not said.
    ///
    /// # Errors
    /// A [`Failure`] for negative numbers, and for a maximum below the minimum.
    pub fn new(min_worker: Option<i64>, max_worker: Option<i64>, synchronous: bool) -> Result<Self, Failure> {
        let min = min_worker.unwrap_or(1);
        let max = max_worker.unwrap_or(min);
        if max < min {
            return Err(invalid("max_worker cannot be less than min_worker.".to_owned()));
        }
        let count = |key, number: i64| usize::try_from(number).map_err(|_| out_of_range(key, &number.to_string(), 0));
        Ok(Self { min_worker: count("min_worker", min)?, max_worker: count("max_worker", max)?, synchronous })
    }

    /// Reads the parameters. Of a repeated one, the last counts.
    ///
    /// # Errors
    /// Those of [`Scale::new`], and a [`Failure`] for a number that is none.
    pub fn read<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Failure> {
        let (mut min, mut max, mut synchronous) = (None, None, false);
        for (key, value) in pairs {
            match key {
                "min_worker" => min = Some(whole(key, value)?),
                "max_worker" => max = Some(whole(key, value)?),
                "synchronous" => synchronous = flag(key, value)?,
                _ => {}
            }
        }
        Self::new(min, max, synchronous)
    }
}

fn whole(key: &str, value: &str) -> Result<i64, Failure> {
    value.parse().map_err(|_| invalid(format!("Parameter {key}: expected a whole number, got {}.", Bare(value))))
}

fn at_least(least: i64, key: &str, value: &str) -> Result<usize, Failure> {
    let number = whole(key, value)?;
    usize::try_from(number).ok().filter(|_| number >= least).ok_or_else(|| out_of_range(key, value, least))
}

fn out_of_range(key: &str, value: &str, least: i64) -> Failure {
    invalid(format!("Parameter {key}: expected at least {least}, got {}.", Bare(value)))
}

fn flag(key: &str, value: &str) -> Result<bool, Failure> {
    match value {
        _ if value.eq_ignore_ascii_case("true") => Ok(true),
        _ if value.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(invalid(format!("Parameter {key}: expected true or false, got {}.", Bare(value)))),
    }
}

fn invalid(message: String) -> Failure {
    Refusal::new(Reason::InvalidInput, message).into()
}
