//! Every model of the fixtures in every precision, beside the same model on the CPU, whose weights are rounded to that precision
//! and whose computation is in FP32.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use millrace_core::{Batch, Dim, MemoryFiles, Model, Part, RunContext, Tensor, TensorList, TensorSpec};

use crate::report::Report;
use crate::{Outcome, Settings};

/// A precision, and how far an answer may be from the CPU's, as a part of the largest number of its output: for numbers of 11
/// and 8 bits some twenty units of the last one, after a few layers.
const PRECISIONS: [(&str, f64); 3] = [("FP32", 1e-4), ("FP16", 2e-2), ("BF16", 1e-1)];

pub(crate) fn compare(settings: &Settings, report: &mut Report) -> Outcome<()> {
    report.section("answers", &["model", "precision", "difference", "allowed", "verdict"]);
    for folder in &settings.fixtures {
        let mut models: Vec<_> =
            fs::read_dir(folder).map_err(|error| format!("{folder}: {error}"))?.collect::<Result<_, _>>()?;
        models.sort_by_key(fs::DirEntry::file_name);
        for model in models {
            let name = model.file_name().to_string_lossy().into_owned();
            compare_one(settings, &name, &files(&model.path().join("1"))?, report)?;
        }
    }
    Ok(())
}

fn compare_one(settings: &Settings, name: &str, files: &Arc<MemoryFiles>, report: &mut Report) -> Outcome<()> {
    for (precision, allowed) in PRECISIONS {
        let reference = settings.load(files, &[("device", "cpu"), ("precision", precision)])?;
        let batch = batch(&*reference)?;
        let want = answers(&*reference, &batch)?;
        let row = |difference: crate::report::Cell, verdict: &str| {
            [name.into(), precision.into(), difference, allowed.into(), verdict.into()]
        };
        let got = settings.load(files, &[("precision", precision)]).map_err(Into::into);
        match got.and_then(|model| answers(&*model, &batch)) {
            Ok(got) => {
                let difference = difference(&got, &want)?;
                let verdict = report.fail(difference.is_nan() || difference > allowed);
                report.row(row(difference.into(), verdict));
            }
            Err(error) => {
                let verdict = report.fail(true);
                report.row(row(error.to_string().into(), verdict));
            }
        }
    }
    Ok(())
}

/// All files of a version's folder, with those of its folders.
fn files(folder: &Path) -> Outcome<Arc<MemoryFiles>> {
    fn walk(folder: &Path, prefix: &str, mut files: MemoryFiles) -> Outcome<MemoryFiles> {
        for entry in fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            files = if entry.file_type()?.is_dir() {
                walk(&entry.path(), &format!("{name}/"), files)?
            } else {
                files.with(name, fs::read(entry.path())?)
            };
        }
        Ok(files)
    }
    Ok(Arc::new(walk(folder, "", MemoryFiles::default())?))
}

fn answers(model: &dyn Model, batch: &Batch) -> Outcome<Vec<Tensor>> {
    let mut instance = model.instance()?;
    // Twice, for buffers are used again.
    instance.run(batch, &RunContext::plain())?;
    let outputs = instance.run(batch, &RunContext::plain())?;
    let shares = batch.split(&outputs, model.signature())?;
    Ok(shares.into_iter().flatten().flatten().collect())
}

/// Requests of different lengths where the model mixes them, else one of three rows.
fn batch(model: &dyn Model) -> Outcome<Batch> {
    let lengths: &[usize] = if model.signature().is_mixed() { &[5, 1, 9, 9, 14, 2] } else { &[32] };
    let part = |length: &usize| -> Outcome<Part> {
        let rows = if model.signature().is_mixed() { 1 } else { 3 };
        let inputs: TensorList =
            model.signature().inputs().iter().map(|spec| input(spec, rows, *length)).collect::<Outcome<_>>()?;
        let admission = model.signature().check(&inputs)?;
        model.admit(&admission)?;
        model.weigh(&inputs, &admission)?;
        Ok(Part { inputs, rows })
    };
    Ok(Batch::new(lengths.iter().map(part).collect::<Outcome<_>>()?, 0))
}

fn input(spec: &TensorSpec, rows: usize, free: usize) -> Outcome<Tensor> {
    let size = |(axis, dim): (usize, &Dim)| match dim {
        _ if spec.batch_axis == Some(axis) => rows,
        Dim::Fixed(size) => *size,
        _ => free,
    };
    let sizes: Vec<usize> = spec.shape.iter().enumerate().map(size).collect();
    let count: usize = sizes.iter().product();
    Ok(match &*spec.name {
        "input_ids" => {
            // Ids that every vocabulary of the fixtures has.
            let ids = (0..count).map(|index| i64::try_from(5 + (index * 7 + free) % 20));
            Tensor::from_vec(&sizes, ids.collect::<Result<_, _>>()?)?
        }
        "attention_mask" => Tensor::from_vec(&sizes, vec![1_i64; count])?,
        "token_type_ids" => Tensor::from_vec(&sizes, vec![0_i64; count])?,
        _ => {
            let wave = (0_u16..).map(|index| f32::from(index % 251) / 125.0 - 1.0).take(count);
            Tensor::from_vec(&sizes, wave.collect())?
        }
    })
}

/// Below this the numbers of an output are what is left of larger ones, and rounding is not a part of them but of those.
const LEAST_SCALE: f32 = 0.1;

/// The largest difference, as a part of the largest number of its output.
fn difference(got: &[Tensor], want: &[Tensor]) -> Outcome<f64> {
    let mut most = 0.0_f64;
    for (got, want) in got.iter().zip(want) {
        let (got, want) = (got.elements::<f32>()?, want.elements::<f32>()?);
        let largest = want.iter().fold(LEAST_SCALE, |largest, number| largest.max(number.abs()));
        for (got, want) in got.iter().zip(&*want) {
            let far = f64::from((got - want).abs() / largest);
            // `max` would lose what is not a number.
            most = if far > most || far.is_nan() { far } else { most };
            if most.is_nan() {
                return Ok(most);
            }
        }
    }
    Ok(most)
}
