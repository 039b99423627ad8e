//! From a network's numbers to what is answered: unit vectors, similarities, probabilities.

use std::borrow::Cow;

/// The first `dimensions` numbers of `vector`, of length 1 where that is wanted. A vector of zeros stays one.
pub(super) fn vector(vector: &[f32], dimensions: Option<usize>, normalize: bool) -> Cow<'_, [f32]> {
    let vector = &vector[..dimensions.map_or(vector.len(), |dimensions| dimensions.min(vector.len()))];
    if !normalize {
        return Cow::Borrowed(vector);
    }
    let length = length(vector);
    if length == 0.0 {
        return Cow::Borrowed(vector);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a quotient by the length is within -1 and 1")]
    Cow::Owned(vector.iter().map(|number| (f64::from(*number) / length) as f32).collect())
}

/// The cosine of the angle between two vectors; 0 where one is all zeros.
pub(super) fn cosine(first: &[f32], second: &[f32]) -> f32 {
    let lengths = length(first) * length(second);
    if lengths == 0.0 {
        return 0.0;
    }
    let product: f64 = first.iter().zip(second).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    #[expect(clippy::cast_possible_truncation, reason = "a cosine is within -1 and 1")]
    let cosine = (product / lengths).clamp(-1.0, 1.0) as f32;
    cosine
}

/// Each number by itself as a probability.
pub(super) fn sigmoid(number: f32) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a probability is within 0 and 1")]
    let probability = (1.0 / (1.0 + (-f64::from(number)).exp())) as f32;
    probability
}

/// All numbers together as probabilities.
pub(super) fn softmax(numbers: &[f32]) -> Vec<f32> {
    let most = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = numbers.iter().map(|number| (f64::from(*number) - f64::from(most)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    #[expect(clippy::cast_possible_truncation, reason = "a probability is within 0 and 1")]
    weights.iter().map(|weight| (weight / sum) as f32).collect()
}

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|number| f64::from(*number) * f64::from(*number)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::{cosine, sigmoid, softmax, vector};

    #[test]
    fn vectors_are_cut_first_and_then_made_one_long() {
        assert_eq!(*vector(&[3.0, 4.0, 12.0], None, false), [3.0, 4.0, 12.0]);
        assert_eq!(*vector(&[3.0, 4.0, 12.0], Some(2), true), [0.6, 0.8]);
        assert_eq!(*vector(&[3.0, 4.0, 12.0], Some(2), false), [3.0, 4.0]);
        assert_eq!(*vector(&[0.0, 0.0], None, true), [0.0, 0.0]);
        assert_eq!(*vector(&[1.5e38, 2e38], None, true), [0.6, 0.8]);
    }

    #[test]
    fn the_cosine_knows_no_lengths() {
        assert_eq!(cosine(&[1.0, 0.0], &[5.0, 0.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert_eq!(cosine(&[2.0, 2.0], &[-3.0, -3.0]), -1.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
    }

    #[test]
    fn probabilities_do_not_overflow() {
        assert_eq!(softmax(&[0.0, 0.0]), [0.5, 0.5]);
        assert_eq!(softmax(&[1000.0, -1000.0]), [1.0, 0.0]);
        // Whatever the number of the largest amount is, the largest number is what is taken off.
        assert_eq!(softmax(&[-1000.0, 0.0]), [0.0, 1.0]);
        assert_eq!([sigmoid(0.0), sigmoid(200.0), sigmoid(-200.0)], [0.5, 1.0, 0.0]);
    }
}
