//! What engines are tried with: requests that an operator recorded, or invented ones, the same at every load.
//!
//! Invented data is varied, because engines that are wrong are often right on zeros. It stays small for networks, where
//! large values would blow rounding up into a difference, and is spread over magnitudes for trees, whose thresholds are
//! anywhere. Where an engine refuses it (a token beyond the vocabulary, a category that is not known), tamer data is
//! tried: see [`Fill`].
//!
//! Where requests of different lengths share a run, rows are of different lengths too: a mask says how much of each counts.

use half::{bf16, f16};
use millrace_core::{DType, Dim, Element, Signature, Tensor, TensorError, TensorList, TensorSpec};

use crate::runner::Trouble;

/// Inputs beyond this size are not worth inventing.
const LARGEST: usize = 64 << 20;
/// Different rows of a batch; larger batches repeat them.
pub(crate) const ROWS: usize = 8;
/// So many recorded rows are used.
const MOST_RECORDED: usize = 64;
/// Rows of a request whose rows depend on each other.
const TOGETHER: usize = 2;

/// How tame invented data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Numbers around zero, whole numbers below 64, short words.
    Varied,
    /// Numbers between 0 and 1, whole numbers 0 or 1.
    Small,
    Zeros,
    Ones,
}

impl Fill {
    /// In the order in which they are tried.
    pub(crate) const ALL: [Self; 4] = [Self::Varied, Self::Small, Self::Zeros, Self::Ones];
}

/// Over which magnitudes invented numbers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// About one: what networks are trained on.
    Narrow,
    /// From a tenth to ten thousand.
    Wide,
}

/// Requests to try a model with, all of one group.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    /// Of a batched model: one row each. Of any other: one request each.
    pool: Vec<TensorList>,
    is_batched: bool,
}

impl Data {
    /// Recorded requests, of those the group of the first; no more than [`MOST_RECORDED`] rows.
    pub(crate) fn recorded(signature: &Signature, requests: Vec<TensorList>) -> Option<Self> {
        let mut pool = Vec::new();
        let mut group = None;
        for inputs in requests {
            if pool.len() >= MOST_RECORDED {
                break;
            }
            let Ok(admission) = signature.check(&inputs) else { continue };
            if *group.get_or_insert_with(|| admission.group.clone()) != admission.group {
                continue;
            }
            if signature.is_batched() {
                let row = |row: usize| inputs.iter().map(|input| input.rows(row..row + 1)).collect();
                pool.extend((0..admission.rows.min(MOST_RECORDED - pool.len())).map(row));
            } else {
                pool.push(inputs);
            }
        }
        group.map(|_| Self { pool, is_batched: signature.is_batched() })
    }

    /// `count` invented requests, of one row where there are rows, with open axes of `size`. `None` where they would be
    /// too large or cannot be invented.
    fn invented(signature: &Signature, size: usize, fill: Fill, spread: Spread, count: usize) -> Option<Self> {
        let mut random = Random::default();
        let mut pool: Vec<TensorList> = Vec::new();
        for row in 0..count.max(1) {
            // The first is as long as it may be: it is what a single row is timed with.
            let real = if row == 0 || size == 0 { size } else { 1 + random.up_to(size - 1) };
            let kind = Kind { open: size, real: signature.is_mixed().then_some(real), fill, spread };
            let Some(next) = request(signature, kind, &mut random) else { break };
            pool.push(next);
        }
        signature.check(pool.first()?).ok()?;
        Some(Self { pool, is_batched: signature.is_batched() })
    }

    /// `count` invented requests whose open axes are the largest, up to what is usual, on which `attempt` is still quick;
    /// where it never is, the smallest on which it succeeds. What it then gave comes along.
    ///
    /// # Errors
    /// What the last attempt had to say, but that the data is to blame where it ever was; `None` without any attempt.
    pub(crate) fn grown<T>(
        signature: &Signature,
        fill: Fill,
        spread: Spread,
        count: usize,
        mut attempt: impl FnMut(&Self) -> Attempt<T>,
    ) -> Result<(Self, T), Option<Trouble>> {
        let Sizes { ascending, enough } = open_sizes(signature);
        let mut found = None;
        let mut trouble: Option<Trouble> = None;
        let mut attempt = |size: usize, trouble: &mut Option<Trouble>| {
            let data = Self::invented(signature, size, fill, spread, count)?;
            let Attempt { result, is_quick } = attempt(&data);
            match result {
                Ok(given) => Some((Some((data, given)), is_quick)),
                Err(other) => {
                    if !matches!(trouble, Some(Trouble::Invalid(_))) || matches!(other, Trouble::Invalid(_)) {
                        *trouble = Some(other);
                    }
                    Some((None, is_quick))
                }
            }
        };
        for &size in ascending {
            let Some((given, is_quick)) = attempt(size, &mut trouble) else { break };
            if given.is_some() && (is_quick || found.is_none()) {
                found = given;
            }
            // Larger ones take longer still, however this one ended.
            if !is_quick || (found.is_some() && size >= enough) {
                break;
            }
        }
        // Axes of one element prove little; some models take nothing else.
        if found.is_none()
            && !ascending.contains(&1)
            && let Some((given, _)) = attempt(1, &mut trouble)
        {
            found = given;
        }
        found.ok_or(trouble)
    }

