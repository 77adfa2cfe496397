//! Encodes records.

use crate::checksum::body_checksum;
use crate::decoder::Decoder;
use crate::error::EncodeError;
use crate::record::{Record, check_shape};
use crate::record_header::{Header, Headers, encoded_len};
use crate::segment_header::Origin;
use crate::trusted::peek;

/// Encodes the records of one segment.
///
/// It is cheap to create and to copy: it holds only the base LSN, and the checksum state of the id.
#[derive(Debug, Clone, Copy)]
pub struct Encoder {
    headers: Headers,
}

impl Encoder {
    /// An encoder for the segment with this id and base LSN.
    pub fn new(origin: Origin) -> Self {
        Self { headers: Headers::new(origin) }
    }

    /// Bytes that the record takes in this segment; see [`encoded_len`].
    #[inline]
    pub fn encoded_len(&self, record: &Record<'_>) -> usize {
        encoded_len(self.headers.base_lsn, record.lsn, record.key.len(), record.value.len())
    }

    /// Encodes `record` at the start of `out` and returns its length, which is
    /// [`encoded_len`](Self::encoded_len). It overwrites exactly that many bytes.
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
    /// copies the record and computes a checksum over 8 or 15 bytes, which is short enough for a
    /// lock.
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
        let header = header(record, body_crc)?;
        let needed = self.encoded_len(record);
        let too_small = EncodeError::BufferTooSmall { needed, available: out.len() };
        let out = out.get_mut(..needed).ok_or(too_small)?;
        let body_out = self.headers.write(&header, body_crc, out).ok_or(too_small)?;
        let (key_out, value_out) = body_out.split_at_mut(record.key.len());
        key_out.copy_from_slice(record.key);
        value_out.copy_from_slice(record.value);
        Ok(needed)
    }

    /// Copies the encoded record at the start of `encoded`, which is of the segment of `from`, to
    /// the start of `out`. Clears its MORE flag, and returns the length of the copy, which is
    /// [`encoded_len`](Self::encoded_len).
    ///
    /// Key and value are copied unchecked, and their checksum moves from one header checksum to the
    /// other. So a damaged body stays detectable.
    ///
    /// `None` when `encoded` does not start with a whole record, or `out` is too small. `out` is
    /// then unchanged.
    ///
    /// ```
    /// use kv_wal_format::{Decoder, Encoder, Origin, Record, Step};
    ///
    /// let one = Origin { segment_id: 1, base_lsn: 0 };
    /// let other = Origin { segment_id: 2, base_lsn: 5 };
    /// let (mut encoded, mut out) = (Vec::new(), [0; 40]);
    /// Encoder::new(one).append(&Record::put(5, b"key", b"value").with_more(), &mut encoded)?;
    /// let len = Encoder::new(other).copy(&Decoder::new(one), &encoded, &mut out).unwrap();
    /// let Step::Record { record, .. } = Decoder::new(other).step(&out[..len]) else { panic!("a record") };
    /// assert_eq!(record, Record::put(5, b"key", b"value"));
    /// # Ok::<(), kv_wal_format::EncodeError>(())
    /// ```
    #[inline]
    pub fn copy(&self, from: &Decoder, encoded: &[u8], out: &mut [u8]) -> Option<usize> {
        let info = peek(encoded)?;
        let body_crc = from.headers.body_crc(&info, encoded)?;
        let body = encoded.get(info.header_len..info.encoded_len())?;
        let header = Header {
            kind: info.kind,
            more: false,
            lsn: from.headers.lsn(encoded)?,
            key_len: u16::try_from(info.key_len).ok()?,
            value_len: u32::try_from(info.value_len).ok()?,
        };
        let len = encoded_len(self.headers.base_lsn, header.lsn, info.key_len, info.value_len);
        let out = out.get_mut(..len)?;
        self.headers.write(&header, body_crc, out)?.copy_from_slice(body);
        Some(len)
    }

    /// Encodes `record` at the end of `out` and returns its length.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the format cannot hold the record. `out` is then unchanged.
    pub fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<usize, EncodeError> {
        let body_crc = body_checksum(record.key, record.value);
        header(record, body_crc)?;
        let start = out.len();
        out.resize(start + self.encoded_len(record), 0);
        self.encode_with_body_checksum(record, body_crc, out.get_mut(start..).unwrap_or_default())
    }
}

