//! What a run costs, by the rows in it and the length that they are padded to. Pure: times are told.
//!
//! A run of n rows of length L takes t ≈ a + b·w, where the work w = n·(L + L²/(6·H)) counts tokens: products with the weights
//! cost 24·H² operations for each token and layer, attention 4·L·H. `a` and `b` are learned from the engine's own runs, by a
//! regression of t/w on 1/w, so that long runs do not drown out what short ones say about `a`; what is older counts less.
//!
//! Only `a`/`b`, the price of one more run in tokens, decides where to cut. It is kept to powers of two, and looked at once in
//! a while: so that equal batches are cut alike, and answered with equal bits, but for few moments.

/// The price of a run in tokens until something is known.
const FIRST_PRICE: f64 = 16.0;
/// Bounds of the price.
const PRICES: std::ops::RangeInclusive<f64> = 1.0..=1024.0;
/// How many runs are seen before the price is looked at again.
const PATIENCE: u32 = 128;
/// How much of what is known is left after each run.
const KEPT: f64 = 0.995;
/// A run that took so many times what was foreseen says nothing about the next: the machine did something else.
const ODD: f64 = 4.0;

/// What is known about one engine's runs of one model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cost {
    /// What the square of a row's length counts.
    square: f64,
    /// The price of a run in tokens.
    price: f64,
    /// Decayed sums of 1, z, y, z² and z·y, where z = 1/w and y = t/w.
    sums: [f64; 5],
    seen: u32,
}

impl Cost {
    /// Nothing known yet about a network whose tokens have `width` numbers.
    pub(crate) fn new(width: usize) -> Self {
        Self { square: 1.0 / (6.0 * float(width.max(1))), price: FIRST_PRICE, sums: [0.0; 5], seen: 0 }
    }

    /// The cost of a run, in tokens.
    pub(crate) fn of(&self, rows: usize, length: usize) -> f64 {
        self.price + self.work(rows, length)
    }

    fn work(&self, rows: usize, length: usize) -> f64 {
        let length = float(length);
        float(rows) * (length + length * length * self.square)
    }

    /// A run took so long.
    pub(crate) fn learn(&mut self, rows: usize, length: usize, seconds: f64) {
        let work = self.work(rows, length);
        if !(work > 0.0 && seconds.is_finite() && seconds > 0.0) {
            return;
        }
        let foreseen = self.fit().map(|(fixed, each)| fixed + each * work);
        let seconds = foreseen.map_or(seconds, |foreseen| seconds.min(ODD * foreseen));
        let (z, y) = (1.0 / work, seconds / work);
        for (sum, term) in self.sums.iter_mut().zip([1.0, z, y, z * z, z * y]) {
            *sum = KEPT * *sum + term;
        }
        self.seen += 1;
        if self.seen.is_multiple_of(PATIENCE)
            && let Some((fixed, each)) = self.fit()
        {
            let price = (fixed / each).clamp(*PRICES.start(), *PRICES.end());
            // Only what is clearly another power of two is one.
            if !(0.6..=1.7).contains(&(price / self.price)) {
                self.price = price.log2().round().exp2();
            }
        }
    }

    /// `a` and `b` in seconds, once the runs differ enough to tell them apart.
    fn fit(&self) -> Option<(f64, f64)> {
        let [n, z, y, zz, zy] = self.sums;
        let spread = n * zz - z * z;
        if n < 8.0 || spread <= 1e-3 * n * zz {
            return None;
        }
        let fixed = ((n * zy - z * y) / spread).max(0.0);
        let each = (y - fixed * z) / n;
        (each > 0.0).then_some((fixed, each))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows and tokens are far below 2⁵³")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Cost;

    /// A cost after so many runs of an engine whose runs take `fixed` + `each`·work.
    fn taught(fixed: f64, each: f64, runs: usize) -> Cost {
        let mut cost = Cost::new(64);
        for run in 0..runs {
            let (rows, length) = (1 + run % 7, 8 + 24 * (run % 5));
            let work = cost.work(rows, length);
            cost.learn(rows, length, fixed + each * work);
        }
        cost
    }

    #[test]
    fn the_price_of_a_run_is_learned_within_a_factor() {
        for (price, learned) in [(2.0, 2.0), (16.0, 16.0), (100.0, 128.0), (1e6, 1024.0), (0.0, 1.0)] {
            assert_eq!(taught(price * 1e-5, 1e-5, 512).price, learned, "{price}");
        }
    }

    #[test]
    fn few_runs_and_odd_ones_change_nothing() {
        assert_eq!(taught(1e-3, 1e-5, 100).price, Cost::new(64).price);
        let mut cost = taught(16e-5, 1e-5, 500);
        let before = cost.price;
        for _ in 0..12 {
            cost.learn(1, 8, 30.0);
        }
        assert_eq!(cost.price, before);
        cost.learn(0, 0, 1.0);
        cost.learn(1, 1, f64::NAN);
        assert_eq!(cost.price, before);
    }

    #[test]
    fn runs_that_are_all_alike_tell_nothing_about_the_price() {
        let mut cost = Cost::new(64);
        (0..600).for_each(|_| cost.learn(4, 32, 1e-3));
        assert_eq!(cost.price, Cost::new(64).price);
    }

    proptest! {
        #[test]
        fn costs_stay_finite_and_grow_with_rows_and_length(
            runs in prop::collection::vec((0_usize..1000, 0_usize..5000, any::<f64>()), 0..400),
            rows in 1_usize..1000,
            length in 1_usize..5000,
        ) {
            let mut cost = Cost::new(8);
            for (rows, length, seconds) in runs {
                cost.learn(rows, length, seconds);
            }
            let own = cost.of(rows, length);
            prop_assert!(own.is_finite() && own > 0.0);
            prop_assert!(cost.of(rows + 1, length) > own && cost.of(rows, length + 1) > own);
        }
    }
}
