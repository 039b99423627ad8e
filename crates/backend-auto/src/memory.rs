//! What was measured at earlier loads: one small JSON file for each version, replaced as a whole.
//!
//! A file counts only where everything is as it was when it was written: the version's files by content, its options, the
//! engines, the row counts, and what the caller says about the machine. Anything else, damage included, is a miss, and the
//! next trial replaces it. Deleting the folder is always safe.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use millrace_core::{EngineChoice, EngineOutcome, EngineRange, EngineTrial, ModelSource, OutputDifference, RunTime};
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use serde::{Deserialize, Serialize};

/// The format that is written and read. It also stands for what is measured and how it is judged.
const FORMAT: u32 = 1;
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
    pub(crate) recorded: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    key: Key,
    files: Vec<FileRecord>,
    choice: Choice,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
struct FileRecord {
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

    /// What was measured for `source` under `key`.
    pub(crate) fn recall(&self, source: &ModelSource, key: &Key) -> Option<EngineChoice> {
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
        // Names and sizes first: most changes show there, and reading everything costs.
        let list = source.files.list();
        let same_names =
            record.files.iter().map(|file| (&file.name, file.size)).eq(list.iter().map(|(name, size)| (name, *size)));
        if record.format != FORMAT
            || record.key != *key
            || !same_names
            || Some(&record.files) != digests(source).as_ref()
        {
            tracing::debug!(path = %path.display(), "the remembered choice of engines is of other files, engines or another machine");
            return None;
        }
        let choice = record.choice.known(&key.engines);
        if choice.is_none() {
            tracing::info!(path = %path.display(), "a remembered choice of engines makes no sense; measuring again");
        }
        choice
    }

    /// Remembers `choice`. That it cannot is told once.
    pub(crate) fn keep(&self, source: &ModelSource, key: Key, choice: &EngineChoice) {
        let Some(files) = digests(source) else { return };
        let record = Record { format: FORMAT, key, files, choice: Choice::of(choice) };
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
        let temporary = path.with_extension("new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(text)?;
        drop(file);
        fs::rename(&temporary, path)
    }

    /// Forgets the oldest where there are too many.
    fn make_room(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        if files.len() >= MOST_FILES {
            files.sort();
            for (_, path) in &files[..=files.len() - MOST_FILES] {
                fs::remove_file(path)?;
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
fn digests(source: &ModelSource) -> Option<Vec<FileRecord>> {
    let record = |(name, size): &(String, u64)| {
        let content = source.files.read(name).ok()?;
        let [one, other] = SECRETS.each_ref().map(|secrets| rapidhash_v3_seeded(&content, secrets));
        Some(FileRecord { name: name.clone(), size: *size, digest: format!("{one:016x}{other:016x}") })
    };
    source.files.list().iter().map(record).collect()
}

fn nanos(time: Duration) -> u64 {
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
