//! What happens where device memory ends: refusals before anything is done, and a run that fails without harm to the next.

use candle_core::{DType, Device, Tensor};
use millrace_core::{LoadErrorKind, RunContext, RunError};

use crate::bert::{BASE, SMALL};
use crate::report::Report;
use crate::speed::tokens;
use crate::{Outcome, Settings};

pub(crate) fn exhaust(settings: &Settings, report: &mut Report) -> Outcome<()> {
    report.section("memory", &["what", "what happened", "verdict"]);
    if !settings.is_card() {
        report.row(["everything here".into(), "left out: it is about a card".into(), "-".into()]);
        return Ok(());
    }
    let size = if settings.is_small { SMALL } else { BASE };
    let files = size.files();
    let weights_mib = size.weight_bytes() >> 20;
    let plain = RunContext::plain();
    let mut row = |what: &str, happened: String, is_wrong: bool| {
        let verdict = report.fail(is_wrong);
        report.row([what.into(), happened.into(), verdict.into()]);
    };

    let less = format!("{}MiB", (weights_mib / 2).max(1));
    let (happened, is_wrong) = match settings.load(&files, &[("precision", "FP16"), ("device_memory", &less)]) {
        Ok(_) => ("it loaded".to_owned(), true),
        Err(error) => (error.to_string(), error.kind() != LoadErrorKind::TooLarge),
    };
    row("weights beyond `device_memory`", happened, is_wrong);

    let little = format!("{}MiB", weights_mib + 48);
    let model = settings.load(&files, &[("precision", "FP16"), ("device_memory", &little)])?;
    let mut instance = model.instance()?;
    let (happened, is_wrong) = match instance.run(&tokens(&size, 256, 512)?, &plain) {
        Ok(_) => ("it ran".to_owned(), true),
        Err(error) => (error.to_string(), !matches!(error, RunError::InvalidInput(_))),
    };
    row("a run beyond `device_memory`", happened, is_wrong);
    let after = instance.run(&tokens(&size, 1, 16)?, &plain);
    row("the next one", after.as_ref().err().map_or_else(|| "it ran".to_owned(), ToString::to_string), after.is_err());
    drop((instance, model));

    let model = settings.load(&files, &[("precision", "FP16")])?;
    let mut instance = model.instance()?;
    instance.run(&tokens(&size, 1, 16)?, &plain)?;
    let hog = fill(&settings.candle_device()?)?;
    let (happened, is_wrong) = match instance.run(&tokens(&size, 256, 512)?, &plain) {
        Ok(_) => ("it ran".to_owned(), true),
        Err(RunError::Failed(cause)) => (cause.to_string(), !cause.to_string().contains("memory")),
        Err(error) => (error.to_string(), true),
    };
    row("a run on a card that is full", happened, is_wrong);
    drop(hog);
    settings.candle_device()?.synchronize()?;
    let after = instance.run(&tokens(&size, 32, 128)?, &plain);
    row(
        "the next one, with room again",
        after.as_ref().err().map_or_else(|| "it ran".to_owned(), ToString::to_string),
        after.is_err(),
    );
    Ok(())
}

/// Takes all memory of a card down to a few MiB.
fn fill(device: &Device) -> Outcome<Vec<Tensor>> {
    let mut held = Vec::new();
    let mut bytes: usize = 1 << 32;
    while bytes >= 1 << 20 {
        match Tensor::zeros(bytes, DType::U8, device) {
            Ok(tensor) => held.push(tensor),
            Err(_) => bytes /= 2,
        }
    }
    if held.is_empty() { Err("the card gave nothing at all".into()) } else { Ok(held) }
}
