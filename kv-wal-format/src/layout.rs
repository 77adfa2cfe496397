//! Widths, limits, and the access to fields at fixed offsets.
//!
//! A constant names the offset of a field. The compiler proves that the field lies inside its
//! array.

/// Length of a segment header in bytes. The first record starts at this offset.
pub const SEGMENT_HEADER_LEN: usize = 40;

/// Length of a record header in bytes.
pub const RECORD_HEADER_LEN: usize = 24;

/// Every record starts at a multiple of this many bytes from the start of its segment.
pub const ALIGNMENT: usize = 8;

/// Length of a mark's value in bytes.
pub(crate) const MARK_BODY_LEN: usize = 16;

/// Length of a seal's value in bytes.
pub(crate) const SEAL_BODY_LEN: usize = 16;

/// The format version that this crate writes, and the only one that it reads.
pub const FORMAT_VERSION: u16 = 1;

/// Longest key in bytes: the width of the field that holds its length.
pub const KEY_LEN_MAX: usize = u16::MAX as usize;

/// Longest value in bytes: the width of the field that holds its length.
pub const VALUE_LEN_MAX: usize = u32::MAX as usize;

const _: () = assert!(SEGMENT_HEADER_LEN.is_multiple_of(ALIGNMENT));
const _: () = assert!(RECORD_HEADER_LEN.is_multiple_of(ALIGNMENT));
const _: () = assert!(ALIGNMENT.is_power_of_two());

/// Bytes that a record takes in a segment: header, key, value, and padding to a multiple of
/// [`ALIGNMENT`].
///
/// Lengths beyond the address space saturate, to a length that no buffer has.
///
/// ```
/// assert_eq!(kv_wal_format::encoded_len(0, 0), 24);
/// assert_eq!(kv_wal_format::encoded_len(3, 6), 40);
/// ```
#[inline]
pub const fn encoded_len(key_len: usize, value_len: usize) -> usize {
    let unpadded = RECORD_HEADER_LEN.saturating_add(key_len).saturating_add(value_len);
    unpadded.saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1)
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
    fn encoded_len_pads_to_the_next_multiple_of_eight() {
        let table = [
            (0, 0, 24),
            (1, 0, 32),
            (0, 8, 32),
            (4, 4, 32),
            (4, 5, 40),
            (9, 0, 40),
            (64, 1 << 20, 1_048_664),
        ];
        for (key_len, value_len, expected) in table {
            assert_eq!(encoded_len(key_len, value_len), expected, "{key_len} + {value_len}");
        }
    }

    #[test]
    fn encoded_len_of_impossible_lengths_saturates() {
        assert_eq!(encoded_len(usize::MAX, usize::MAX), usize::MAX - 7);
        assert_eq!(encoded_len(0, usize::MAX - 24), usize::MAX - 7);
    }

    #[test]
    fn fields_are_read_where_they_were_written() {
        let mut bytes = [0xaa; 8];
        write::<2, 4, 8>(&mut bytes, [1, 2, 3, 4]);
        assert_eq!(bytes, [0xaa, 0xaa, 1, 2, 3, 4, 0xaa, 0xaa]);
        assert_eq!(read::<3, 2, 8>(&bytes), [2, 3]);
    }
}
