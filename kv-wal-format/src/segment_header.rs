//! The 40-byte header at the start of every segment.

use std::fmt;

use crate::error::HeaderError;
use crate::layout::{self, FORMAT_VERSION, SEGMENT_HEADER_LEN};

/// The first eight bytes of every segment.
pub const MAGIC: [u8; 8] = *b"KVSEGMNT";

// Offsets of the fields. FORMAT.md has the same table, and a test compares the two.
const MAGIC_AT: usize = 0;
const VERSION: usize = 8;
const HEADER_LEN: usize = 10;
const KIND: usize = 12;
const RESERVED: usize = 13;
const SEGMENT_ID: usize = 16;
const BASE_LSN: usize = 24;
const STORE_ID: usize = 32;
const HEADER_CRC: usize = 36;
const _: () = assert!(HEADER_CRC + size_of::<u32>() == SEGMENT_HEADER_LEN);

#[expect(clippy::cast_possible_truncation, reason = "40 fits")]
const HEADER_LEN_FIELD: u16 = SEGMENT_HEADER_LEN as u16;

/// The purpose of a segment. The numbers are the bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// Changes in the order in which they happened.
    Log = 1,
    /// Survivors of other segments, each with the LSN it had there.
    Compacted = 2,
    /// The list of the segments of a store.
    Manifest = 3,
    /// A whole table at one point in time.
    Snapshot = 4,
    /// The identity of a store. `base_lsn` is the ceiling of its reserved LSNs.
    Identity = 5,
    /// The index of a store at one point in time. `base_lsn` is the LSN behind which replay begins.
    Checkpoint = 6,
}

impl SegmentKind {
    /// The kind that this byte stands for on disk.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Log),
            2 => Some(Self::Compacted),
            3 => Some(Self::Manifest),
            4 => Some(Self::Snapshot),
            5 => Some(Self::Identity),
            6 => Some(Self::Checkpoint),
            _ => None,
        }
    }

    /// The byte that stands for this kind on disk.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for SegmentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::Compacted => "compacted",
            Self::Manifest => "manifest",
            Self::Snapshot => "snapshot",
            Self::Identity => "identity",
            Self::Checkpoint => "checkpoint",
        })
    }
}

/// The fields of a segment header that its record headers depend on.
///
/// The checksum of a record header covers the id, and a small one holds the distance of its LSN
/// from the base LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// As [`SegmentHeader::segment_id`].
    pub segment_id: u64,
    /// As [`SegmentHeader::base_lsn`].
    pub base_lsn: u64,
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentHeader {
    /// The purpose of the segment.
    pub kind: SegmentKind,
    /// Identity of the segment, never used twice in a store. Every record's checksum depends on it.
    pub segment_id: u64,
    /// Record headers hold the distances of their LSNs from this one. In a log segment: the last
    /// LSN that the writer knew when it created the segment. No record in the segment has a lower
    /// one.
    pub base_lsn: u64,
    /// Identity of the store, drawn at its creation. It is the same in all segments of the store,
    /// so a reader detects a segment of another store. 0 when stores have no identities.
    pub store_id: u32,
}

