//! Reads numbers: JSON's own grammar plus the tokens `NaN`, `Inf`, `Infinity`, `-Inf` and `-Infinity`.
//!
//! Floats come out correctly rounded in their own width: an `f32` is the one nearest to the decimal text, not to the
//! `f64` nearest to it. Which JSON number a dtype accepts is decided here too, one `Leaf` per element type.

use millrace_core::Element;

use crate::cursor::{Cursor, Numbers};
use crate::error::Fault;

/// An element type that JSON text can hold.
pub(crate) trait Leaf: Element + Copy {
    /// Reads one element. The cursor stands at the value's first byte, and stays there on a fault.
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault>;
}

/// A decimal number's parts, as written.
struct Token {
    /// One past its last byte.
    end: usize,
    negative: bool,
    /// All its digits as one number; meaningless where there are more than [`MOST_DIGITS`].
    mantissa: u64,
    /// How many digits `mantissa` was made of, leading zeros included.
    n_digits: usize,
    /// The power of ten that `mantissa` is to be multiplied with.
    scale: i64,
    is_integer: bool,
}

/// As many decimal digits as always fit in a `u64`.
const MOST_DIGITS: usize = 19;

/// The powers of ten that `f64` holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl Leaf for f32 {
    #[inline]
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        let token = match token(cursor.text, cursor.at) {
            Ok(token) => token,
            Err(fault) => return special(cursor, fault, [Self::NAN, Self::INFINITY]),
        };
        let value = match narrow(&token) {
            Some(value) => value,
            None => exact(&cursor.text[cursor.at..token.end], Self::is_finite)?,
        };
        cursor.at = token.end;
        Ok(value)
    }
}

impl Leaf for f64 {
    #[inline]
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        let token = match token(cursor.text, cursor.at) {
            Ok(token) => token,
            Err(fault) => return special(cursor, fault, [Self::NAN, Self::INFINITY]),
        };
        // Both operands are exact below 2^53, so one operation rounds once.
        let value = match approximate(&token) {
            Some(value) if token.mantissa < 1 << 53 => value,
            _ => exact(&cursor.text[cursor.at..token.end], Self::is_finite)?,
        };
        cursor.at = token.end;
        Ok(value)
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Leaf for $type {
            #[inline]
            fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
                let (value, end) = integer(cursor)?;
                let value = Self::try_from(value).map_err(|_| Fault::Range)?;
                cursor.at = end;
                Ok(value)
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Leaf for bool {
    #[inline]
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        if cursor.literal("true") {
            return Ok(true);
        }
        if cursor.literal("false") { Ok(false) } else { Err(Fault::Type) }
    }
}

impl Cursor<'_> {
    /// Moves past a number or one of the tokens that stand for one.
    pub(crate) fn skip_number(&mut self, numbers: Numbers) -> Result<(), Fault> {
        let token = match token(self.text, self.at) {
            Ok(token) => token,
            Err(Fault::Type) => return special(self, Fault::Unexpected, [0.0, 0.0]).map(drop),
            Err(fault) => return special(self, fault, [0.0, 0.0]).map(drop),
        };
        // Fewer than 300 digits and powers together cannot reach 1e308.
        let size = i64::try_from(token.n_digits).unwrap_or(i64::MAX).saturating_add(token.scale);
        if numbers == Numbers::InRange && size > 300 {
            exact(&self.text[self.at..token.end], f64::is_finite)?;
        }
        self.at = token.end;
        Ok(())
    }
}

/// Splits the number at `at` into its parts. [`Fault::Type`] where there is none, [`Fault::Number`] where it is broken.
#[inline(always)]
fn token(text: &[u8], at: usize) -> Result<Token, Fault> {
    let negative = text.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let (mut mantissa, mut end) = digits(text, first, 0);
    let mut n_digits = end - first;
    if n_digits == 0 {
        return Err(if negative { Fault::Number } else { Fault::Type });
    }
    if n_digits > 1 && text[first] == b'0' {
        return Err(Fault::Number);
    }
    let (mut scale, mut is_integer) = (0, true);
    if text.get(end) == Some(&b'.') {
        is_integer = false;
        let point = end + 1;
        (mantissa, end) = digits(text, point, mantissa);
        let n_decimals = end - point;
        if n_decimals == 0 {
            return Err(Fault::Number);
        }
        n_digits += n_decimals;
        scale = -i64::try_from(n_decimals).unwrap_or(i64::MAX);
    }
    if let Some(b'e' | b'E') = text.get(end) {
        is_integer = false;
        let sign = text.get(end + 1);
        let first = end + 1 + usize::from(matches!(sign, Some(b'+' | b'-')));
        let (mut power, last) = exponent(text, first);
        if last == first {
            return Err(Fault::Number);
        }
        if sign == Some(&b'-') {
            power = -power;
        }
        scale = scale.saturating_add(power);
        end = last;
    }
    Ok(Token { end, negative, mantissa, n_digits, scale, is_integer })
}

