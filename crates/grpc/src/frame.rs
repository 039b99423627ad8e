//! Cuts a stream of bytes into gRPC's messages: a flag, four bytes of length, and so many bytes.
//!
//! No I/O, no clock. Nothing is set aside on the word of a length: room grows with what has arrived. A message that lies
//! within one piece of the stream is a slice of it; one that does not is copied once.

use bytes::{Buf, Bytes};

/// Bytes before each message.
pub(crate) const PREFIX: usize = 5;
/// Bytes set aside at once for a message that claims more; the rest is taken as it arrives.
const TRUSTED: usize = 1 << 20;

/// A whole message as it was sent.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Its bytes, compressed or not.
    pub(crate) bytes: Bytes,
    /// Whether they are compressed.
    pub(crate) is_packed: bool,
}

/// Why a stream is no sequence of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The flag is neither 0 nor 1.
    #[error("a message begins with {0}; expected 0 or 1")]
    Flag(u8),
    /// The length is over the limit.
    #[error("the message of {length} bytes is larger than the limit of {limit} bytes")]
    TooLarge { length: usize, limit: usize },
}

/// Puts messages together.
#[derive(Debug)]
pub(crate) struct Assembler {
    limit: usize,
    /// What has arrived and is not used yet.
    arrived: Bytes,
    prefix: [u8; PREFIX],
    n_prefix: usize,
    /// Of the message at work, once its prefix is whole: the flag and the length.
    claimed: Option<(bool, usize)>,
    /// The bytes of the message at work, where it came in pieces.
    gathered: Vec<u8>,
}

