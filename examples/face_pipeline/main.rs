//! Faces in photographs, found inside your own program: no server, one request a photograph, three networks and an embedder.
//!
//! ```sh
//! cargo run --release --example face_pipeline -- PHOTO.jpg MORE.png --out faces
//! cargo run --release --example face_pipeline -- --compare A.jpg B.jpg
//! ```
//!
//! This file is the command line; [`finder`] embeds the crates, [`drawing`] paints what was found.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;

use crate::finder::{Face, Finder, SAME_PERSON, distance};
use crate::progress::Progress;

mod drawing;
mod finder;
mod progress;
#[cfg(test)]
mod tests;

/// Finds the faces in photographs, describes each by 128 numbers, and shows what it found.
///
/// Prints one JSON object a photograph, in the order given: boxes (left, top, right, bottom) and landmarks (eyes, nose tip,
/// corners of the mouth) in fractions of the photograph's sides, the score and the embedding. Writes the photograph with boxes
/// and landmarks to DIR/NAME.faces.png and each face, cut out upright, to DIR/NAME.face-1.png and so on.
#[derive(Debug, Parser)]
#[command(name = "face_pipeline", after_help = TEACHING)]
struct Arguments {
    /// JPEG or PNG files; an EXIF rotation is not applied
    #[arg(value_name = "PHOTO", required_unless_present = "compare", conflicts_with = "compare")]
    photos: Vec<PathBuf>,
    /// Whether the largest faces of two photographs are the same person's: prints their distance, the threshold and the verdict
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    compare: Option<Vec<PathBuf>>,
    /// Where pictures are written; made when it is not there, and older pictures of the same names are replaced
    #[arg(long, value_name = "DIR", default_value = "faces", conflicts_with = "compare")]
    out: PathBuf,
    /// The folder of the networks and pipelines [default: fixtures/face-models of this repository]
    #[arg(long, value_name = "DIR", default_value = MODELS, hide_default_value = true)]
    models: PathBuf,
}

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/face-models");

