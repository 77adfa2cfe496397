//! Encodes records.

use crate::checksum::{HeaderSeed, body_checksum};
use crate::error::EncodeError;
use crate::layout::RECORD_HEADER_LEN;
use crate::record::{Record, check_shape};
use crate::record_header::{RawHeader, write_checksum};

/// Encodes the records of one segment.
///
/// It is cheap to create and to copy: it holds only the checksum state of the segment id.
#[derive(Debug, Clone, Copy)]
pub struct Encoder {
    seed: HeaderSeed,
}

impl Encoder {
    /// An encoder for the segment with this id.
    pub fn new(segment_id: u64) -> Self {
        Self { seed: HeaderSeed::new(segment_id) }
    }

    /// Encodes `record` at the start of `out` and returns its length, which is
    /// [`Record::encoded_len`]. It overwrites exactly that many bytes, padding included.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the format cannot hold the record, or `out` is too small. `out` is then
    /// unchanged.
    #[inline]
    pub fn encode(&self, record: &Record<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
        self.encode_with_body_checksum(record, body_checksum(record.key, record.value), out)
    }

    /// [`encode`](Self::encode) for a caller that has computed the [`body_checksum`] already. It
    /// copies the record and computes a checksum over 20 bytes, which is short enough for a lock.
    ///
    /// With a wrong `body_crc`, debug builds panic. Release builds write a record that decodes as
    /// corrupt.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    #[inline]
    pub fn encode_with_body_checksum(
        &self,
        record: &Record<'_>,
        body_crc: u32,
        out: &mut [u8],
    ) -> Result<usize, EncodeError> {
        let header = self.header(record, body_crc)?;
        let needed = record.encoded_len();
        let available = out.len();
        let out = out.get_mut(..needed).ok_or(EncodeError::BufferTooSmall { needed, available })?;
        let (header_out, rest) = out.split_at_mut(RECORD_HEADER_LEN);
        let (key_out, rest) = rest.split_at_mut(record.key.len());
        let (value_out, padding_out) = rest.split_at_mut(record.value.len());
        header_out.copy_from_slice(&header);
        key_out.copy_from_slice(record.key);
        value_out.copy_from_slice(record.value);
        padding_out.fill(0);
        Ok(needed)
    }

    /// Copies the encoded record at the start of `encoded` to the start of `out`, clears its MORE
    /// flag, and returns its length.
    ///
    /// Key, value and body checksum are copied unchecked, so a damaged body stays detectable. Only
    /// the header checksum is computed again, over 20 bytes.
    ///
    /// `None` when `encoded` does not start with a whole record, or `out` is too small. `out` is
    /// then unchanged.
    ///
    /// ```
    /// use kv_wal_format::{Decoder, Encoder, Record, Step};
    ///
    /// let (mut one, mut other) = (Vec::new(), [0; 40]);
    /// Encoder::new(1).append(&Record::put(5, b"key", b"value").with_more(), &mut one)?;
    /// let len = Encoder::new(2).copy(&one, &mut other).unwrap();
    /// let Step::Record { record, .. } = Decoder::new(2).step(&other[..len]) else { panic!("a record") };
    /// assert_eq!(record, Record::put(5, b"key", b"value"));
    /// # Ok::<(), kv_wal_format::EncodeError>(())
    /// ```
    #[inline]
    pub fn copy(&self, encoded: &[u8], out: &mut [u8]) -> Option<usize> {
        let raw = RawHeader::from_bytes(encoded.first_chunk()?);
        let len = raw.info().ok()?.encoded_len;
        let encoded = encoded.get(..len)?;
        let out = out.get_mut(..len)?;
        let mut header = RawHeader { flags: 0, ..raw }.to_bytes();
        let header_crc = self.seed.checksum(&header);
        write_checksum(&mut header, header_crc);
        let (header_out, body_out) = out.split_at_mut(RECORD_HEADER_LEN);
        let (_, body) = encoded.split_at(RECORD_HEADER_LEN);
        header_out.copy_from_slice(&header);
        body_out.copy_from_slice(body);
        Some(len)
    }

    /// Encodes `record` at the end of `out` and returns its length.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the format cannot hold the record. `out` is then unchanged.
    pub fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<usize, EncodeError> {
        let header = self.header(record, body_checksum(record.key, record.value))?;
        let (start, len) = (out.len(), record.encoded_len());
        out.reserve(len);
        out.extend_from_slice(&header);
        out.extend_from_slice(record.key);
        out.extend_from_slice(record.value);
        out.resize(start + len, 0);
        Ok(len)
    }