    /// The inputs of a run of `rows` rows; of a model without rows, its first request. `None` where they would be too large.
    pub(crate) fn inputs(&self, rows: usize) -> Option<TensorList> {
        let first = self.pool.first()?;
        if !self.is_batched {
            return Some(first.clone());
        }
        let bytes: usize = first.iter().map(Tensor::n_bytes).sum();
        if bytes.checked_mul(rows)? > LARGEST {
            return None;
        }
        (0..first.len())
            .map(|input| {
                let rows: Vec<Tensor> = self.pool.iter().cycle().take(rows).map(|row| row[input].clone()).collect();
                Tensor::concat(&rows).ok()
            })
            .collect()
    }

    /// Each single row, or each request of a model without rows; at least one.
    pub(crate) fn all(&self) -> &[TensorList] {
        &self.pool
    }
}

/// What came of trying data.
pub(crate) struct Attempt<T> {
    pub(crate) result: Result<T, Trouble>,
    /// Whether more may be asked.
    pub(crate) is_quick: bool,
}

/// Sizes to try for axes that are open.
struct Sizes {
    /// No step makes a picture more than four times as large, so that none takes by surprise.
    ascending: &'static [usize],
    /// Once this runs, nothing larger is tried: it would tell no more.
    enough: usize,
}

/// Pictures are large, sequences are not.
fn open_sizes(signature: &Signature) -> Sizes {
    let leading = leading(signature);
    let open = |spec: &TensorSpec| {
        let own = spec.shape.iter().enumerate().filter(|(axis, _)| spec.batch_axis != Some(*axis));
        own.filter(|(axis, dim)| matches!(dim, Dim::Symbol(_)) && !(leading && *axis == 0)).count()
    };
    match signature.inputs().iter().map(open).max() {
        None | Some(0) => Sizes { ascending: &[1], enough: 1 },
        Some(1) => Sizes { ascending: &[8, 32, 128, 224], enough: 32 },
        Some(_) => Sizes { ascending: &[8, 16, 32, 64, 128, 224], enough: 224 },
    }
}

/// Whether the first axis of every input is open and holds rows that merely are not independent of one another: then it
/// grows with no other axis.
fn leading(signature: &Signature) -> bool {
    let stands_inside = |name: &str| {
        let inner = signature.inputs().iter().flat_map(|spec| spec.shape.iter().skip(1));
        inner.into_iter().any(|dim| matches!(dim, Dim::Symbol(symbol) if **symbol == *name))
    };
    let leads = |spec: &TensorSpec| matches!(spec.shape.first(), Some(Dim::Symbol(name)) if !stands_inside(name));
    !signature.is_batched() && signature.inputs().iter().all(leads)
}

/// What a request is to be like.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// The size of open axes.
    open: usize,
    /// Where rows are of different lengths, that of this one: the rest of it is masked.
    real: Option<usize>,
    fill: Fill,
    spread: Spread,
}

/// One request: one row where there are rows.
fn request(signature: &Signature, kind: Kind, random: &mut Random) -> Option<TensorList> {
    let mut left = LARGEST;
    let leading = leading(signature);
    let mut inputs = TensorList::new();
    for spec in signature.inputs() {
        let size = |(axis, dim): (usize, &Dim)| match dim {
            _ if spec.batch_axis == Some(axis) => Some(1),
            Dim::Fixed(size) => Some(*size),
            Dim::Symbol(_) if leading && axis == 0 => Some(TOGETHER),
            Dim::Symbol(_) => Some(kind.open),
            Dim::Expr(_) | Dim::Unknown => None,
        };
        let sizes: Vec<usize> = spec.shape.iter().enumerate().map(size).collect::<Option<_>>()?;
        let elements = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
        left = left.checked_sub(elements.checked_mul(spec.dtype.size().unwrap_or(16))?)?;
        let made = match kind.real {
            Some(real) if is_mask(spec) && spec.dtype == DType::Int64 => mask(&sizes, elements, real),
            _ => tensor(spec, &sizes, elements, kind, random)?,
        };
        inputs.push(made.ok()?);
    }
    Some(inputs)
}

