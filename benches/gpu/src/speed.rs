//! Rows per second of a network of the size of BERT-base in FP16, beside what its operations would take at the device's best.

use std::sync::Barrier;
use std::time::Duration;

use millrace_core::{Batch, Instance, RunContext, Tensor, Wanted};

use crate::bert::{BASE, SMALL, Size};
use crate::report::Report;
use crate::{Outcome, Settings, median_seconds, timed};

/// Tokens of a row.
const TOKENS: usize = 128;

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Outcome<()> {
    let size = if settings.is_small { SMALL } else { BASE };
    let files = size.files();
    let most_rows = if settings.is_small { 4 } else { 64 };
    report.section("speed", &["streams", "rows", "ms", "rows per second", "TFLOP/s"]);
    for streams in [1_usize, 2] {
        let streams_text = streams.to_string();
        let mut options = vec![("precision", "FP16")];
        if settings.is_card() {
            options.push(("streams", &streams_text));
        }
        let model = settings.load(&files, &options)?;
        let embedding = model.signature().output_index("sentence_embedding").ok_or("no output sentence_embedding")?;
        let wanted = Wanted::Only([embedding].into_iter().collect());
        let context = RunContext { wanted: &wanted, ..RunContext::plain() };
        let mut instances = (0..streams).map(|_| model.instance()).collect::<Result<Vec<_>, _>>()?;
        let mut rows = 1;
        while rows <= most_rows {
            let batch = batch(&size, rows)?;
            let budget = Duration::from_millis(if settings.is_small { 50 } else { 700 });
            let seconds = if let [instance] = instances.as_mut_slice() {
                median_seconds(budget, || {
                    instance.run(&batch, &context)?;
                    Ok(())
                })?
            } else {
                together(&mut instances, &batch, &wanted, if settings.is_small { 3 } else { 60 })?
            };
            #[expect(clippy::cast_precision_loss, reason = "a count to be read by people")]
            let per_second = rows as f64 / seconds;
            let speed = size.operations(rows, TOKENS) / seconds / 1e12;
            report.row([streams.into(), rows.into(), (seconds * 1e3).into(), per_second.into(), speed.into()]);
            rows *= 2;
        }
    }
    Ok(())
}

/// Seconds for each batch when every instance runs `times` of them at once with the others, on a thread each.
fn together(instances: &mut [Box<dyn Instance>], batch: &Batch, wanted: &Wanted, times: usize) -> Outcome<f64> {
    let total = times * instances.len();
    let start = Barrier::new(instances.len() + 1);
    let worker = |instance: &mut Box<dyn Instance>| -> Result<(), String> {
        let context = RunContext { wanted, ..RunContext::plain() };
        let warm = (0..3).try_for_each(|_| instance.run(batch, &context).map(drop));
        // All must come here, or the others would wait for ever.
        start.wait();
        warm.map_err(|error| error.to_string())?;
        (0..times).try_for_each(|_| instance.run(batch, &context).map(drop)).map_err(|error| error.to_string())
    };
    let (outcome, took) = std::thread::scope(|scope| {
        let threads: Vec<_> = instances.iter_mut().map(|instance| scope.spawn(|| worker(instance))).collect();
        start.wait();
        timed(|| {
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))
            };
            threads.into_iter().map(join).collect::<Result<Vec<()>, String>>()
        })
    });
    outcome?;
    #[expect(clippy::cast_precision_loss, reason = "a count to be read by people")]
    Ok(took.as_secs_f64() / total as f64)
}

fn batch(size: &Size, rows: usize) -> Outcome<Batch> {
    tokens(size, rows, TOKENS)
}

/// One request of `rows` rows of `tokens` tokens.
pub(crate) fn tokens(size: &Size, rows: usize, tokens: usize) -> Outcome<Batch> {
    let ids = (0..rows * tokens).map(|index| i64::try_from(1 + (index * 31) % (size.vocabulary - 1)));
    let ids = Tensor::from_vec(&[rows, tokens], ids.collect::<Result<_, _>>()?)?;
    let mask = Tensor::from_vec(&[rows, tokens], vec![1_i64; rows * tokens])?;
    let kinds = Tensor::from_vec(&[rows, tokens], vec![0_i64; rows * tokens])?;
    Ok(Batch::single([ids, mask, kinds].into_iter().collect(), rows))
}
