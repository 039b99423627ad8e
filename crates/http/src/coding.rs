//! Content codings: unpacks request bodies within a bound and packs answers.

use std::error::Error;
use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderValue;
use millrace_core::{Quoted, Reason, Refusal};

/// Bytes unpacked before more room is taken: a bomb is small, and so is most of what is honest.
const FIRST_ROOM: usize = 64 * 1024;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Not at all.
    Identity,
    /// `gzip`.
    Gzip,
    /// `deflate`, which means zlib's wrapping.
    Deflate,
}

impl Coding {
    /// The coding that a request's `content-encoding` names.
    ///
    /// # Errors
    /// A [`Refusal`] for any other than `gzip`, `deflate` and `identity`, and for several at once.
    pub(crate) fn of_request(header: Option<&HeaderValue>) -> Result<Self, Refusal> {
        let Some(header) = header else { return Ok(Self::Identity) };
        let text = String::from_utf8_lossy(header.as_bytes());
        match text.trim() {
            name if name.is_empty() || name.eq_ignore_ascii_case("identity") => Ok(Self::Identity),
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => Ok(Self::Gzip),
            name if name.eq_ignore_ascii_case("deflate") => Ok(Self::Deflate),
            name => {
                let text = format!("content-encoding: expected gzip, deflate or identity, got {}", Quoted(name));
                Err(Refusal::new(Reason::InvalidInput, text))
            }
        }
    }

    /// The name in headers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Unpacks `packed`, up to `limit` bytes.
    ///
    /// # Errors
    /// A [`Refusal`]: `TooLarge`, or `InvalidInput` where it is damaged, cut or in another coding.
    pub(crate) fn unpack(self, packed: &[u8], limit: u64) -> Result<Bytes, Refusal> {
        match self {
            Self::Identity => Ok(Bytes::copy_from_slice(packed)),
            Self::Gzip => self.read(MultiGzDecoder::new(packed), limit),
            Self::Deflate => self.read(ZlibDecoder::new(packed), limit),
        }
    }

    fn read(self, packed: impl Read, limit: u64) -> Result<Bytes, Refusal> {
        let mut unpacked = Vec::with_capacity(FIRST_ROOM.min(usize::try_from(limit).unwrap_or(FIRST_ROOM)));
        match packed.take(limit.saturating_add(1)).read_to_end(&mut unpacked) {
            Ok(_) if unpacked.len() as u64 > limit => {
                let text = format!("the decompressed request body is larger than the limit of {limit} bytes");
                Err(Refusal::new(Reason::TooLarge, text))
            }
            Ok(_) => Ok(Bytes::from(unpacked)),
            Err(_) => {
                // TensorFlow Serving goes on with an empty body; so its words, and the truth after them.
                let text =
                    format!("JSON Parse error: The document is empty: the {} body is damaged or cut", self.name());
                Err(Refusal::new(Reason::InvalidInput, text))
            }
        }
    }

    /// Packs `bytes` fast rather than small: it happens while somebody waits.
    ///
    /// # Errors
    /// Never in practice: the target is memory.
    pub(crate) fn pack(self, bytes: &[u8]) -> Result<Bytes, Refusal> {
        let room = Vec::with_capacity(bytes.len() / 2);
        let packed = match self {
            Self::Identity => return Ok(Bytes::copy_from_slice(bytes)),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(room, Compression::fast());
                encoder.write_all(bytes).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(room, Compression::fast());
                encoder.write_all(bytes).and_then(|()| encoder.finish())
            }
        };
        packed.map(Bytes::from).map_err(|error| {
            let cause: Box<dyn Error + Send + Sync> = error.into();
            Refusal::new(Reason::BackendBroken, "the answer could not be compressed").with_cause(cause)
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_core::Reason;

    use super::Coding;

    const BOTH: [Coding; 2] = [Coding::Gzip, Coding::Deflate];

    #[test]
    fn what_is_packed_unpacks_to_itself() {
        for coding in BOTH {
            for content in [&b""[..], b"a", &[7; 300_000]] {
                let packed = coding.pack(content).unwrap();
                assert_eq!(coding.unpack(&packed, 300_000).unwrap(), Bytes::copy_from_slice(content));
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        for coding in BOTH {
            let packed = coding.pack(&vec![0; 20_000_000]).unwrap();
            assert!(packed.len() < 200_000);
            assert_eq!(coding.unpack(&packed, 1_000_000).unwrap_err().reason(), Reason::TooLarge);
            let small = coding.pack(&[0; 1000]).unwrap();
            assert_eq!(coding.unpack(&small, 999).unwrap_err().reason(), Reason::TooLarge);
        }
    }

    #[test]
    fn damaged_and_cut_bodies_are_broken() {
        for coding in BOTH {
            let packed = coding.pack(b"some content that is long enough").unwrap();
            let mut flipped = packed.to_vec();
            flipped[packed.len() / 2] ^= 0xff;
            for bad in [&packed[..packed.len() - 1], &packed[..5], b"{\"instances\": [1]}", &flipped] {
                assert_eq!(coding.unpack(bad, 1000).unwrap_err().reason(), Reason::InvalidInput);
            }
        }
    }
}
