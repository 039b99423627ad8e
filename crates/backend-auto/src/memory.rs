//! What was measured at earlier loads: one small JSON file for each version, replaced as a whole.
//!
//! A file counts only where everything is as it was when it was written: the version's files by content, its options and
//! recorded requests, the engines, the row counts, the budget, and what the caller says about the machine. Anything else, damage included, is a miss, and the
//! next trial replaces it. Deleting the folder is always safe.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use millrace_core::{
    EngineChoice, EngineOutcome, EngineRange, EngineTrial, ModelSource, OutputDifference, RunTime, Signature,
};
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use serde::{Deserialize, Serialize};

/// The format that is written and read. It also stands for what is measured and how it is judged.
const FORMAT: u32 = 2;
/// No honest file is larger.
const LARGEST: u64 = 256 << 10;
/// So many versions are remembered; beyond that the oldest is forgotten.
const MOST_FILES: usize = 1000;

/// Two independent digests of 64 bits: retrained models of one shape differ in nothing else.
static SECRETS: [RapidSecrets; 2] = [RapidSecrets::seed(0x6d69_6c6c), RapidSecrets::seed(0x7261_6365)];

/// A folder of remembered choices.
#[derive(Debug)]
pub(crate) struct Memory {
    folder: PathBuf,
    has_complained: AtomicBool,
}

