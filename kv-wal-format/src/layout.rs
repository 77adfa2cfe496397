//! Widths, limits, and the access to fields at fixed offsets.
//!
//! A constant names the offset of a field. The compiler proves that the field lies inside its
//! array.

/// Length of a segment header in bytes. The first record starts at this offset.
pub const SEGMENT_HEADER_LEN: usize = 40;

/// Length of a small record header in bytes. No record is shorter.
pub const SMALL_HEADER_LEN: usize = 14;

/// Length of a large record header in bytes.
pub const LARGE_HEADER_LEN: usize = 23;

/// Longest key in bytes under a small record header.
pub const SMALL_KEY_LEN_MAX: usize = u8::MAX as usize;

/// Longest value in bytes under a small record header.
pub const SMALL_VALUE_LEN_MAX: usize = u16::MAX as usize;

/// Largest distance of an LSN from the segment's base LSN under a small record header.
pub const SMALL_LSN_DELTA_MAX: u64 = u32::MAX as u64;

/// Length of a mark's value in bytes.
pub(crate) const MARK_BODY_LEN: usize = 16;

/// Length of a seal's value in bytes.
pub(crate) const SEAL_BODY_LEN: usize = 16;

/// The format version that this crate writes, and the only one that it reads.
pub const FORMAT_VERSION: u16 = 2;

/// Longest key in bytes: the width of the field that holds its length.
pub const KEY_LEN_MAX: usize = u16::MAX as usize;

/// Longest value in bytes: the width of the field that holds its length.
pub const VALUE_LEN_MAX: usize = u32::MAX as usize;

/// The most bytes that a record takes in a segment: those of a large header, the key and the value.
/// The exact length depends on the LSN ([`encoded_len`](crate::encoded_len)).
///
/// Lengths beyond the address space saturate, to a length that no buffer has.
#[inline]
pub const fn encoded_len_max(key_len: usize, value_len: usize) -> usize {
    LARGE_HEADER_LEN.saturating_add(key_len).saturating_add(value_len)
}

/// The `LEN` bytes at offset `AT`.
#[inline]
pub(crate) fn read<const AT: usize, const LEN: usize, const N: usize>(bytes: &[u8; N]) -> [u8; LEN] {
    const { assert!(AT + LEN <= N) };
    let mut field = [0; LEN];
    field.copy_from_slice(&bytes[AT..AT + LEN]);
    field
}

/// Stores `field` at offset `AT`.
#[inline]
pub(crate) fn write<const AT: usize, const LEN: usize, const N: usize>(
    bytes: &mut [u8; N],
    field: [u8; LEN],
) {
    const { assert!(AT + LEN <= N) };
    bytes[AT..AT + LEN].copy_from_slice(&field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_len_of_impossible_lengths_saturates() {
        assert_eq!(encoded_len_max(usize::MAX, usize::MAX), usize::MAX);
        assert_eq!(encoded_len_max(0, usize::MAX - 24), usize::MAX - 1);
        assert_eq!(encoded_len_max(64, 1 << 20), 1_048_663);
    }

    #[test]
    fn fields_are_read_where_they_were_written() {
        let mut bytes = [0xaa; 8];
        write::<2, 4, 8>(&mut bytes, [1, 2, 3, 4]);
        assert_eq!(bytes, [0xaa, 0xaa, 1, 2, 3, 4, 0xaa, 0xaa]);
        assert_eq!(read::<3, 2, 8>(&bytes), [2, 3]);
    }
}