/// Appends the digits from `at` on to `mantissa`, which wraps where there are too many.
///
/// Eight bytes are looked at in one word, however many of them are digits: where numbers differ in length, a loop over
/// digits spends most of its time on guessing wrongly when it ends.
#[inline(always)]
fn digits(text: &[u8], mut at: usize, mut mantissa: u64) -> (u64, usize) {
    const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        // Digits become 0 to 9. A byte that is none gets its high bit set; what it spills goes to bytes behind it only.
        let word = u64::from_le_bytes(*chunk) ^ u64::from_ne_bytes([b'0'; 8]);
        let others = (word.wrapping_add(u64::from_ne_bytes([0x80 - 10; 8])) | word) & HIGH;
        let n_digits = others.trailing_zeros() as usize / 8;
        if n_digits == 0 {
            return (mantissa, at);
        }
        let value = eight_digits(word << (64 - 8 * n_digits));
        mantissa = mantissa.wrapping_mul(POWERS[n_digits]).wrapping_add(value);
        at += n_digits;
        if n_digits < 8 {
            return (mantissa, at);
        }
    }
    while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    (mantissa, at)
}

/// The number whose eight decimal digits are the bytes of `word`, the first digit in the lowest byte: neighbours are
/// joined to pairs, pairs to fours, fours to the whole.
#[inline]
fn eight_digits(word: u64) -> u64 {
    const LOW: u64 = 0x0000_00ff_0000_00ff;
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let first = (pairs & LOW).wrapping_mul(100 + (1_000_000 << 32));
    let second = ((pairs >> 16) & LOW).wrapping_mul(1 + (10_000 << 32));
    first.wrapping_add(second) >> 32
}

/// The exponent's digits as a number that stops growing once it is beyond every float.
fn exponent(text: &[u8], mut at: usize) -> (i64, usize) {
    let mut power = 0_i64;
    while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        power = (power * 10 + i64::from(digit)).min(1 << 40);
        at += 1;
    }
    (power, at)
}

/// The token's value within three units in the last place, or `None` where that is not sure.
#[inline]
fn approximate(token: &Token) -> Option<f64> {
    if token.n_digits > MOST_DIGITS {
        return None;
    }
    let power = POWERS.get(usize::try_from(token.scale.unsigned_abs()).ok()?)?;
    let mantissa = token.mantissa as f64;
    let value = if token.scale < 0 { mantissa / power } else { mantissa * power };
    Some(if token.negative { -value } else { value })
}

/// The token as the nearest `f32`, or `None` where the approximation cannot tell which one is nearest.
///
/// An `f64` has 29 more bits than an `f32`. Rounding it to an `f32` goes wrong only if a midpoint between two `f32`s lies
/// between it and the true value, which is at most three steps away.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the range is checked, and rounding is the point")]
fn narrow(token: &Token) -> Option<f32> {
    const REST: u64 = (1 << 29) - 1;
    const MIDDLE: u64 = 1 << 28;
    let value = approximate(token)?;
    if token.mantissa == 0 {
        return Some(value as f32);
    }
    let is_normal = (1e-37..1e38).contains(&value.abs());
    let is_clear = (value.to_bits() & REST).abs_diff(MIDDLE) > 4;
    (is_normal && is_clear).then_some(value as f32)
}

/// The correctly rounded value of any well-formed number; [`Fault::Range`] where the type has none.
#[cold]
fn exact<T: fast_float2::FastFloat + Copy>(text: &[u8], is_finite: fn(T) -> bool) -> Result<T, Fault> {
    match fast_float2::parse::<T, _>(text) {
        Ok(value) if is_finite(value) => Ok(value),
        Ok(_) => Err(Fault::Range),
        Err(_) => Err(Fault::Number),
    }
}

/// The tokens that are no JSON; `fault` where none stands here. `values` are not-a-number and infinity.
#[cold]
fn special<T: std::ops::Neg<Output = T> + Copy>(
    cursor: &mut Cursor<'_>,
    fault: Fault,
    values: [T; 2],
) -> Result<T, Fault> {
    let [nan, infinity] = values;
    if cursor.literal("NaN") {
        Ok(nan)
    } else if cursor.literal("Infinity") || cursor.literal("Inf") {
        Ok(infinity)
    } else if cursor.literal("-Infinity") || cursor.literal("-Inf") {
        Ok(-infinity)
    } else {
        Err(fault)
    }
}

/// An integer token and where it ends. [`Fault::Type`] where the number has a fraction or an exponent.
#[inline]
fn integer(cursor: &Cursor<'_>) -> Result<(i128, usize), Fault> {
    let token = token(cursor.text, cursor.at)?;
    if !token.is_integer {
        return Err(Fault::Type);
    }
    let magnitude = if token.n_digits <= MOST_DIGITS {
        i128::from(token.mantissa)
    } else {
        let digits = &cursor.text[cursor.at + usize::from(token.negative)..token.end];
        let text = std::str::from_utf8(digits).map_err(|_| Fault::Number)?;
        text.parse().map_err(|_| Fault::Range)?
    };
    Ok((if token.negative { -magnitude } else { magnitude }, token.end))
}