/// The header of a record that the format can hold.
#[inline]
fn header(record: &Record<'_>, body_crc: u32) -> Result<Header, EncodeError> {
    let Record { kind, more, lsn, key, value } = *record;
    check_shape(kind, more, key.len(), value.len()).map_err(EncodeError::Shape)?;
    let key_len = u16::try_from(key.len()).map_err(|_| EncodeError::KeyTooLong { len: key.len() })?;
    let value_len = u32::try_from(value.len()).map_err(|_| EncodeError::ValueTooLong { len: value.len() })?;
    debug_assert_eq!(body_crc, body_checksum(key, value), "body checksum of other bytes");
    Ok(Header { kind, more, lsn, key_len, value_len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::Step;
    use crate::error::ShapeError;
    use crate::kind::RecordKind;
    use crate::layout::{KEY_LEN_MAX, encoded_len_max};

    const ORIGIN: Origin = Origin { segment_id: 1, base_lsn: 0 };

    fn encoder() -> Encoder {
        Encoder::new(ORIGIN)
    }

    #[test]
    fn the_header_is_small_where_it_fits() {
        let (small_max, large_min) = (vec![1; 65_535], vec![1; 65_536]);
        let base_lsn = 1 << 40;
        let encoder = Encoder::new(Origin { segment_id: 1, base_lsn });
        let (key_max, key_min) = ([1; 255], [1; 256]);
        // LSN, key and value, and the length of the header.
        let table: [(u64, &[u8], &[u8], usize); 10] = [
            (base_lsn, b"", b"", 14),
            (base_lsn, &key_max, &small_max, 14),
            (base_lsn + 0xffff_ffff, &key_max, &small_max, 14),
            (base_lsn, &key_min, b"", 23),
            (base_lsn, b"", &large_min, 23),
            (base_lsn + 0x1_0000_0000, b"", b"", 23),
            (base_lsn - 1, b"", b"", 23),
            (0, b"", b"", 23),
            (u64::MAX, b"", b"", 23),
            (u64::MAX, &key_min, &large_min, 23),
        ];
        for (lsn, key, value, header_len) in table {
            let record = Record::put(lsn, key, value);
            let (mut out, len) = (Vec::new(), header_len + key.len() + value.len());
            assert_eq!(encoder.encoded_len(&record), len);
            assert!(len <= encoded_len_max(key.len(), value.len()));
            assert_eq!(encoder.append(&record, &mut out), Ok(len));
            assert_eq!(crate::peek(&out).map(|info| info.header_len), Some(header_len));
            assert_eq!(crate::parse_trusted(base_lsn, &out), Some(record));
        }
    }

    #[test]
    fn overwrites_its_bytes_and_no_others() {
        let record = Record::put(5, b"abc", b"def");
        let mut expected = Vec::new();
        assert_eq!(encoder().append(&record, &mut expected), Ok(20));

        let mut out = [0xaa; 24];
        assert_eq!(encoder().encode(&record, &mut out), Ok(20));
        assert_eq!(out[..20], expected);
        assert_eq!(out[14..], *b"abcdef\xaa\xaa\xaa\xaa");
    }

    #[test]
    fn append_keeps_what_is_there() {
        let mut out = vec![7; 8];
        assert_eq!(encoder().append(&Record::delete(5, b"abc"), &mut out), Ok(17));
        assert_eq!(out.len(), 25);
        assert_eq!(out[..8], [7; 8]);
        assert_eq!(out[22..], *b"abc");
    }

    #[test]
    fn the_three_ways_write_the_same_bytes() {
        let record = Record::put(5, b"abc", b"defghij").with_more();
        for (base_lsn, len) in [(4, 24), (6, 33)] {
            let encoder = Encoder::new(Origin { segment_id: 0xfeed, base_lsn });
            let (mut appended, mut whole, mut with_checksum) = (Vec::new(), vec![1; len], vec![2; len]);
            encoder.append(&record, &mut appended).unwrap();
            encoder.encode(&record, &mut whole).unwrap();
            let body_crc = body_checksum(b"abc", b"defghij");
            encoder.encode_with_body_checksum(&record, body_crc, &mut with_checksum).unwrap();
            assert_eq!(appended, whole);
            assert_eq!(appended, with_checksum);
        }
    }

    #[test]
    fn a_copy_is_the_same_record_alone_in_another_segment() {
        let record = Record::put(5, b"abc", b"defghij");
        // Base LSNs of the original and of the copy, with a small and a large header.
        let (small, large) = (4, 6);
        for (base_lsn, copy_base_lsn) in [(small, small), (small, large), (large, small), (large, large)] {
            let one = Origin { segment_id: 1, base_lsn };
            let other = Origin { segment_id: 2, base_lsn: copy_base_lsn };
            let (mut original, mut expected) = (Vec::new(), Vec::new());
            Encoder::new(one).append(&record.with_more(), &mut original).unwrap();
            Encoder::new(other).append(&record, &mut expected).unwrap();
            let (encoder, from, len) = (Encoder::new(other), Decoder::new(one), expected.len());
            let mut out = [0xaa; 48];
            assert_eq!(encoder.copy(&from, &original, &mut out), Some(len));
            assert_eq!(out[..len], expected);
            assert!(out[len..].iter().all(|&byte| byte == 0xaa));
            let untouched = out;
            assert!((0..original.len()).all(|cut| encoder.copy(&from, &original[..cut], &mut out).is_none()));
            assert_eq!(encoder.copy(&from, &original, &mut out[..len - 1]), None);
            assert_eq!(out, untouched);
            // A damaged body stays damaged, whichever bit it is.
            let body = (original.len() - 10) * 8..original.len() * 8;
            for bit in body {
                original[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(encoder.copy(&from, &original, &mut out), Some(len));
                let step = Decoder::new(other).step(&out);
                assert!(matches!(step, Step::Corrupt(_)), "{step:?}");
                original[bit / 8] ^= 1 << (bit % 8);
            }
        }
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
            assert_eq!(encoder().encode(&record, &mut out), Err(error));
            assert_eq!(encoder().append(&record, &mut out), Err(error));
            assert_eq!(out, vec![7; 100_000]);
        }
    }

    #[test]
    fn a_buffer_that_is_too_small_is_unchanged() {
        let record = Record::put(1, b"abc", b"def");
        for available in 0..20 {
            let mut out = vec![7; available];
            let error = EncodeError::BufferTooSmall { needed: 20, available };
            assert_eq!(encoder().encode(&record, &mut out), Err(error));
            assert_eq!(out, vec![7; available]);
        }
    }

    #[test]
    fn the_longest_key_fits() {
        let key = vec![1; KEY_LEN_MAX];
        let mut out = Vec::new();
        assert_eq!(encoder().append(&Record::put(1, &key, b""), &mut out), Ok(65_558));
        assert_eq!(crate::parse_trusted(0, &out).map(|record| record.key.len()), Some(KEY_LEN_MAX));
    }
}