impl Assembler {
    /// Nothing yet. No message may be longer than `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        let (arrived, gathered) = (Bytes::new(), Vec::new());
        Self { limit, arrived, prefix: [0; PREFIX], n_prefix: 0, claimed: None, gathered }
    }

    /// Takes in the next bytes of the stream. [`next`](Self::next) must have given `None` before.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.arrived.is_empty(), "bytes would be lost");
        self.arrived = bytes;
    }

    /// The next whole message, or `None` where more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Whole>, FrameError> {
        let (is_packed, length) = match self.claimed {
            Some(claimed) => claimed,
            None => match self.read_prefix()? {
                Some(claimed) => claimed,
                None => return Ok(None),
            },
        };
        if self.gathered.is_empty() && self.arrived.len() >= length {
            let bytes = self.arrived.split_to(length);
            self.claimed = None;
            return Ok(Some(Whole { bytes, is_packed }));
        }
        let part = self.arrived.len().min(length - self.gathered.len());
        self.make_room(part, length);
        self.gathered.extend_from_slice(&self.arrived[..part]);
        self.arrived.advance(part);
        if self.gathered.len() < length {
            return Ok(None);
        }
        self.claimed = None;
        let bytes = Bytes::from(std::mem::take(&mut self.gathered));
        Ok(Some(Whole { bytes, is_packed }))
    }

    /// Whether a message has begun and is not whole.
    pub(crate) fn is_amid(&self) -> bool {
        self.n_prefix > 0 || self.claimed.is_some()
    }

    /// What is there of a message that is not whole, not packed, and at least `least` bytes long.
    pub(crate) fn start_of_long(&self, least: usize) -> Option<&[u8]> {
        self.claimed.filter(|(is_packed, length)| !is_packed && *length >= least).map(|_| &self.gathered[..])
    }

    /// Whether bytes are left that no message has used.
    pub(crate) fn has_more(&self) -> bool {
        !self.arrived.is_empty()
    }

    fn read_prefix(&mut self) -> Result<Option<(bool, usize)>, FrameError> {
        let part = self.arrived.len().min(PREFIX - self.n_prefix);
        self.arrived.copy_to_slice(&mut self.prefix[self.n_prefix..self.n_prefix + part]);
        self.n_prefix += part;
        if self.n_prefix < PREFIX {
            return Ok(None);
        }
        let [flag, length @ ..] = self.prefix;
        let is_packed = match flag {
            0 => false,
            1 => true,
            other => return Err(FrameError::Flag(other)),
        };
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(FrameError::TooLarge { length, limit: self.limit });
        }
        self.n_prefix = 0;
        self.claimed = Some((is_packed, length));
        Ok(self.claimed)
    }

    /// Room for `part` more of `length` bytes: all of it where that is little or much of it is there, else twice what is.
    fn make_room(&mut self, part: usize, length: usize) {
        let needed = self.gathered.len() + part;
        if needed > self.gathered.capacity() {
            let room = length.min(needed.saturating_mul(2).max(TRUSTED));
            self.gathered.reserve_exact(room - self.gathered.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Assembler, FrameError, TRUSTED};

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[flag], &length[..], message].concat()
    }

    fn read(limit: usize, pieces: impl IntoIterator<Item = Bytes>) -> Result<Vec<(bool, Bytes)>, FrameError> {
        let mut assembler = Assembler::new(limit);
        let mut messages = Vec::new();
        for piece in pieces {
            assembler.push(piece);
            while let Some(whole) = assembler.next()? {
                messages.push((whole.is_packed, whole.bytes));
            }
        }
        assert!(!assembler.is_amid());
        Ok(messages)
    }

    #[test]
    fn a_message_within_one_piece_is_a_slice_of_it() {
        let piece = Bytes::from(framed(0, b"hello"));
        let messages = read(5, [piece.clone()]).unwrap();
        assert_eq!(messages[0].1.as_ptr(), piece[5..].as_ptr());
    }

    #[test]
    fn a_length_alone_sets_nothing_aside() {
        let mut assembler = Assembler::new(1 << 30);
        assembler.push(Bytes::from_static(&[0, 0x3f, 0, 0, 0]));
        assert!(assembler.next().unwrap().is_none());
        assert_eq!(assembler.gathered.capacity(), 0);
        assembler.push(Bytes::from_static(&[1]));
        assert!(assembler.next().unwrap().is_none());
        assert!(assembler.gathered.capacity() <= TRUSTED);
    }

    #[test]
    fn a_message_in_pieces_is_gathered_in_one_buffer_of_its_size() {
        let message = vec![7; TRUSTED / 2];
        let mut assembler = Assembler::new(TRUSTED);
        let stream = Bytes::from(framed(0, &message));
        let (head, tail) = stream.split_at(1000);
        assembler.push(Bytes::copy_from_slice(head));
        assert!(assembler.next().unwrap().is_none());
        let (place, room) = (assembler.gathered.as_ptr(), assembler.gathered.capacity());
        assembler.push(Bytes::copy_from_slice(tail));
        let whole = assembler.next().unwrap().unwrap();
        assert_eq!((whole.bytes.as_ptr(), whole.bytes.len(), room), (place, message.len(), message.len()));
    }

    #[test]
    fn bad_flags_and_lengths_over_the_limit_are_errors_before_any_byte_of_the_message() {
        assert_eq!(read(9, [Bytes::from_static(&[2, 0, 0, 0, 0])]).unwrap_err(), FrameError::Flag(2));
        let huge = read(9, [Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])]).unwrap_err();
        assert_eq!(huge, FrameError::TooLarge { length: u32::MAX as usize, limit: 9 });
        assert!(read(5, [Bytes::from(framed(0, b"hello"))]).is_ok());
        assert!(read(4, [Bytes::from(framed(0, b"hello"))]).is_err());
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_its_messages_are_the_same(
            messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            sizes in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|(packed, bytes)| framed(u8::from(*packed), bytes)).collect();
            let mut pieces = Vec::new();
            let mut rest = Bytes::from(stream);
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                pieces.push(rest.split_to(rest.len().min(*size)));
            }
            let read = read(40, pieces).unwrap();
            let wanted: Vec<_> = messages.into_iter().map(|(packed, bytes)| (packed, Bytes::from(bytes))).collect();
            prop_assert_eq!(read, wanted);
        }
    }
}