/// One input. `None` for a dtype that cannot be invented.
fn tensor(
    spec: &TensorSpec,
    sizes: &[usize],
    elements: usize,
    Kind { real, fill, spread, .. }: Kind,
    random: &mut Random,
) -> Option<Result<Tensor, TensorError>> {
    const WORDS: [&str; 8] = ["a", "b", "c", "yes", "no", "0", "1", "x y"];
    let whole = |random: &mut Random| match fill {
        Fill::Zeros => 0_u8,
        Fill::Ones => 1,
        Fill::Small => u8::from(random.coin()),
        Fill::Varied if real.is_some() && !is_type(spec) => FIRST_WORD + random.below(64 - FIRST_WORD),
        Fill::Varied => whole(spec, sizes.len(), random),
    };
    let number = |random: &mut Random| match fill {
        Fill::Zeros => 0.0,
        Fill::Ones => 1.0,
        Fill::Small => random.fraction(),
        Fill::Varied => random.number(spread),
    };
    macro_rules! made {
        ($type:ty, $value:expr, $convert:expr) => {
            vector::<$type>(sizes, (0..elements).map(|_| $convert($value(random))).collect())
        };
    }
    Some(match spec.dtype {
        DType::Bool => made!(bool, whole, |value| value % 2 == 1),
        DType::Uint8 => made!(u8, whole, |value| value),
        DType::Uint16 => made!(u16, whole, u16::from),
        DType::Uint32 => made!(u32, whole, u32::from),
        DType::Uint64 => made!(u64, whole, u64::from),
        DType::Int8 => made!(i8, whole, |value: u8| i8::try_from(value % 64).unwrap_or_default()),
        DType::Int16 => made!(i16, whole, i16::from),
        DType::Int32 => made!(i32, whole, i32::from),
        DType::Int64 => made!(i64, whole, i64::from),
        DType::Fp16 => made!(f16, number, f16::from_f32),
        DType::Bf16 => made!(bf16, number, bf16::from_f32),
        DType::Fp32 => made!(f32, number, |value| value),
        DType::Fp64 => made!(f64, number, f64::from),
        DType::Bytes => {
            let word = |random: &mut Random| match fill {
                Fill::Zeros => "",
                Fill::Ones => "1",
                Fill::Small => ["0", "1"][usize::from(random.coin())],
                Fill::Varied => WORDS[usize::from(random.below(8))],
            };
            Tensor::from_strings(sizes, (0..elements).map(|_| word(random)).collect())
        }
    })
}

fn vector<T: Element>(sizes: &[usize], elements: Vec<T>) -> Result<Tensor, TensorError> {
    Tensor::from_vec(sizes, elements)
}

/// The first ids of a vocabulary are marks for the beginning, the end and what is no text at all, which some networks treat
/// apart.
const FIRST_WORD: u8 = 4;

fn is_mask(spec: &TensorSpec) -> bool {
    spec.name.to_ascii_lowercase().contains("mask")
}

fn is_type(spec: &TensorSpec) -> bool {
    let name = spec.name.to_ascii_lowercase();
    name.contains("type") || name.contains("segment")
}

/// Ones for the first `real` of the last axis.
fn mask(sizes: &[usize], elements: usize, real: usize) -> Result<Tensor, TensorError> {
    let width = sizes.last().copied().unwrap_or(1).max(1);
    Tensor::from_vec(sizes, (0..elements).map(|index| i64::from(index % width < real)).collect())
}

/// A whole number that most models take: a pixel, a token, a mark. A mask of which nothing is masked changes nothing but
/// what a model does with it.
fn whole(spec: &TensorSpec, rank: usize, random: &mut Random) -> u8 {
    if is_mask(spec) {
        1
    } else if is_type(spec) {
        u8::from(random.coin())
    } else if rank >= 3 && spec.dtype == DType::Uint8 {
        random.below(255)
    } else {
        random.below(64)
    }
}

/// Values without a pattern, the same at every load.
#[derive(Debug)]
struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// Marsaglia's xorshift: what is wanted is variety, not secrecy.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// Below `end`.
    fn below(&mut self, end: u8) -> u8 {
        u8::try_from((self.next() >> 32) % u64::from(end)).unwrap_or_default()
    }

    /// At most `last`.
    fn up_to(&mut self, last: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap_or_default() % last.saturating_add(1)
    }

    /// From zero to below one.
    fn fraction(&mut self) -> f32 {
        let high = u16::try_from(self.next() >> 48).unwrap_or_default();
        f32::from(high) / 65_536.0
    }

    fn number(&mut self, spread: Spread) -> f32 {
        // Three add up to something like a bell, between -3 and 3.
        let bell = 2.0 * (self.fraction() + self.fraction() + self.fraction()) - 3.0;
        match spread {
            Spread::Narrow => bell,
            Spread::Wide => bell * 10_f32.powi(i32::from(self.below(6)) - 1),
        }
    }
}

#[cfg(test)]
mod tests;
