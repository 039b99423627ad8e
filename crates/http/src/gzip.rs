//! Gunzips request bodies within a bound and gzips answers.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Bytes unpacked before more room is taken: a bomb is small, and so is most of what is honest.
const FIRST_ROOM: usize = 64 * 1024;

/// What a gzipped body holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unpacked {
    /// This.
    Bytes(Bytes),
    /// More than the limit.
    TooLarge,
    /// No gzip, or damaged or cut gzip.
    Broken,
}

/// Unpacks `packed`, up to `limit` bytes.
pub(crate) fn gunzip(packed: &[u8], limit: u64) -> Unpacked {
    let mut unpacked = Vec::with_capacity(FIRST_ROOM.min(usize::try_from(limit).unwrap_or(FIRST_ROOM)));
    match MultiGzDecoder::new(packed).take(limit.saturating_add(1)).read_to_end(&mut unpacked) {
        Ok(_) if unpacked.len() as u64 > limit => Unpacked::TooLarge,
        Ok(_) => Unpacked::Bytes(Bytes::from(unpacked)),
        Err(_) => Unpacked::Broken,
    }
}

/// Packs `bytes` fast rather than small: it happens while somebody waits.
///
/// # Errors
/// Never in practice: the target is memory.
pub(crate) fn gzip(bytes: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Unpacked, gunzip, gzip};

    #[test]
    fn what_is_packed_unpacks_to_itself() {
        for content in [&b""[..], b"a", &[7; 300_000]] {
            assert_eq!(gunzip(&gzip(content).unwrap(), 300_000), Unpacked::Bytes(Bytes::copy_from_slice(content)));
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let packed = gzip(&vec![0; 20_000_000]).unwrap();
        assert!(packed.len() < 200_000);
        assert_eq!(gunzip(&packed, 1_000_000), Unpacked::TooLarge);
        assert_eq!(gunzip(&gzip(&[0; 1000]).unwrap(), 999), Unpacked::TooLarge);
    }

    #[test]
    fn damaged_and_cut_gzip_is_broken() {
        let packed = gzip(b"some content that is long enough").unwrap();
        assert_eq!(gunzip(&packed[..packed.len() - 1], 1000), Unpacked::Broken);
        assert_eq!(gunzip(&packed[..5], 1000), Unpacked::Broken);
        assert_eq!(gunzip(b"{\"instances\": [1]}", 1000), Unpacked::Broken);
        let mut flipped = packed.to_vec();
        flipped[15] ^= 0xff;
        assert_eq!(gunzip(&flipped, 1000), Unpacked::Broken);
    }
}
