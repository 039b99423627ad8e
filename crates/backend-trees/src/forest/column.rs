//! Columns: a feature, read in one of the ways that the trees read it, as whole numbers that compare as the feature does.
//!
//! Two splits of one feature that send NaN to different sides read two columns. So all that is odd about a value is
//! settled once per row, and a step through a tree is one comparison of whole numbers.

use super::Values;

/// LightGBM's zero: numbers as small as this are missing where zeros are. An `f32` there, compared as an `f64`.
const ZERO: f64 = 1e-35_f32 as f64;

/// How a column reads its feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reading {
    /// NaN is less than all numbers.
    Low,
    /// NaN is greater than all numbers.
    High,
    /// NaN is zero.
    NanIsZero,
    /// NaN and zero are less than all numbers.
    ZeroLow,
    /// NaN and zero are greater than all numbers.
    ZeroHigh,
    /// The place among the members that any set of the column has: [`NO_MEMBER`], [`NAN`], or [`FIRST_MEMBER`] and up.
    Place(Values),
}

/// The place of what no set holds.
pub(super) const NO_MEMBER: u32 = 0;
/// The place of NaN.
pub(super) const NAN: u32 = 1;
/// The place of the least member.
pub(super) const FIRST_MEMBER: u32 = 2;

/// The type of the input's numbers, as far as keys go.
pub(super) trait Number: Copy + Send + Sync {
    /// 0.
    const ZERO: Self;
    fn widen(self) -> f64;
    /// The number as a whole number that compares as it does; both zeros are one. Never 0 and never the greatest.
    fn order(self) -> u64;
    /// The same for the least number of this type that is at least `value`.
    fn order_at_least(value: f64) -> u64;
    /// The same for the greatest number of this type that is at most `value`.
    fn order_at_most(value: f64) -> u64;
    /// The key of a number in a column of thresholds.
    fn key(self, column: &Column) -> u32;
    /// The keys of some numbers, or `nan` for NaN.
    fn fill<const LANES: usize>(values: &[Self; LANES], column: &Column, nan: u32, keys: &mut [u32; LANES]) {
        for (key, value) in keys.iter_mut().zip(values) {
            *key = if value.widen().is_nan() { nan } else { value.key(column) };
        }
    }
}

impl Number for f32 {
    const ZERO: Self = 0.0;

    fn widen(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn order(self) -> u64 {
        u64::from(single_order(self))
    }

    fn order_at_least(value: f64) -> u64 {
        let near = narrowed(value);
        if f64::from(near) < value { near.next_up() } else { near }.order()
    }

    fn order_at_most(value: f64) -> u64 {
        let near = narrowed(value);
        if f64::from(near) > value { near.next_down() } else { near }.order()
    }

    #[inline(always)]
    fn key(self, _: &Column) -> u32 {
        single_order(self)
    }
}

/// The order of an `f32`: its bits, all flipped where it is negative, else with the sign set.
#[inline(always)]
fn single_order(number: f32) -> u32 {
    let bits = (number + 0.0).to_bits();
    let negative = 0_u32.wrapping_sub(bits >> 31);
    bits ^ (negative | 1 << 31)
}

#[expect(clippy::cast_possible_truncation, reason = "the callers put right what rounding did")]
fn narrowed(value: f64) -> f32 {
    value as f32
}

impl Number for f64 {
    const ZERO: Self = 0.0;

    fn widen(self) -> f64 {
        self
    }

    fn order(self) -> u64 {
        let bits = (self + 0.0).to_bits();
        let negative = 0_u64.wrapping_sub(bits >> 63);
        bits ^ (negative | 1 << 63)
    }

    fn order_at_least(value: f64) -> u64 {
        value.order()
    }

    fn order_at_most(value: f64) -> u64 {
        value.order()
    }

    /// How many of the column's thresholds it is greater than.
    fn key(self, column: &Column) -> u32 {
        let order = self.order();
        u32::try_from(column.thresholds.partition_point(|threshold| *threshold < order)).unwrap_or(u32::MAX)
    }
}

/// A feature and how it is read.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) feature: usize,
    pub(super) reading: Reading,
    /// For `f64` input, all that the trees compare this column with, ascending.
    pub(super) thresholds: Vec<u64>,
    /// All members of the column's sets, ascending.
    pub(super) members: Vec<f64>,
}

impl Column {
    /// The keys of this column's feature in `LANES` rows, of which `rows` begins with the first. Rows are `features` wide.
    #[inline]
    pub(super) fn fill<T: Number, const LANES: usize>(&self, rows: &[T], features: usize, keys: &mut [u32; LANES]) {
        let mut values = [T::ZERO; LANES];
        for (value, row) in values.iter_mut().zip(rows.chunks_exact(features)) {
            *value = row[self.feature];
        }
        let mut fill = |key: &dyn Fn(T) -> u32| {
            for (target, value) in keys.iter_mut().zip(&values) {
                *target = key(*value);
            }
        };
        match self.reading {
            Reading::Low => T::fill(&values, self, 0, keys),
            Reading::High => T::fill(&values, self, u32::MAX, keys),
            Reading::NanIsZero => T::fill(&values, self, T::ZERO.key(self), keys),
            Reading::ZeroLow => fill(&|value| if is_zero_or_nan(value.widen()) { 0 } else { value.key(self) }),
            Reading::ZeroHigh => fill(&|value| if is_zero_or_nan(value.widen()) { u32::MAX } else { value.key(self) }),
            Reading::Place(values) => fill(&|value| self.place(value.widen(), values)),
        }
    }

    /// Where `value` stands among the column's members.
    pub(super) fn place(&self, value: f64, values: Values) -> u32 {
        if value.is_nan() {
            return NAN;
        }
        let wanted = match values {
            Values::Exact => value,
            // What lies between -1 and 0 is cut to zero, which is a category.
            Values::Cut => value.trunc(),
            Values::CutIfPositive if !(0.0..TOO_GREAT).contains(&value) => return NO_MEMBER,
            Values::CutIfPositive => value.trunc(),
        };
        let below = self.members.partition_point(|member| *member < wanted);
        match self.members.get(below) {
            Some(member) if *member == wanted => u32::try_from(below).map_or(NO_MEMBER, |below| below + FIRST_MEMBER),
            _ => NO_MEMBER,
        }
    }
}

/// From here on XGBoost takes no number for a category: the first whole number that an `f32` cannot tell from the next.
const TOO_GREAT: f64 = 16_777_216.0;

fn is_zero_or_nan(value: f64) -> bool {
    value.is_nan() || (-ZERO..=ZERO).contains(&value)
}
