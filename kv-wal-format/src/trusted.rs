//! Access without checksums, for bytes that this process has encoded or validated before.
//!
//! The functions are total: any bytes give an answer. The answer is meaningful only for bytes that
//! start with a valid record. These functions save the check on every read.

use crate::layout::SMALL_HEADER_LEN;
use crate::record::Record;
use crate::record_header::{self, RecordInfo};

/// Reads kind and lengths from the header at the start of `buf`, without checksum. `None` when
/// `buf` is shorter than [`SMALL_HEADER_LEN`], or the kind is unknown. That many bytes are enough
/// for a large header, too.
#[inline]
pub fn peek(buf: &[u8]) -> Option<RecordInfo> {
    record_header::info(buf.first_chunk::<SMALL_HEADER_LEN>()?)
}

/// Reads the LSN from the header at the start of `buf`, without checksum, in a segment with this
/// base LSN. `None` when [`peek`] returns `None`, `buf` ends inside the header, or the LSN does not
/// fit 64 bits.
#[inline]
pub fn peek_lsn(base_lsn: u64, buf: &[u8]) -> Option<u64> {
    peek(buf).and_then(|_| record_header::lsn(base_lsn, buf))
}

/// Reads the record at the start of `buf`, without checksums, in a segment with this base LSN.
/// `None` when [`peek`] returns `None`, `buf` ends inside the record, or the LSN does not fit 64
/// bits.
///
/// ```
/// use kv_wal_format::{Encoder, Origin, Record, parse_trusted};
///
/// let mut segment = Vec::new();
/// let put = Record::put(101, b"key", b"value");
/// Encoder::new(Origin { segment_id: 7, base_lsn: 100 }).append(&put, &mut segment)?;
/// assert_eq!(parse_trusted(100, &segment), Some(put));
/// # Ok::<(), kv_wal_format::EncodeError>(())
/// ```
#[inline]
pub fn parse_trusted(base_lsn: u64, buf: &[u8]) -> Option<Record<'_>> {
    let info = peek(buf)?;
    let (key, value) = info.body(buf)?;
    let lsn = record_header::lsn(base_lsn, buf)?;
    Some(Record { kind: info.kind, more: info.more, lsn, key, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::Encoder;
    use crate::kind::RecordKind;
    use crate::layout::LARGE_HEADER_LEN;
    use crate::segment_header::Origin;

    const BASE: u64 = 4;

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        Encoder::new(Origin { segment_id: 1, base_lsn: BASE }).append(record, &mut bytes).unwrap();
        bytes
    }

    /// A record with a small header, and one with a large header.
    const RECORDS: [(Record<'static>, usize); 2] = [
        (Record::put(5, b"abc", b"defgh!").with_more(), SMALL_HEADER_LEN),
        (Record::put(3, b"abc", b"defgh!").with_more(), LARGE_HEADER_LEN),
    ];

    #[test]
    fn peek_reads_the_header() {
        for (record, header_len) in RECORDS {
            let bytes = encoded(&record);
            let info = RecordInfo { kind: RecordKind::Put, more: true, header_len, key_len: 3, value_len: 6 };
            assert_eq!(peek(&bytes), Some(info));
            assert_eq!(info.encoded_len(), bytes.len());
            assert_eq!(peek(&bytes[..SMALL_HEADER_LEN]), Some(info));
            assert_eq!(peek(&bytes[..SMALL_HEADER_LEN - 1]), None);
        }
        assert_eq!(peek(&encoded(&Record::delete(6, b"abc"))).map(|info| info.more), Some(false));
    }

    #[test]
    fn parse_reads_the_record_without_its_checksums() {
        for (record, header_len) in RECORDS {
            let mut bytes = encoded(&record);
            bytes[header_len - 1] ^= 1;
            bytes[header_len - 6] ^= 1;
            bytes.push(9);
            assert_eq!(parse_trusted(BASE, &bytes), Some(record));
        }
    }

    #[test]
    fn peek_reads_the_lsn_of_a_header_without_its_body() {
        for (record, header_len) in RECORDS {
            let bytes = encoded(&record);
            assert_eq!(peek_lsn(BASE, &bytes[..header_len]), Some(record.lsn));
            assert_eq!(peek_lsn(BASE, &bytes[..header_len - 1]), None);
        }
        assert_eq!(peek_lsn(u64::MAX, &encoded(&RECORDS[0].0)), None);
    }

    #[test]
    fn parse_wants_the_whole_record() {
        for (record, _) in RECORDS {
            let bytes = encoded(&record);
            assert!((0..bytes.len()).all(|len| parse_trusted(BASE, &bytes[..len]).is_none()));
        }
    }

    #[test]
    fn unknown_kinds_are_refused() {
        let mut bytes = encoded(&Record::put(5, b"abc", b"defgh"));
        for kind in [0, 5, 7] {
            bytes[0] = kind;
            assert_eq!(peek(&bytes), None);
            assert_eq!(parse_trusted(BASE, &bytes), None);
        }
    }

    #[test]
    fn an_lsn_beyond_64_bits_is_refused() {
        assert_eq!(parse_trusted(u64::MAX, &encoded(&Record::put(5, b"", b""))), None);
    }
}
