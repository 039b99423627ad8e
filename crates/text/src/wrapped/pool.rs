//! From the vectors of a row's tokens to one, as `sentence-transformers` reckons it.

use millrace_huggingface::{Pooling, PoolingMode};

/// Appends to `pooled` the vectors of all modes of `pooling` over the tokens whose mask is 1: at least one. `hidden` has
/// `width` numbers for each entry of `mask`, perhaps more behind them.
pub(crate) fn pool(hidden: &[f32], width: usize, mask: &[i64], pooling: &Pooling, pooled: &mut Vec<f32>) {
    let tokens = || {
        let vectors = hidden.chunks_exact(width).zip(mask).enumerate();
        vectors.filter(|(_, (_, mask))| **mask == 1).map(|(place, (vector, _))| (place, vector))
    };
    let count = tokens().count().max(1);
    let first = tokens().next().map_or(0, |(place, _)| place);
    for mode in &pooling.modes {
        let start = pooled.len();
        match mode {
            PoolingMode::Cls => pooled.extend(tokens().next().into_iter().flat_map(|(_, vector)| vector)),
            PoolingMode::LastToken => pooled.extend(tokens().next_back().into_iter().flat_map(|(_, vector)| vector)),
            PoolingMode::Max => {
                pooled.resize(start + width, f32::NEG_INFINITY);
                for (_, vector) in tokens() {
                    each(&mut pooled[start..], vector, |most, number| most.max(number));
                }
            }
            PoolingMode::Mean | PoolingMode::MeanSqrtLen => {
                pooled.resize(start + width, 0.0);
                for (_, vector) in tokens() {
                    each(&mut pooled[start..], vector, |sum, number| sum + number);
                }
                let count = float(count);
                let share = if *mode == PoolingMode::Mean { 1.0 / count } else { 1.0 / count.sqrt() };
                scale(&mut pooled[start..], share);
            }
            PoolingMode::WeightedMean => {
                pooled.resize(start + width, 0.0);
                let mut weights = 0.0;
                for (place, vector) in tokens() {
                    // Counted from the first token, so that padding in front of it changes nothing.
                    let weight = float(place + 1 - first);
                    weights += weight;
                    each(&mut pooled[start..], vector, |sum, number| sum + weight * number);
                }
                scale(&mut pooled[start..], 1.0 / weights.max(1e-9));
            }
        }
    }
}

fn each(into: &mut [f32], from: &[f32], combine: impl Fn(f32, f32) -> f32) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into = combine(*into, *from));
}

fn scale(numbers: &mut [f32], by: f32) {
    numbers.iter_mut().for_each(|number| *number *= by);
}

#[expect(clippy::cast_precision_loss, reason = "places in a text are far below 2²⁴")]
fn float(count: usize) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests {
    use millrace_huggingface::{Pooling, PoolingMode};

    use super::pool;

    /// What each mode gives for three tokens and one of padding that must not count.
    #[test]
    fn modes_give_what_they_are_called_after() {
        let hidden = [9.0, 9.0, 1.0, -4.0, 3.0, 0.0, 5.0, 1.0, 7.0, 7.0];
        let mask = [0, 1, 1, 1, 0];
        let cases = [
            (PoolingMode::Cls, [1.0, -4.0]),
            (PoolingMode::LastToken, [5.0, 1.0]),
            (PoolingMode::Max, [5.0, 1.0]),
            (PoolingMode::Mean, [3.0, -1.0]),
            (PoolingMode::MeanSqrtLen, [9.0 / 3_f32.sqrt(), -3.0 / 3_f32.sqrt()]),
            (PoolingMode::WeightedMean, [(1.0 + 6.0 + 15.0) / 6.0, (-4.0 + 3.0) / 6.0]),
        ];
        let mut all = Pooling::of(PoolingMode::Mean);
        all.modes = cases.iter().map(|(mode, _)| *mode).collect();
        let mut pooled = Vec::new();
        pool(&hidden, 2, &mask, &all, &mut pooled);
        let want: Vec<f32> = cases.iter().flat_map(|(_, want)| *want).collect();
        assert_eq!(pooled.len(), want.len());
        for (index, (got, want)) in pooled.iter().zip(&want).enumerate() {
            assert!((got - want).abs() < 1e-6, "{:?}: {got} for {want}", cases[index / 2].0);
        }
    }
}
