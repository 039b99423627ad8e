//! gRPC's message codings: which there are, and packing and unpacking within a limit.

use std::io::{self, Read, Write as _};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

/// How messages may be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// gzip.
    Gzip,
    /// What gRPC and HTTP call deflate: zlib's format.
    Deflate,
}

/// Every coding's name, as a server lists what it accepts.
pub(crate) const ACCEPTED: &str = "identity,deflate,gzip";

/// What unpacking gave.
#[derive(Debug)]
pub(crate) enum Unpacked {
    /// The message.
    Bytes(Vec<u8>),
    /// More bytes than allowed.
    TooLarge,
    /// No stream of that coding, or a cut one.
    Broken,
}

impl Coding {
    /// The coding called `name`.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        match name {
            b"gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// The name on the wire.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Unpacks `bytes` to no more than `limit`.
    pub(crate) fn unpack(self, bytes: &[u8], limit: usize) -> Unpacked {
        // One byte more than allowed, so that too much can be told from just enough.
        let most = (limit as u64).saturating_add(1);
        let mut unpacked = Vec::new();
        let read = match self {
            Self::Gzip => GzDecoder::new(bytes).take(most).read_to_end(&mut unpacked),
            Self::Deflate => ZlibDecoder::new(bytes).take(most).read_to_end(&mut unpacked),
        };
        match read {
            Ok(_) if unpacked.len() > limit => Unpacked::TooLarge,
            Ok(_) => Unpacked::Bytes(unpacked),
            Err(_) => Unpacked::Broken,
        }
    }

    /// Packs the concatenation of `parts`.
    pub(crate) fn pack<'a>(self, parts: impl IntoIterator<Item = &'a [u8]>) -> io::Result<Vec<u8>> {
        // Tensors hardly get smaller for more effort.
        let level = Compression::fast();
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                parts.into_iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                parts.into_iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Coding, Unpacked};

    #[test]
    fn what_is_packed_unpacks_up_to_the_limit() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = coding.pack([&b"half "[..], &[b'x'; 1000][..]]).unwrap();
            assert!(packed.len() < 100);
            assert!(matches!(coding.unpack(&packed, 1005), Unpacked::Bytes(bytes) if bytes.len() == 1005));
            assert!(matches!(coding.unpack(&packed, 1004), Unpacked::TooLarge));
            assert!(matches!(coding.unpack(&packed[..packed.len() / 2], 1005), Unpacked::Broken));
            assert!(matches!(coding.unpack(b"no such thing", 1005), Unpacked::Broken));
            assert_eq!(Coding::parse(coding.name().as_bytes()), Some(coding));
        }
    }
}