/// What a choice holds for.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) machine: String,
    pub(crate) engines: Vec<String>,
    pub(crate) rows: Vec<usize>,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) budget_nanos: u64,
    pub(crate) files: Vec<FileRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    key: Key,
    /// A digest of the recorded requests, as the model takes them.
    recorded: Option<String>,
    choice: Choice,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct FileRecord {
    name: String,
    size: u64,
    digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Choice {
    ranges: Vec<(usize, String)>,
    engines: Vec<Trial>,
    reason: String,
    took_nanos: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Trial {
    engine: String,
    chosen: bool,
    dropped: Option<String>,
    load_nanos: u64,
    memory_bytes: u64,
    /// Rows and nanoseconds.
    times: Vec<(usize, u64)>,
    /// The output, the largest difference, the largest value.
    difference: Option<(String, f64, f64)>,
}

impl Memory {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, has_complained: AtomicBool::new(false) }
    }

    /// What was measured for `source` under `key`, and a digest of the recorded requests with which it was.
    pub(crate) fn recall(&self, source: &ModelSource, key: &Key) -> Option<(EngineChoice, Option<String>)> {
        let path = self.path(source);
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::info!(path = %path.display(), %error, "a remembered choice of engines cannot be read; measuring again");
                return None;
            }
        };
        let record: Record = match serde_json::from_str(&text) {
            Ok(record) => record,
            Err(error) => {
                tracing::info!(path = %path.display(), %error, "a remembered choice of engines is damaged; measuring again");
                return None;
            }
        };
        if record.format != FORMAT || record.key != *key {
            tracing::debug!(path = %path.display(), "the remembered choice of engines is of other files, engines or another machine");
            return None;
        }
        let choice = record.choice.known(&key.engines);
        if choice.is_none() {
            tracing::info!(path = %path.display(), "a remembered choice of engines makes no sense; measuring again");
        }
        choice.map(|choice| (choice, record.recorded))
    }

    /// Remembers `choice`, unless the files are not those of `key` any more: then nobody knows which were measured. That it
    /// cannot is told once.
    pub(crate) fn keep(&self, source: &ModelSource, key: Key, recorded: Option<String>, choice: &EngineChoice) {
        if digests(source).as_ref() != Some(&key.files) {
            tracing::info!(model = %source.model, version = source.version, "files changed while engines were tried; the choice is not remembered");
            return;
        }
        let record = Record { format: FORMAT, key, recorded, choice: Choice::of(choice) };
        let path = self.path(source);
        let kept =
            serde_json::to_vec_pretty(&record).map_err(io::Error::from).and_then(|text| self.write(&path, &text));
        if let Err(error) = kept
            && !self.has_complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(path = %path.display(), %error, "the choice of engines cannot be remembered; each start measures again");
        }
    }

    /// The names of models are letters, digits, `_`, `-` and `.`; what stands behind the last `-` is the version.
    fn path(&self, source: &ModelSource) -> PathBuf {
        self.folder.join(format!("{}-{}.json", source.model, source.version))
    }

    fn write(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        if !path.exists() {
            self.make_room()?;
        }
        // Another process may be writing the same file.
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = fs::File::create(&temporary)?;
        file.write_all(text)?;
        drop(file);
        fs::rename(&temporary, path)
    }

    /// Forgets the oldest where there are too many; never what somebody else put there. That one cannot be looked at or
    /// removed is no reason not to remember.
    fn make_room(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let path = entry.path();
            let is_own = path.extension().is_some_and(|extension| extension == "json" || extension == "new");
            let modified =
                entry.metadata().ok().filter(|about| is_own && about.is_file()).and_then(|about| about.modified().ok());
            files.extend(modified.map(|modified| (modified, path)));
        }
        if files.len() >= MOST_FILES {
            files.sort();
            for (_, path) in &files[..=files.len() - MOST_FILES] {
                if let Err(error) = fs::remove_file(path) {
                    tracing::debug!(path = %path.display(), %error, "an old choice of engines cannot be removed");
                }
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let file = fs::File::open(path)?;
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST { Err(io::Error::other("the file is too large")) } else { Ok(text) }
}

/// Every file by content; `None` where one cannot be read.
pub(crate) fn digests(source: &ModelSource) -> Option<Vec<FileRecord>> {
    let record = |(name, size): &(String, u64)| {
        let content = source.files.read(name).ok()?;
        Some(FileRecord { name: name.clone(), size: *size, digest: digest(&content) })
    };
    source.files.list().iter().map(record).collect()
}

/// The recorded requests of `source` as a model of `signature` takes them.
pub(crate) fn recorded(source: &ModelSource, signature: &Signature) -> Option<String> {
    let requests = source.samples.as_ref()?.inputs(signature);
    let mut told = Vec::new();
    for tensor in requests.iter().flatten() {
        // What it is, its length, and what it holds, so that nothing else reads the same.
        told.extend_from_slice(format!("{tensor:?} ").as_bytes());
        let mut part = |bytes: &[u8]| {
            told.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            told.extend_from_slice(digest(bytes).as_bytes());
        };
        tensor.bytes().into_iter().for_each(|bytes| part(bytes));
        tensor.strings().into_iter().flat_map(millrace_core::Strings::iter).for_each(part);
    }
    Some(digest(&told))
}

fn digest(bytes: &[u8]) -> String {
    let [one, other] = SECRETS.each_ref().map(|secrets| rapidhash_v3_seeded(bytes, secrets));
    format!("{one:016x}{other:016x}")
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Choice {
    fn of(choice: &EngineChoice) -> Self {
        let trial = |trial: &EngineTrial| Trial {
            engine: trial.engine.to_string(),
            chosen: trial.outcome == EngineOutcome::Chosen,
            dropped: match &trial.outcome {
                EngineOutcome::Dropped(reason) => Some(reason.clone()),
                EngineOutcome::Chosen | EngineOutcome::Slower => None,
            },
            load_nanos: nanos(trial.load_time),
            memory_bytes: trial.memory_bytes,
            times: trial.times.iter().map(|time| (time.rows, nanos(time.time))).collect(),
            difference: trial.difference.as_ref().map(|found| (found.output.to_string(), found.largest, found.scale)),
        };
        Self {
            ranges: choice.ranges.iter().map(|range| (range.rows_from, range.engine.to_string())).collect(),
            engines: choice.engines.iter().map(trial).collect(),
            reason: choice.reason.clone(),
            took_nanos: nanos(choice.took),
        }
    }

    /// The choice, where it is one among `engines`.
    fn known(self, engines: &[String]) -> Option<EngineChoice> {
        let is_ascending = self.ranges.is_sorted_by(|one, other| one.0 < other.0);
        let starts = self.ranges.first().is_some_and(|(from, _)| *from == 1);
        let is_known = self.ranges.iter().all(|(_, engine)| engines.contains(engine));
        if !is_ascending || !starts || !is_known {
            return None;
        }
        let trial = |trial: Trial| EngineTrial {
            engine: trial.engine.into(),
            outcome: match trial.dropped {
                Some(reason) => EngineOutcome::Dropped(reason),
                None if trial.chosen => EngineOutcome::Chosen,
                None => EngineOutcome::Slower,
            },
            load_time: Duration::from_nanos(trial.load_nanos),
            memory_bytes: trial.memory_bytes,
            times: trial
                .times
                .into_iter()
                .map(|(rows, time)| RunTime { rows, time: Duration::from_nanos(time) })
                .collect(),
            difference: trial.difference.map(|(output, largest, scale)| OutputDifference {
                output: output.into(),
                largest,
                scale,
            }),
        };
        let range = |(rows_from, engine): (usize, String)| EngineRange { rows_from, engine: engine.into() };
        Some(EngineChoice {
            ranges: self.ranges.into_iter().map(range).collect(),
            engines: self.engines.into_iter().map(trial).collect(),
            reason: self.reason,
            took: Duration::from_nanos(self.took_nanos),
            is_remembered: true,
        })
    }
}