    #[inline]
    fn header(self, record: &Record<'_>, body_crc: u32) -> Result<[u8; RECORD_HEADER_LEN], EncodeError> {
        let Record { kind, more, lsn, key, value } = *record;
        check_shape(kind, more, key.len(), value.len()).map_err(EncodeError::Shape)?;
        let key_len = u16::try_from(key.len()).map_err(|_| EncodeError::KeyTooLong { len: key.len() })?;
        let value_len =
            u32::try_from(value.len()).map_err(|_| EncodeError::ValueTooLong { len: value.len() })?;
        debug_assert_eq!(body_crc, body_checksum(key, value), "body checksum of other bytes");
        let mut header = RawHeader::new(kind, more, key_len, value_len, lsn, body_crc).to_bytes();
        let header_crc = self.seed.checksum(&header);
        write_checksum(&mut header, header_crc);
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ShapeError;
    use crate::kind::RecordKind;
    use crate::layout::KEY_LEN_MAX;

    #[test]
    fn overwrites_its_bytes_and_no_others() {
        let record = Record::put(5, b"abc", b"def");
        let mut expected = Vec::new();
        assert_eq!(Encoder::new(1).append(&record, &mut expected), Ok(32));

        let mut out = [0xaa; 40];
        assert_eq!(Encoder::new(1).encode(&record, &mut out), Ok(32));
        assert_eq!(out[..32], expected);
        assert_eq!(out[30..], [0, 0, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa]);
    }

    #[test]
    fn append_keeps_what_is_there() {
        let mut out = vec![7; 8];
        assert_eq!(Encoder::new(1).append(&Record::delete(5, b"abc"), &mut out), Ok(32));
        assert_eq!(out.len(), 40);
        assert_eq!(out[..8], [7; 8]);
        assert_eq!(out[32..], *b"abc\0\0\0\0\0");
    }

    #[test]
    fn the_three_ways_write_the_same_bytes() {
        let encoder = Encoder::new(0xfeed);
        let record = Record::put(5, b"abc", b"defghij").with_more();
        let (mut appended, mut whole, mut with_checksum) = (Vec::new(), [1; 40], [2; 40]);
        encoder.append(&record, &mut appended).unwrap();
        encoder.encode(&record, &mut whole).unwrap();
        let body_crc = body_checksum(b"abc", b"defghij");
        encoder.encode_with_body_checksum(&record, body_crc, &mut with_checksum).unwrap();
        assert_eq!(appended, whole);
        assert_eq!(appended, with_checksum);
    }

    #[test]
    fn a_copy_is_the_same_record_alone_in_another_segment() {
        let record = Record::put(5, b"abc", b"defghij");
        let (mut original, mut expected) = (Vec::new(), Vec::new());
        Encoder::new(1).append(&record.with_more(), &mut original).unwrap();
        Encoder::new(2).append(&record, &mut expected).unwrap();
        let mut out = [0xaa; 48];
        assert_eq!(Encoder::new(2).copy(&original, &mut out), Some(40));
        assert_eq!(out[..40], expected);
        assert_eq!(out[40..], [0xaa; 8]);
        // A damaged body stays damaged.
        original[RECORD_HEADER_LEN] ^= 1;
        assert_eq!(Encoder::new(2).copy(&original, &mut out), Some(40));
        let step = crate::Decoder::new(2).step(&out);
        assert!(matches!(step, crate::Step::Corrupt(_)), "{step:?}");
        let untouched = out;
        assert!((0..40).all(|len| Encoder::new(2).copy(&original[..len], &mut out).is_none()));
        assert_eq!(Encoder::new(2).copy(&original, &mut out[..39]), None);
        assert_eq!(out, untouched);
    }

    #[test]
    fn a_refused_record_changes_nothing() {
        let long_key = vec![0; KEY_LEN_MAX + 1];
        let delete_with_value = Record { value: b"v", ..Record::delete(1, b"k") };
        let shape = EncodeError::Shape(ShapeError::ValueLength { kind: RecordKind::Delete, len: 1 });
        let cases = [
            (Record::put(1, &long_key, b""), EncodeError::KeyTooLong { len: 65_536 }),
            (delete_with_value, shape),
            (
                Record::mark(1, &[0; 16]).with_more(),
                EncodeError::Shape(ShapeError::More { kind: RecordKind::Mark }),
            ),
        ];
        for (record, error) in cases {
            let mut out = vec![7; 100_000];
            assert_eq!(Encoder::new(1).encode(&record, &mut out), Err(error));
            assert_eq!(Encoder::new(1).append(&record, &mut out), Err(error));
            assert_eq!(out, vec![7; 100_000]);
        }
    }

    #[test]
    fn a_buffer_that_is_too_small_is_unchanged() {
        let record = Record::put(1, b"abc", b"def");
        for available in 0..32 {
            let mut out = vec![7; available];
            let error = EncodeError::BufferTooSmall { needed: 32, available };
            assert_eq!(Encoder::new(1).encode(&record, &mut out), Err(error));
            assert_eq!(out, vec![7; available]);
        }
    }

    #[test]
    fn the_longest_key_fits() {
        let key = vec![1; KEY_LEN_MAX];
        let mut out = Vec::new();
        assert_eq!(Encoder::new(1).append(&Record::put(1, &key, b""), &mut out), Ok(65_560));
        assert_eq!(crate::parse_trusted(&out).map(|record| record.key.len()), Some(KEY_LEN_MAX));
    }
}
