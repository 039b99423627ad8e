//! What the device can do at most, as measured through the same bindings: the yardsticks of `speed`.

use std::time::Duration;

use candle_core::{DType, Tensor};

use crate::report::Report;
use crate::{Outcome, Settings, median_seconds};

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Outcome<()> {
    let device = settings.candle_device()?;
    let budget = Duration::from_millis(if settings.is_small { 50 } else { 1000 });
    report.section("limits", &["what", "size", "ms", "reached", "unit"]);
    // candle's matrix product on the CPU knows 16 bits, too, but slowly.
    for (name, dtype) in [("matrix product FP16", DType::F16), ("matrix product FP32", DType::F32)] {
        let size = if settings.is_small { 128 } else { 8192 };
        let one = Tensor::randn(0_f32, 1_f32, (size, size), &device)?.to_dtype(dtype)?;
        let other = Tensor::randn(0_f32, 1_f32, (size, size), &device)?.to_dtype(dtype)?;
        let seconds = median_seconds(budget, || {
            let product = one.matmul(&other)?;
            finished(&product)
        })?;
        #[expect(clippy::cast_precision_loss, reason = "a count to be read by people")]
        let operations = 2.0 * (size as f64).powi(3);
        let size = format!("{size}×{size}×{size}");
        report.row([
            name.into(),
            size.into(),
            (seconds * 1e3).into(),
            (operations / seconds / 1e12).into(),
            "TFLOP/s".into(),
        ]);
    }
    let bytes: usize = if settings.is_small { 1 << 22 } else { 1 << 31 };
    let source = Tensor::zeros(bytes / 4, DType::F32, &device)?;
    let seconds = median_seconds(budget, || finished(&source.copy()?))?;
    #[expect(clippy::cast_precision_loss, reason = "a count to be read by people")]
    let moved = 2.0 * bytes as f64;
    let size = format!("{} MiB", bytes >> 20);
    report.row([
        "copy, read and write".into(),
        size.into(),
        (seconds * 1e3).into(),
        (moved / seconds / 1e9).into(),
        "GB/s".into(),
    ]);
    Ok(())
}

/// Waits for the device.
fn finished(tensor: &Tensor) -> Outcome<()> {
    Ok(tensor.device().synchronize()?)
}
