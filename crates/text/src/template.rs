//! Which special tokens a tokenizer puts around texts.
//!
//! The library does this with processors of several kinds that work on whole encodings. They are asked once, at load, about
//! marks in place of tokens; after that, putting the special tokens around is copying numbers.

use tokenizers::{Encoding, Tokenizer};

use crate::guard::{LibraryError, guarded};

/// The special tokens around one text and around two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) single: Around,
    /// `None` where the tokenizer does not know what to do with two texts.
    pub(crate) pair: Option<Around>,
}

/// What stands before, between and behind, each token with its type, and the types of the texts' own tokens. Around one text
/// nothing stands between, and the second type is without meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Around {
    pub(crate) before: Vec<(u32, u32)>,
    pub(crate) between: Vec<(u32, u32)>,
    pub(crate) behind: Vec<(u32, u32)>,
    pub(crate) types: (u32, u32),
}

impl Around {
    /// How many special tokens there are.
    pub(crate) fn n_tokens(&self) -> usize {
        self.before.len() + self.between.len() + self.behind.len()
    }
}

/// Two tokens stand for a text, so that a processor that takes them apart is noticed.
const FIRST: [u32; 2] = [u32::MAX, u32::MAX - 1];
const SECOND: [u32; 2] = [u32::MAX - 2, u32::MAX - 3];

impl Template {
    /// What `library` does.
    ///
    /// # Errors
    /// The library's, and processors that do something else than to put tokens around.
    pub(crate) fn of(library: &Tokenizer) -> Result<Self, LibraryError> {
        let single = guarded(|| library.post_process(marks(FIRST, 0), None, true))?;
        let single = around(&single, false).ok_or_else(|| {
            let text = "its post_processor does not put tokens around a text, which is all that is supported";
            LibraryError::Said(text.to_owned())
        })?;
        let pair = guarded(|| library.post_process(marks(FIRST, 0), Some(marks(SECOND, 1)), true));
        Ok(Self { single, pair: pair.ok().and_then(|pair| around(&pair, true)) })
    }
}

fn marks(ids: [u32; 2], kind: u32) -> Encoding {
    let n = ids.len();
    let tokens = vec!["x".to_owned(); n];
    let (offsets, words) = (vec![(0, 1); n], vec![Some(0); n]);
    Encoding::new(
        ids.to_vec(),
        vec![kind; n],
        tokens,
        words,
        offsets,
        vec![0; n],
        vec![1; n],
        Vec::new(),
        Default::default(),
    )
}

/// What stands around the marks in `encoding`: each text's once, the first before the second, and nothing inside.
fn around(encoding: &Encoding, is_pair: bool) -> Option<Around> {
    let all: Vec<(u32, u32)> =
        encoding.get_ids().iter().copied().zip(encoding.get_type_ids().iter().copied()).collect();
    let place = |marks: [u32; 2]| {
        let at = all.iter().position(|(id, _)| *id == marks[0])?;
        let (one, two) = (all[at], *all.get(at + 1)?);
        (two.0 == marks[1] && one.1 == two.1).then_some((at, one.1))
    };
    let (first, first_type) = place(FIRST)?;
    let (second, second_type) = if is_pair { place(SECOND)? } else { (first, first_type) };
    let end = second + 2;
    if second < first {
        return None;
    }
    let found = Around {
        before: all[..first].to_vec(),
        between: if is_pair { all.get(first + 2..second)?.to_vec() } else { Vec::new() },
        behind: all[end..].to_vec(),
        types: (first_type, second_type),
    };
    let is_mark = |(id, _): &(u32, u32)| *id >= SECOND[1];
    let special = found.before.iter().chain(&found.between).chain(&found.behind);
    (!special.into_iter().any(is_mark)).then_some(found)
}