impl SegmentHeader {
    /// The fields that record headers depend on.
    #[inline]
    pub const fn origin(&self) -> Origin {
        Origin { segment_id: self.segment_id, base_lsn: self.base_lsn }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        layout::write::<MAGIC_AT, _, _>(&mut bytes, MAGIC);
        layout::write::<VERSION, _, _>(&mut bytes, FORMAT_VERSION.to_le_bytes());
        layout::write::<HEADER_LEN, _, _>(&mut bytes, HEADER_LEN_FIELD.to_le_bytes());
        layout::write::<KIND, _, _>(&mut bytes, self.kind.to_byte().to_le_bytes());
        layout::write::<SEGMENT_ID, _, _>(&mut bytes, self.segment_id.to_le_bytes());
        layout::write::<BASE_LSN, _, _>(&mut bytes, self.base_lsn.to_le_bytes());
        layout::write::<STORE_ID, _, _>(&mut bytes, self.store_id.to_le_bytes());
        let checksum = checksum(&bytes);
        layout::write::<HEADER_CRC, _, _>(&mut bytes, checksum.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`, and ignores the bytes after it.
    ///
    /// It checks magic and version before the checksum, because another version may compute the
    /// checksum in another way.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] says why the bytes are no valid header.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let too_short = HeaderError::TooShort { found: bytes.len() };
        let start = bytes.get(..SEGMENT_HEADER_LEN).unwrap_or(bytes);
        if !start.is_empty() && start.iter().all(|&byte| byte == 0) {
            return Err(HeaderError::Blank);
        }
        let (magic, rest) = start.split_first_chunk().ok_or(too_short)?;
        if *magic != MAGIC {
            return Err(HeaderError::BadMagic);
        }
        let found = u16::from_le_bytes(*rest.first_chunk().ok_or(too_short)?);
        if found != FORMAT_VERSION {
            return Err(HeaderError::UnsupportedVersion { found, supported: FORMAT_VERSION });
        }
        decode_current(start.first_chunk().ok_or(too_short)?)
    }
}

/// Reads a header whose magic and version are already checked.
fn decode_current(bytes: &[u8; SEGMENT_HEADER_LEN]) -> Result<SegmentHeader, HeaderError> {
    if u32::from_le_bytes(layout::read::<HEADER_CRC, _, _>(bytes)) != checksum(bytes) {
        return Err(HeaderError::BadChecksum);
    }
    let found = u16::from_le_bytes(layout::read::<HEADER_LEN, _, _>(bytes));
    if found != HEADER_LEN_FIELD {
        return Err(HeaderError::BadLength { found });
    }
    let kind = u8::from_le_bytes(layout::read::<KIND, _, _>(bytes));
    let kind = SegmentKind::from_byte(kind).ok_or(HeaderError::UnknownKind(kind))?;
    let reserved: [u8; 3] = layout::read::<RESERVED, _, _>(bytes);
    if reserved != [0; 3] {
        return Err(HeaderError::ReservedNotZero);
    }
    Ok(SegmentHeader {
        kind,
        segment_id: u64::from_le_bytes(layout::read::<SEGMENT_ID, _, _>(bytes)),
        base_lsn: u64::from_le_bytes(layout::read::<BASE_LSN, _, _>(bytes)),
        store_id: u32::from_le_bytes(layout::read::<STORE_ID, _, _>(bytes)),
    })
}

fn checksum(bytes: &[u8; SEGMENT_HEADER_LEN]) -> u32 {
    let covered: [u8; HEADER_CRC] = layout::read::<0, _, _>(bytes);
    crc32c::crc32c(&covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader =
        SegmentHeader { kind: SegmentKind::Compacted, segment_id: 0x0102, base_lsn: 0x0304, store_id: 5 };

    /// The header with other bytes at `at`, and a matching checksum.
    fn forged(at: usize, bytes: &[u8]) -> [u8; SEGMENT_HEADER_LEN] {
        let mut header = HEADER.encode();
        header[at..at + bytes.len()].copy_from_slice(bytes);
        let crc = checksum(&header);
        header[36..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    #[test]
    fn round_trip() {
        for kind in (0..=u8::MAX).filter_map(SegmentKind::from_byte) {
            let header =
                SegmentHeader { kind, segment_id: u64::MAX - 1, base_lsn: 1 << 40, store_id: 1 << 31 };
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn kinds_and_bytes_map_one_to_one() {
        let bytes: Vec<_> = (0..=u8::MAX).filter(|&byte| SegmentKind::from_byte(byte).is_some()).collect();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6]);
        assert!(bytes.iter().all(|&byte| SegmentKind::from_byte(byte).unwrap().to_byte() == byte));
    }

    #[test]
    fn what_follows_is_not_looked_at() {
        let mut bytes = HEADER.encode().to_vec();
        bytes.extend_from_slice(&[0xff; 9]);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(HEADER));
    }

    #[test]
    fn every_proper_prefix_is_too_short() {
        let bytes = HEADER.encode();
        for found in 0..SEGMENT_HEADER_LEN {
            assert_eq!(SegmentHeader::decode(&bytes[..found]), Err(HeaderError::TooShort { found }));
        }
    }

    #[test]
    fn zeros_are_blank() {
        assert_eq!(SegmentHeader::decode(&[0]), Err(HeaderError::Blank));
        assert_eq!(SegmentHeader::decode(&[0; SEGMENT_HEADER_LEN]), Err(HeaderError::Blank));
        let mut bytes = [0; 64];
        bytes[SEGMENT_HEADER_LEN] = 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Blank));
        bytes[SEGMENT_HEADER_LEN - 1] = 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::BadMagic));
    }

    #[test]
    fn valid_headers_of_something_else() {
        let cases = [
            (forged(10, &[41, 0]), HeaderError::BadLength { found: 41 }),
            (forged(12, &[0]), HeaderError::UnknownKind(0)),
            (forged(12, &[7]), HeaderError::UnknownKind(7)),
            (forged(13, &[1]), HeaderError::ReservedNotZero),
            (forged(15, &[1]), HeaderError::ReservedNotZero),
        ];
        for (bytes, error) in cases {
            assert_eq!(SegmentHeader::decode(&bytes), Err(error));
        }
    }

    #[test]
    fn magic_is_checked_before_version_and_version_before_checksum() {
        let mut bytes = HEADER.encode();
        bytes[36] ^= 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::BadChecksum));
        bytes[8] = 1;
        let unsupported = HeaderError::UnsupportedVersion { found: 1, supported: 2 };
        assert_eq!(SegmentHeader::decode(&bytes), Err(unsupported));
        // A version with a shorter header is still named.
        assert_eq!(SegmentHeader::decode(&bytes[..10]), Err(unsupported));
        bytes[0] ^= 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::BadMagic));
    }

    #[test]
    fn every_bit_flip_is_refused() {
        for bit in 0..SEGMENT_HEADER_LEN * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..8 => HeaderError::BadMagic,
                8..10 => {
                    let found = u16::from_le_bytes([bytes[8], bytes[9]]);
                    HeaderError::UnsupportedVersion { found, supported: 2 }
                }
                _ => HeaderError::BadChecksum,
            };
            assert_eq!(SegmentHeader::decode(&bytes), Err(expected), "bit {bit}");
        }
    }
}
