//! CRC-32C of bodies and headers.
//!
//! The header checksum starts from the segment id, so a record header is valid in one segment only.

/// Checksum of a record's body: CRC-32C over key, then value.
///
/// It depends neither on the LSN nor on the segment. So a writer can compute it before it takes the
/// lock that assigns both, and pass it to
/// [`Encoder::encode_with_body_checksum`](crate::Encoder::encode_with_body_checksum).
///
/// ```
/// assert_eq!(kv_wal_format::body_checksum(b"1234", b"56789"), 0xe306_9283);
/// ```
#[inline]
pub fn body_checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

/// CRC-32C over the segment id. The header checksums of that segment continue from this state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderSeed(u32);

impl HeaderSeed {
    pub(crate) fn new(segment_id: u64) -> Self {
        Self(crc32c::crc32c(&segment_id.to_le_bytes()))
    }

    /// Checksum over the header bytes before the field `check`.
    #[inline]
    pub(crate) fn checksum(self, covered: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, covered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_checksum_covers_key_then_value() {
        // The CRC-32C check value of "123456789".
        assert_eq!(body_checksum(b"1234", b"56789"), 0xe306_9283);
        assert_eq!(body_checksum(b"", b"123456789"), 0xe306_9283);
        assert_eq!(body_checksum(b"123456789", b""), 0xe306_9283);
        assert_ne!(body_checksum(b"56789", b"1234"), 0xe306_9283);
    }

    #[test]
    fn header_checksum_covers_the_segment_id_and_the_header() {
        let mut covered = 0x0102_0304_0506_0708_u64.to_le_bytes().to_vec();
        covered.extend_from_slice(b"header");
        assert_eq!(HeaderSeed::new(0x0102_0304_0506_0708).checksum(b"header"), crc32c::crc32c(&covered));
    }
}
