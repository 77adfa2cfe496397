//! The kinds of records.

use std::fmt;

/// The kinds of records. The numbers are the bytes on disk. No kind is zero, so no record starts
/// with a zero byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The key has this value.
    Put = 1,
    /// The key is gone (a tombstone).
    Delete = 2,
    /// The log was durable up to an LSN at a point in time; see [`Mark`](crate::Mark).
    Mark = 3,
    /// The segment is finished; see [`Seal`](crate::Seal).
    Seal = 4,
}

impl RecordKind {
    /// The kind that this byte stands for on disk.
    #[inline]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            3 => Some(Self::Mark),
            4 => Some(Self::Seal),
            _ => None,
        }
    }

    /// The byte that stands for this kind on disk.
    #[inline]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// Whether the record is a change: a put or a delete. Only changes take an LSN of their own.
    #[inline]
    pub const fn is_change(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Mark => "mark",
            Self::Seal => "seal",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::RecordKind::{self, Delete, Mark, Put, Seal};

    #[test]
    fn kinds_and_bytes_map_one_to_one() {
        let kinds: Vec<_> = (0..=u8::MAX).filter_map(RecordKind::from_byte).collect();
        assert_eq!(kinds, [Put, Delete, Mark, Seal]);
        assert_eq!(kinds.iter().map(|kind| kind.to_byte()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn only_puts_and_deletes_are_changes() {
        assert_eq!([Put, Delete, Mark, Seal].map(RecordKind::is_change), [true, true, false, false]);
    }
}
