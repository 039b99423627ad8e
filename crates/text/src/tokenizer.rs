//! The library `tokenizers` behind the few calls that are needed of it, with its panics contained.

use std::fmt;

use millrace_core::{LoadError, LoadErrorKind, Token};
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};

use crate::folder::TOKENIZER;
use crate::guard::{LibraryError, guarded};
use crate::template::Template;

/// The largest `tokenizer.json` that is read; those of 250 000 tokens have 20 MB.
const MAX_BYTES: u64 = 256 << 20;
/// Bytes that the library takes for each byte of the file, about: each token as text, in two tables, and the tree of JSON.
const BYTES_PER_BYTE: u64 = 8;

/// A loaded `tokenizer.json`. What it says about lengths (truncation, padding) is not used: a model has its own limits, and
/// padding is decided where batches are made.
pub(crate) struct Tokenizer {
    library: tokenizers::Tokenizer,
    pub(crate) template: Template,
    /// One more than the largest id.
    pub(crate) size: usize,
    /// The padding token's id, as far as the file says it.
    pub(crate) pad: Option<u32>,
}

impl Tokenizer {
    /// Reads the content of a `tokenizer.json`; `is_lower_cased` puts texts into lower case first, whatever the file says.
    ///
    /// # Errors
    /// [`LoadError`] for a file that is too large, no tokenizer, or one that cannot be used here.
    pub(crate) fn load(bytes: &[u8], is_lower_cased: bool, memory_budget: u64) -> Result<Self, LoadError> {
        let wrong = |error: LibraryError| {
            let kind = match error {
                LibraryError::Said(_) => LoadErrorKind::Invalid,
                LibraryError::Panicked(_) => LoadErrorKind::Engine,
            };
            LoadError::new(kind, format!("{TOKENIZER}: {error}")).with_cause(error)
        };
        check_size(bytes.len() as u64, memory_budget)?;
        let mut library = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(wrong)?;
        let pad = library.get_padding().map(|padding| padding.pad_id);
        guarded(|| {
            library.with_padding(None);
            library.with_truncation(None)?;
            if is_lower_cased {
                let own = library.get_normalizer().cloned();
                let all = [Some(NormalizerWrapper::Lowercase(Lowercase)), own].into_iter().flatten().collect();
                library.with_normalizer(Some(Sequence::new(all)))?;
            }
            Ok(())
        })
        .map_err(wrong)?;
        let template = Template::of(&library).map_err(wrong)?;
        let size = guarded(|| Ok(library.get_vocab(true).values().max().map_or(0, |largest| *largest as usize + 1)));
        let size = size.map_err(wrong)?;
        let pad = pad.or_else(|| ["[PAD]", "<pad>"].iter().find_map(|name| library.token_to_id(name)));
        Ok(Self { library, template, size, pad })
    }

    /// The ids of the tokens of `text`, without special tokens around.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<u32>, LibraryError> {
        let encoding = guarded(|| self.library.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of `text` with their places.
    pub(crate) fn tokens(&self, text: &str, special_tokens: bool) -> Result<Vec<Token>, LibraryError> {
        let encoding = guarded(|| self.library.encode(text, special_tokens))?;
        let (ids, marks) = (encoding.get_ids(), encoding.get_special_tokens_mask());
        let (pieces, spans) = (encoding.get_tokens(), encoding.get_offsets());
        let token = |index: usize| {
            let is_special = marks[index] == 1;
            let span = (!is_special).then_some(spans[index]);
            Token { id: ids[index], text: pieces[index].clone(), is_special, span }
        };
        let n = ids.len().min(marks.len()).min(pieces.len()).min(spans.len());
        Ok((0..n).map(token).collect())
    }

    /// The text of `ids`.
    pub(crate) fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, LibraryError> {
        guarded(|| self.library.decode(ids, skip_special_tokens))
    }

    /// Whether some token has this id.
    pub(crate) fn knows(&self, id: u32) -> bool {
        self.library.id_to_token(id).is_some()
    }
}

/// Refuses a `tokenizer.json` by its size, before it is read.
pub(crate) fn check_size(bytes: u64, memory_budget: u64) -> Result<(), LoadError> {
    if bytes > MAX_BYTES {
        let text = format!("{TOKENIZER} has {bytes} bytes; at most {MAX_BYTES} are read");
        return Err(LoadError::new(LoadErrorKind::TooLarge, text));
    }
    let needed = bytes.saturating_mul(BYTES_PER_BYTE);
    if needed > memory_budget {
        let text = format!("{TOKENIZER}: its tables take about {needed} bytes, and {memory_budget} may be taken");
        return Err(LoadError::new(LoadErrorKind::TooLarge, text));
    }
    Ok(())
}

/// Shows sizes, never the vocabulary.
impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("size", &self.size).field("template", &self.template).finish_non_exhaustive()
    }
}
