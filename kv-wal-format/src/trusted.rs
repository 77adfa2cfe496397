//! Access without checksums, for bytes that this process has encoded or validated before.
//!
//! Both functions are total: any bytes give an answer. The answer is meaningful only for bytes that
//! start with a valid record. These functions save the check on every read.

use crate::layout::RECORD_HEADER_LEN;
use crate::record::Record;
use crate::record_header::{RawHeader, RecordInfo};

/// Reads the header at the start of `buf`, without checksum. `None` when `buf` is shorter than a
/// header, or its first byte is no known kind.
#[inline]
pub fn peek(buf: &[u8]) -> Option<RecordInfo> {
    RawHeader::from_bytes(buf.first_chunk::<RECORD_HEADER_LEN>()?).info().ok()
}

/// Reads the record at the start of `buf`, without checksums. `None` when [`peek`] returns `None`,
/// or `buf` ends inside the record.
///
/// ```
/// use kv_wal_format::{Encoder, Record, parse_trusted};
///
/// let mut segment = Vec::new();
/// let put = Record::put(1, b"key", b"value");
/// Encoder::new(7).append(&put, &mut segment)?;
/// assert_eq!(parse_trusted(&segment), Some(put));
/// # Ok::<(), kv_wal_format::EncodeError>(())
/// ```
#[inline]
pub fn parse_trusted(buf: &[u8]) -> Option<Record<'_>> {
    let info = peek(buf)?;
    let body = info.body(buf)?;
    Some(Record { kind: info.kind, more: info.more, lsn: info.lsn, key: body.key, value: body.value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::Encoder;
    use crate::kind::RecordKind;

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        Encoder::new(1).append(record, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn peek_reads_the_header() {
        let bytes = encoded(&Record::put(5, b"abc", b"defgh!").with_more());
        let info = RecordInfo {
            kind: RecordKind::Put,
            more: true,
            lsn: 5,
            key_len: 3,
            value_len: 6,
            encoded_len: 40,
        };
        assert_eq!(peek(&bytes), Some(info));
        assert_eq!(peek(&bytes[..RECORD_HEADER_LEN]), Some(info));
        assert_eq!(peek(&bytes[..RECORD_HEADER_LEN - 1]), None);
        assert_eq!(peek(&encoded(&Record::delete(6, b"abc"))).map(|info| info.more), Some(false));
    }

    #[test]
    fn parse_reads_the_record_without_its_checksums() {
        let record = Record::put(5, b"abc", b"defgh!").with_more();
        let mut bytes = encoded(&record);
        bytes[RECORD_HEADER_LEN - 1] ^= 1;
        bytes[RECORD_HEADER_LEN - 5] ^= 1;
        bytes.push(9);
        assert_eq!(parse_trusted(&bytes), Some(record));
    }

    #[test]
    fn parse_wants_the_whole_record() {
        let bytes = encoded(&Record::put(5, b"abc", b"defgh"));
        assert!((0..bytes.len()).all(|len| parse_trusted(&bytes[..len]).is_none()));
    }

    #[test]
    fn other_flags_are_not_more() {
        let mut bytes = encoded(&Record::put(5, b"abc", b"defgh"));
        bytes[1] = 0xfe;
        assert_eq!(peek(&bytes).map(|info| info.more), Some(false));
    }

    #[test]
    fn unknown_kinds_are_refused() {
        let mut bytes = encoded(&Record::put(5, b"abc", b"defgh"));
        for kind in [0, 5, 255] {
            bytes[0] = kind;
            assert_eq!(peek(&bytes), None);
            assert_eq!(parse_trusted(&bytes), None);
        }
    }
}