const TEACHING: &str = "\
Examples:
  face_pipeline holiday/*.jpg --out faces     every face of a holiday
  face_pipeline me.jpg | jq .faces[0].bbox    where the best face is
  face_pipeline --compare me.jpg passport.jpg

Exit codes: 0 all done, 1 a photograph (or the models) failed, 2 the command line is wrong.
Faces are found from 20 pixels on. A distance below 0.37 means the same person: it is evidence, never proof.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &mut io::stdout().lock(), &mut Progress::new(io::stderr(), io::stderr().is_terminal())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            Progress::new(io::stderr(), false).failed(&*error);
            ExitCode::FAILURE
        }
    }
}

/// Does what it is told; whether all of it succeeded.
fn run<W: Write>(
    arguments: &Arguments,
    out: &mut impl Write,
    progress: &mut Progress<W>,
) -> Result<bool, Box<dyn Error>> {
    let finder = Finder::open(&arguments.models)?;
    match arguments.compare.as_deref() {
        Some([a, b]) => compare(&finder, a, b, out)?,
        _ => return show(&finder, arguments, out, progress),
    }
    Ok(true)
}

/// What is printed about one photograph.
#[derive(Debug, Serialize)]
struct Shown {
    file: String,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Found { width: usize, height: usize, faces: Vec<Face>, picture: String, chips: Vec<String>, milliseconds: f64 },
    Failed { error: String },
}

/// Several photographs at a time, so that their crops share the networks' batches; printed in the order given.
fn show<W: Write>(
    finder: &Finder,
    arguments: &Arguments,
    out: &mut impl Write,
    progress: &mut Progress<W>,
) -> Result<bool, Box<dyn Error>> {
    fs::create_dir_all(&arguments.out).map_err(|error| format!("{}: {error}", arguments.out.display()))?;
    let photos = &arguments.photos;
    let stems = stems(photos);
    let next = AtomicUsize::new(0);
    let mut is_all_done = true;
    thread::scope(|scope| -> io::Result<()> {
        let (answers, inbox) = mpsc::sync_channel(1);
        for _ in 0..(2 * finder.threads()).min(photos.len()) {
            let (answers, stems, next) = (answers.clone(), &stems, &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = photos.get(index) else { return };
                    let outcome = show_one(finder, file, &arguments.out, &stems[index])
                        .unwrap_or_else(|error| Outcome::Failed { error: error.to_string() });
                    if answers.send((index, Shown { file: text(file), outcome })).is_err() {
                        return; // Nobody reads on.
                    }
                }
            });
        }
        drop(answers);
        let (mut early, mut printed) = (BTreeMap::new(), 0);
        for (done, (index, shown)) in inbox.into_iter().enumerate() {
            progress.clear()?;
            if let Outcome::Failed { error } = &shown.outcome {
                is_all_done = false;
                progress.photo_failed(&photos[index], error);
            }
            let milliseconds = shown.milliseconds();
            early.insert(index, shown);
            while let Some(shown) = early.remove(&printed) {
                writeln!(out, "{}", serde_json::to_string(&shown)?)?;
                printed += 1;
            }
            progress.show(done + 1, photos.len(), &photos[index], milliseconds)?;
        }
        progress.clear()?;
        out.flush()
    })?;
    Ok(is_all_done)
}

impl Shown {
    fn milliseconds(&self) -> Option<f64> {
        match self.outcome {
            Outcome::Found { milliseconds, .. } => Some(milliseconds),
            Outcome::Failed { .. } => None,
        }
    }
}

fn show_one(finder: &Finder, file: &Path, out: &Path, stem: &OsString) -> Result<Outcome, Box<dyn Error>> {
    let content = fs::read(file)?;
    let started = now();
    let faces = finder.find(&content)?;
    let milliseconds = millis(started.elapsed());
    let named = |end: String| {
        let mut name = stem.clone();
        name.push(end);
        out.join(name)
    };
    let photo = drawing::Photo::new(&content, &faces)?;
    let picture = named(".faces.png".to_owned());
    drawing::write(&picture, &photo.marked())?;
    let mut chips = Vec::with_capacity(faces.len());
    for (index, chip) in photo.chips().iter().enumerate() {
        let path = named(format!(".face-{}.png", index + 1));
        drawing::write(&path, chip)?;
        chips.push(text(&path));
    }
    let (width, height, picture) = (photo.width(), photo.height(), text(&picture));
    Ok(Outcome::Found { width, height, faces, picture, chips, milliseconds })
}

/// What pictures of each photograph are called: its name without the ending, and a number where that was taken.
fn stems(photos: &[PathBuf]) -> Vec<OsString> {
    let mut taken = BTreeSet::new();
    let mut stems = Vec::with_capacity(photos.len());
    for photo in photos {
        let stem = photo.file_stem().unwrap_or(photo.as_os_str());
        let mut unique = stem.to_owned();
        let mut number = 1;
        while !taken.insert(unique.clone()) {
            number += 1;
            unique = stem.to_owned();
            unique.push(format!("-{number}"));
        }
        stems.push(unique);
    }
    stems
}

/// What is printed about two photographs.
#[derive(Debug, Serialize)]
struct Compared {
    compared: [String; 2],
    /// The confidences of the two faces.
    confidences: [f32; 2],
    distance: f64,
    threshold: f64,
    same_person: bool,
}

fn compare(finder: &Finder, a: &Path, b: &Path, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let largest = |file: &Path| -> Result<Face, String> {
        let named = |error: &dyn Error| format!("{}: {error}", file.display());
        let content = fs::read(file).map_err(|error| named(&error))?;
        let faces = finder.find(&content).map_err(|error| named(&*error))?;
        let largest = faces.into_iter().max_by(|one, other| one.area().total_cmp(&other.area()));
        largest.ok_or_else(|| format!("{}: no face was found", file.display()))
    };
    let faces = [largest(a)?, largest(b)?];
    let distance = distance(&faces[0].embedding, &faces[1].embedding);
    let compared = Compared {
        compared: [text(a), text(b)],
        confidences: [faces[0].confidence, faces[1].confidence],
        distance,
        threshold: SAME_PERSON,
        same_person: distance < SAME_PERSON,
    };
    writeln!(out, "{}", serde_json::to_string(&compared)?)?;
    Ok(out.flush()?)
}

/// JSON is Unicode; a path that is not is shown as well as that goes.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests carry when they were received, and people like to see how long it took"
)]
fn now() -> Instant {
    Instant::now()
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}
