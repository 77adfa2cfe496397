//! The errors of encoding and decoding.

use std::error::Error;
use std::fmt;

use crate::kind::RecordKind;
use crate::layout::{KEY_LEN_MAX, SEGMENT_HEADER_LEN, VALUE_LEN_MAX};

/// Why the start of a file is no segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The bytes end inside the header.
    TooShort {
        /// Length of the input in bytes.
        found: usize,
    },
    /// All bytes are zero: the file was created or preallocated, and its header never written.
    Blank,
    /// The file does not start with the magic: it is no segment, or its first bytes are damaged.
    BadMagic,
    /// Another version of the format, which this crate does not read.
    UnsupportedVersion {
        /// The version in the header.
        found: u16,
        /// The version that this crate reads.
        supported: u16,
    },
    /// The header is damaged.
    BadChecksum,
    /// The checksum matches, but the length is not the one of this version.
    BadLength {
        /// The length in the header.
        found: u16,
    },
    /// The checksum matches, but this version has no such kind.
    UnknownKind(u8),
    /// The checksum matches, but a reserved byte is not zero.
    ReservedNotZero,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { found } => {
                write!(f, "segment header cut short: {found} of {SEGMENT_HEADER_LEN} bytes")
            }
            Self::Blank => f.write_str("segment header is all zeros: never written"),
            Self::BadMagic => f.write_str("segment header has the wrong magic"),
            Self::UnsupportedVersion { found, supported } => {
                write!(f, "segment has format version {found}, supported is {supported}")
            }
            Self::BadChecksum => f.write_str("segment header checksum mismatch"),
            Self::BadLength { found } => {
                write!(f, "segment header says it is {found} bytes long, not {SEGMENT_HEADER_LEN}")
            }
            Self::UnknownKind(kind) => write!(f, "unknown segment kind {kind}"),
            Self::ReservedNotZero => f.write_str("reserved bytes of the segment header are not zero"),
        }
    }
}

impl Error for HeaderError {}

/// A flag or length that a record of its kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShapeError {
    /// A delete with a value, or a mark or seal whose value has the wrong length.
    ValueLength {
        /// Kind of the record.
        kind: RecordKind,
        /// Length of its value in bytes.
        len: usize,
    },
    /// A mark or seal with a key.
    KeyLength {
        /// Kind of the record.
        kind: RecordKind,
        /// Length of its key in bytes.
        len: usize,
    },
    /// A mark or seal as a member of a batch.
    More {
        /// Kind of the record.
        kind: RecordKind,
    },
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ValueLength { kind, len } => write!(f, "a {kind} cannot have a value of {len} bytes"),
            Self::KeyLength { kind, len } => write!(f, "a {kind} cannot have a key of {len} bytes"),
            Self::More { kind } => write!(f, "a {kind} cannot be continued by the next record"),
        }
    }
}

impl Error for ShapeError {}

/// Why a record was not encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The key is longer than [`KEY_LEN_MAX`].
    KeyTooLong {
        /// Length of the key in bytes.
        len: usize,
    },
    /// The value is longer than [`VALUE_LEN_MAX`].
    ValueTooLong {
        /// Length of the value in bytes.
        len: usize,
    },
    /// The record does not fit the buffer.
    BufferTooSmall {
        /// Encoded length of the record in bytes.
        needed: usize,
        /// Length of the buffer in bytes.
        available: usize,
    },
    /// The record has a flag or length that its kind does not allow.
    Shape(ShapeError),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyTooLong { len } => write!(f, "key of {len} bytes, the format holds {KEY_LEN_MAX}"),
            Self::ValueTooLong { len } => write!(f, "value of {len} bytes, the format holds {VALUE_LEN_MAX}"),
            Self::BufferTooSmall { needed, available } => {
                write!(f, "record of {needed} bytes does not fit a buffer of {available}")
            }
            Self::Shape(shape) => shape.fmt(f),
        }
    }
}

impl Error for EncodeError {}

/// Why bytes are neither a record nor the beginning of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Corruption {
    /// The first byte is zero, as in no record, but another byte of the next header is not.
    ZeroTag,
    /// The tag says neither that the header is small nor that it is large. Holds the whole tag.
    UnknownForm(u8),
    /// The header does not match its checksum: it is damaged, belongs to another segment, or is no
    /// header.
    HeaderChecksum,
    /// The checksum matches, but this version has no such kind.
    UnknownKind(u8),
    /// The checksum matches, but the kind does not allow this flag or length.
    Shape(ShapeError),
    /// The checksum matches, but the LSN does not fit 64 bits.
    LsnOverflow,
    /// The checksum matches, but the record fits a small header, and this one is large.
    NeedlesslyLarge,
    /// The header is valid, but the record does not match its checksum.
    RecordChecksum,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroTag => f.write_str("stray bytes where a record should start"),
            Self::UnknownForm(tag) => write!(f, "unknown form of a record header: tag {tag:#010b}"),
            Self::HeaderChecksum => f.write_str("record header checksum mismatch"),
            Self::UnknownKind(kind) => write!(f, "unknown record kind {kind}"),
            Self::Shape(shape) => shape.fmt(f),
            Self::LsnOverflow => f.write_str("the LSN of the record does not fit 64 bits"),
            Self::NeedlesslyLarge => f.write_str("large header of a record that fits a small one"),
            Self::RecordChecksum => f.write_str("record checksum mismatch"),
        }
    }
}

impl Error for Corruption {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let shape = ShapeError::KeyLength { kind: RecordKind::Seal, len: 3 };
        let table: [(&dyn Error, &str); 12] = [
            (&HeaderError::TooShort { found: 3 }, "segment header cut short: 3 of 40 bytes"),
            (
                &HeaderError::UnsupportedVersion { found: 1, supported: 2 },
                "segment has format version 1, supported is 2",
            ),
            (&HeaderError::BadLength { found: 41 }, "segment header says it is 41 bytes long, not 40"),
            (&HeaderError::UnknownKind(9), "unknown segment kind 9"),
            (&shape, "a seal cannot have a key of 3 bytes"),
            (&EncodeError::Shape(shape), "a seal cannot have a key of 3 bytes"),
            (&Corruption::Shape(shape), "a seal cannot have a key of 3 bytes"),
            (&EncodeError::KeyTooLong { len: 70_000 }, "key of 70000 bytes, the format holds 65535"),
            (
                &EncodeError::BufferTooSmall { needed: 32, available: 8 },
                "record of 32 bytes does not fit a buffer of 8",
            ),
            (
                &ShapeError::ValueLength { kind: RecordKind::Delete, len: 1 },
                "a delete cannot have a value of 1 bytes",
            ),
            (&ShapeError::More { kind: RecordKind::Mark }, "a mark cannot be continued by the next record"),
            (&Corruption::UnknownForm(0x41), "unknown form of a record header: tag 0b01000001"),
        ];
        for (error, message) in table {
            assert_eq!(error.to_string(), message);
        }
    }
}
