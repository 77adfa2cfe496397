//! Records: the content of a segment after its header.

use crate::error::ShapeError;
use crate::kind::RecordKind;
use crate::layout::{MARK_BODY_LEN, SEAL_BODY_LEN};

/// One record. It borrows key and value from the caller, or from the decoded segment.
///
/// The fields accept any combination. The encoder refuses one that the kind does not allow (see
/// [`ShapeError`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The kind of the record.
    pub kind: RecordKind,
    /// MORE: the next record belongs to the same batch. Only puts and deletes can have it.
    pub more: bool,
    /// Log sequence number of the change. In a mark or a seal, of the last change before it.
    pub lsn: u64,
    /// Key, at most [`KEY_LEN_MAX`](crate::KEY_LEN_MAX) bytes; empty in a mark and a seal.
    pub key: &'a [u8],
    /// Value, at most [`VALUE_LEN_MAX`](crate::VALUE_LEN_MAX) bytes; empty in a delete, 16 bytes in
    /// a mark and a seal.
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// `key` has `value`, from `lsn` on.
    #[inline]
    pub const fn put(lsn: u64, key: &'a [u8], value: &'a [u8]) -> Self {
        Self { kind: RecordKind::Put, more: false, lsn, key, value }
    }

    /// `key` is gone, from `lsn` on.
    #[inline]
    pub const fn delete(lsn: u64, key: &'a [u8]) -> Self {
        Self { kind: RecordKind::Delete, more: false, lsn, key, value: &[] }
    }

    /// A mark after the change `lsn`. [`Mark::encode_body`](crate::Mark::encode_body) makes `body`.
    #[inline]
    pub const fn mark(lsn: u64, body: &'a [u8; MARK_BODY_LEN]) -> Self {
        Self { kind: RecordKind::Mark, more: false, lsn, key: &[], value: body }
    }

    /// A seal after the change `lsn`. [`Seal::encode_body`](crate::Seal::encode_body) makes `body`.
    #[inline]
    pub const fn seal(lsn: u64, body: &'a [u8; SEAL_BODY_LEN]) -> Self {
        Self { kind: RecordKind::Seal, more: false, lsn, key: &[], value: body }
    }

    /// The same record with MORE: the next record belongs to the same batch.
    #[inline]
    #[must_use]
    pub const fn with_more(mut self) -> Self {
        self.more = true;
        self
    }
}

/// Checks that a record of this kind can have this flag and these lengths.
#[inline]
pub(crate) fn check_shape(
    kind: RecordKind,
    more: bool,
    key_len: usize,
    value_len: usize,
) -> Result<(), ShapeError> {
    let (value_fits, key_fits) = match kind {
        RecordKind::Put => (true, true),
        RecordKind::Delete => (value_len == 0, true),
        RecordKind::Mark => (value_len == MARK_BODY_LEN, key_len == 0),
        RecordKind::Seal => (value_len == SEAL_BODY_LEN, key_len == 0),
    };
    if !value_fits {
        Err(ShapeError::ValueLength { kind, len: value_len })
    } else if !key_fits {
        Err(ShapeError::KeyLength { kind, len: key_len })
    } else if more && !kind.is_change() {
        Err(ShapeError::More { kind })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecordKind::{Delete, Mark, Put, Seal};

    #[test]
    fn shapes() {
        let valid = [
            (Put, false, 0, 0),
            (Put, true, 3, 5),
            (Delete, false, 0, 0),
            (Delete, true, 3, 0),
            (Mark, false, 0, 16),
            (Seal, false, 0, 16),
        ];
        for (kind, more, key_len, value_len) in valid {
            assert_eq!(check_shape(kind, more, key_len, value_len), Ok(()), "{kind}");
        }
        let invalid = [
            (Delete, false, 3, 1, ShapeError::ValueLength { kind: Delete, len: 1 }),
            (Mark, false, 0, 15, ShapeError::ValueLength { kind: Mark, len: 15 }),
            (Mark, false, 1, 16, ShapeError::KeyLength { kind: Mark, len: 1 }),
            (Mark, true, 0, 16, ShapeError::More { kind: Mark }),
            (Seal, false, 0, 17, ShapeError::ValueLength { kind: Seal, len: 17 }),
            (Seal, false, 1, 16, ShapeError::KeyLength { kind: Seal, len: 1 }),
            (Seal, true, 0, 16, ShapeError::More { kind: Seal }),
        ];
        for (kind, more, key_len, value_len, error) in invalid {
            assert_eq!(check_shape(kind, more, key_len, value_len), Err(error));
        }
    }
}
