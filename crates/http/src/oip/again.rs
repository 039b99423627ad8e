//! Documents that come again. A client that sends its tensors in binary form writes one and the same document for every
//! request of a shape, so each thread keeps the last few with what they said: such a document is compared and not read.
//!
//! What may differ from one request to the next, the tensors' bytes, is not in the document. Documents with elements in
//! them or with an identifier are not kept, for they hardly ever come again.

use std::cell::RefCell;

use millrace_core::{Shape, Signature};
use millrace_protocol::oip::{OutputPlan, Parameters};
use smallvec::SmallVec;

/// How many documents each thread keeps.
const KEPT: usize = 8;
/// Bytes. Longer documents are read every time.
const LONGEST: usize = 1024;

/// Inputs in binary form, in the order of their document.
pub(super) type BinaryInputs = SmallVec<[BinaryInput; 1]>;

/// What a document said, all of whose inputs are in binary form.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) inputs: BinaryInputs,
    pub(super) parameters: Parameters,
    pub(super) plan: OutputPlan,
}

/// An input whose elements follow the document.
#[derive(Debug, Clone)]
pub(super) struct BinaryInput {
    /// Its position in the signature.
    pub(super) index: usize,
    pub(super) shape: Shape,
    /// Bytes.
    pub(super) size: u64,
}

/// All that decides what a document says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) document: &'a [u8],
    pub(super) max_depth: usize,
    pub(super) signature: &'a Signature,
}

struct Known {
    document: Box<[u8]>,
    max_depth: usize,
    signature: Signature,
    said: Said,
}

#[derive(Default)]
struct Memory {
    known: Vec<Known>,
    /// Which one goes next, once there are as many as may be.
    oldest: usize,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// What `words` said when this thread last read them, if it still knows.
pub(super) fn recall<T>(words: Words<'_>, take: impl FnOnce(&Said) -> T) -> Option<T> {
    if words.document.len() > LONGEST {
        return None;
    }
    MEMORY.with_borrow(|memory| {
        let is_same = |known: &&Known| {
            *known.document == *words.document
                && known.max_depth == words.max_depth
                && known.signature == *words.signature
        };
        memory.known.iter().find(is_same).map(|known| take(&known.said))
    })
}

/// Keeps what `words` said.
pub(super) fn keep(words: Words<'_>, said: Said) {
    if words.document.len() > LONGEST {
        return;
    }
    let (document, signature) = (words.document.into(), words.signature.clone());
    let known = Known { document, max_depth: words.max_depth, signature, said };
    MEMORY.with_borrow_mut(|memory| {
        if memory.known.len() < KEPT {
            memory.known.push(known);
        } else {
            memory.known[memory.oldest] = known;
            memory.oldest = (memory.oldest + 1) % KEPT;
        }
    });
}
