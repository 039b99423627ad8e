//! The candle engine on a card (or, as a dry run, on the CPU): right answers, speed, and what happens without memory.
//!
//! ```text
//! candle_times [--device cuda] [--small] [--json FILE] [--fixtures DIR]… [SECTION]…
//! ```
//!
//! Sections, all of them unless some are named:
//! - `limits`: what the device can do at most: a large FP16 matrix product, and a copy within its memory;
//! - `answers`: every model of the fixtures' folders in FP32, FP16 and BF16 beside the CPU's answers;
//! - `speed`: a random network of the size of BERT-base in FP16, 1 to 64 rows of 128 tokens, on one stream and on two;
//! - `memory`: refusals of a budget, and a card that is full.
//!
//! Tables go to standard output, the same as JSON into the file. The exit status is 1 when an answer is off or memory is not
//! treated as it should be. `--small` takes sizes that end soon on a CPU. The program needs nothing but its own file and the
//! fixtures; `run.sh` runs it with PyTorch beside.

#![forbid(unsafe_code)]

mod answers;
mod bert;
mod limits;
mod memory;
mod report;
mod speed;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_backend_candle::CandleBackend;
use millrace_core::{Backend as _, LoadError, MemoryFiles, Model, ModelSource};
use report::Report;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What the command line says.
#[derive(Debug)]
struct Settings {
    device: String,
    is_small: bool,
    fixtures: Vec<String>,
    json: Option<String>,
    sections: Vec<String>,
}

const SECTIONS: [&str; 4] = ["limits", "answers", "speed", "memory"];

fn main() -> Outcome<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        report::line(concat!("candle_times ", env!("CARGO_PKG_VERSION")));
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::read(std::env::args().skip(1))?;
    let mut report = Report::default();
    for section in SECTIONS {
        if !settings.sections.is_empty() && !settings.sections.iter().any(|name| name == section) {
            continue;
        }
        match section {
            "limits" => limits::measure(&settings, &mut report)?,
            "answers" => answers::compare(&settings, &mut report)?,
            "speed" => speed::measure(&settings, &mut report)?,
            _ => memory::exhaust(&settings, &mut report)?,
        }
    }
    if let Some(path) = &settings.json {
        std::fs::write(path, report.json()).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(report.exit_code())
}

impl Settings {
    fn read(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut settings =
            Self { device: "cuda".to_owned(), is_small: false, fixtures: Vec::new(), json: None, sections: Vec::new() };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--device" => settings.device = value()?,
                "--small" => settings.is_small = true,
                "--fixtures" => settings.fixtures.push(value()?),
                "--json" => settings.json = Some(value()?),
                name if SECTIONS.contains(&name) => settings.sections.push(word),
                _ => return Err(format!("unknown word {word}; sections are {}", SECTIONS.join(", ")).into()),
            }
        }
        Ok(settings)
    }

    /// Loads `files` with options.
    fn load(&self, files: &Arc<MemoryFiles>, options: &[(&str, &str)]) -> Result<Arc<dyn Model>, LoadError> {
        let name = "model".parse().expect("it is a name");
        let mut source = ModelSource::new(name, 1, Arc::<MemoryFiles>::clone(files));
        // What the section says comes first.
        for (name, value) in options.iter().copied().chain([("device", self.device.as_str())]) {
            source.options.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        CandleBackend::default().load(&source)
    }

    fn is_card(&self) -> bool {
        self.device.starts_with("cuda")
    }

    fn candle_device(&self) -> Outcome<candle_core::Device> {
        let number = self.device.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or("0").parse());
        Ok(match number {
            Some(number) => candle_core::Device::new_cuda(number?)?,
            None => candle_core::Device::Cpu,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// The median time of `work` in seconds, after three runs that do not count, as often as fits into `budget` and at least
/// five times.
fn median_seconds(budget: Duration, mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    for _ in 0..3 {
        work()?;
    }
    let (mut times, mut spent) = (Vec::new(), Duration::ZERO);
    while times.len() < 5 || (spent < budget && times.len() < 2000) {
        let (outcome, took) = timed(&mut work);
        outcome?;
        spent += took;
        times.push(took.as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
