//! Decodes one record from arbitrary bytes.

use crate::checksum::{HeaderSeed, body_checksum};
use crate::error::Corruption;
use crate::layout::RECORD_HEADER_LEN;
use crate::record::Record;
use crate::record_header::{RawHeader, RecordInfo, read_checksum};

/// The content at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A whole, valid record.
    Record {
        /// The record.
        record: Record<'a>,
        /// Its length in bytes, padding included. The next step starts there.
        len: usize,
    },
    /// No record: the first bytes, up to the length of a record header, are all zero. An empty
    /// buffer counts, too.
    End,
    /// The beginning of a record: the buffer ends before the record does. Every non-empty proper
    /// prefix of a record is torn.
    Torn,
    /// Bytes that are neither a record nor the beginning of one.
    Corrupt(Corruption),
}

/// Decodes the records of one segment. It is total: any bytes give a [`Step`], none a panic.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    seed: HeaderSeed,
}

impl Decoder {
    /// A decoder for the segment with this id. It takes records of other segments for corrupt.
    pub fn new(segment_id: u64) -> Self {
        Self { seed: HeaderSeed::new(segment_id) }
    }

    /// Decodes the start of `buf`.
    ///
    /// A step tells a torn record from a damaged one only where the buffer ends inside the record.
    /// In a preallocated file a lost write shows as [`Step::Corrupt`] or [`Step::End`].
    /// [`judge_tail`](crate::judge_tail) tells the cases apart.
    #[inline]
    pub fn step<'a>(&self, buf: &'a [u8]) -> Step<'a> {
        let Some(header) = buf.first_chunk::<RECORD_HEADER_LEN>() else {
            return step_short(buf);
        };
        let raw = RawHeader::from_bytes(header);
        if raw.kind == 0 {
            return if is_zero(header) { Step::End } else { Step::Corrupt(Corruption::ZeroKind) };
        }
        let info = match self.check(header, &raw) {
            Ok(info) => info,
            Err(corruption) => return Step::Corrupt(corruption),
        };
        let Some(body) = info.body(buf) else {
            return Step::Torn;
        };
        if body_checksum(body.key, body.value) != raw.body_crc {
            return Step::Corrupt(Corruption::BodyChecksum);
        }
        if !is_zero(body.padding) {
            return Step::Corrupt(Corruption::Padding);
        }
        let RecordInfo { kind, more, lsn, encoded_len, .. } = info;
        let record = Record { kind, more, lsn, key: body.key, value: body.value };
        Step::Record { record, len: encoded_len }
    }

    /// Checks a record header alone, for a reader that does not have the body or does not need it.
    ///
    /// # Errors
    ///
    /// [`Corruption`] when these bytes are no record header of this segment. All zeros are
    /// [`Corruption::ZeroKind`].
    #[inline]
    pub fn check_header(&self, header: &[u8; RECORD_HEADER_LEN]) -> Result<RecordInfo, Corruption> {
        let raw = RawHeader::from_bytes(header);
        if raw.kind == 0 {
            return Err(Corruption::ZeroKind);
        }
        self.check(header, &raw)
    }

    #[inline]
    fn check(self, header: &[u8; RECORD_HEADER_LEN], raw: &RawHeader) -> Result<RecordInfo, Corruption> {
        if self.seed.checksum(header) != read_checksum(header) {
            return Err(Corruption::HeaderChecksum);
        }
        raw.check()
    }
}

/// Decodes a buffer that is too short for a record header.
#[cold]
fn step_short(buf: &[u8]) -> Step<'_> {
    match buf.first() {
        Some(0) if !is_zero(buf) => Step::Corrupt(Corruption::ZeroKind),
        None | Some(0) => Step::End,
        Some(_) => Step::Torn,
    }
}

#[inline]
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // A chunk is checked without an early exit, so that the compiler can use vector instructions.
    bytes.chunks(ZERO_CHUNK).all(|chunk| chunk.iter().fold(0, |seen, byte| seen | byte) == 0)
}

/// Bytes that [`is_zero`] checks together.
const ZERO_CHUNK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::Encoder;
    use crate::error::ShapeError;
    use crate::kind::RecordKind;

    #[test]
    fn one_set_bit_anywhere_is_not_zero() {
        for len in [0, 1, 7, ZERO_CHUNK - 1, ZERO_CHUNK, ZERO_CHUNK + 1, 3 * ZERO_CHUNK + 5] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in 0..len {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "{at} of {len}");
                bytes[at] = 0;
            }
        }
    }

    const ID: u64 = 7;

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        Encoder::new(ID).append(record, &mut bytes).unwrap();
        bytes
    }

    fn samples() -> Vec<Vec<u8>> {
        let body = [0xa5; 16];
        [
            Record::put(1, b"", b""),
            Record::put(2, b"key", b"value"),
            Record::put(3, b"key", b"no pad").with_more(),
            Record::put(u64::MAX, &[0; 64], &[0; 100]),
            Record::delete(5, b"key"),
            Record::delete(6, b"").with_more(),
            Record::mark(7, &body),
            Record::seal(8, &body),
        ]
        .iter()
        .map(encoded)
        .collect()
    }

    /// The record's bytes with a changed header and a matching header checksum.
    fn forged(record: &Record<'_>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bytes = encoded(record);
        change(&mut bytes);
        let crc = HeaderSeed::new(ID).checksum(bytes.first_chunk().unwrap());
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn a_record_is_decoded_and_what_follows_left_alone() {
        let record = Record::put(9, b"key", b"value!").with_more();
        let mut bytes = encoded(&record);
        assert_eq!(Decoder::new(ID).step(&bytes), Step::Record { record, len: 40 });
        bytes.push(0xff);
        assert_eq!(Decoder::new(ID).step(&bytes), Step::Record { record, len: 40 });
    }

    #[test]
    fn zeros_are_the_end() {
        for len in 0..64 {
            assert_eq!(Decoder::new(ID).step(&vec![0; len]), Step::End, "{len}");
        }
        let mut bytes = [0; 25];
        bytes[24] = 1;
        assert_eq!(Decoder::new(ID).step(&bytes), Step::End);
    }

    #[test]
    fn a_first_byte_of_zero_starts_no_record() {
        for nonzero in 1..RECORD_HEADER_LEN {
            let mut bytes = [0; 32];
            bytes[nonzero] = 1;
            for len in nonzero + 1..32 {
                assert_eq!(Decoder::new(ID).step(&bytes[..len]), Step::Corrupt(Corruption::ZeroKind));
            }
        }
    }

    #[test]
    fn every_non_empty_proper_prefix_is_torn() {
        for bytes in samples() {
            for len in 1..bytes.len() {
                assert_eq!(Decoder::new(ID).step(&bytes[..len]), Step::Torn, "{len} of {bytes:?}");
            }
        }
    }

    #[test]
    fn every_bit_flip_is_corruption() {
        for bytes in samples() {
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let step = Decoder::new(ID).step(&bytes);
                assert!(matches!(step, Step::Corrupt(_)), "bit {bit}: {step:?}");
            }
        }
    }

    #[test]
    fn corruption_names_what_is_wrong() {
        let at = |byte| {
            let mut bytes = encoded(&Record::put(9, b"key", b"valu"));
            bytes[byte] ^= 0x80;
            bytes
        };
        let cases = [
            (at(0), Corruption::HeaderChecksum),
            (at(7), Corruption::HeaderChecksum),
            (at(16), Corruption::HeaderChecksum),
            (at(23), Corruption::HeaderChecksum),
            (at(24), Corruption::BodyChecksum),
            (at(30), Corruption::BodyChecksum),
            (at(31), Corruption::Padding),
        ];
        for (bytes, corruption) in cases {
            assert_eq!(Decoder::new(ID).step(&bytes), Step::Corrupt(corruption));
        }
    }

    #[test]
    fn valid_headers_that_this_version_does_not_have() {
        let put = Record::put(9, b"k", b"");
        let mark = Record::mark(9, &[1; 16]);
        let more = ShapeError::More { kind: RecordKind::Mark };
        let value = ShapeError::ValueLength { kind: RecordKind::Delete, len: 1 };
        let cases = [
            (forged(&put, |bytes| bytes[0] = 5), Corruption::UnknownKind(5)),
            (forged(&put, |bytes| bytes[0] = 255), Corruption::UnknownKind(255)),
            (forged(&put, |bytes| bytes[1] = 2), Corruption::UnknownFlags(2)),
            (forged(&put, |bytes| bytes[1] = 0x81), Corruption::UnknownFlags(0x81)),
            (forged(&mark, |bytes| bytes[1] = 1), Corruption::Shape(more)),
            (forged(&Record::put(9, b"", b"v"), |bytes| bytes[0] = 2), Corruption::Shape(value)),
        ];
        for (bytes, corruption) in cases {
            assert_eq!(Decoder::new(ID).step(&bytes), Step::Corrupt(corruption));
            assert_eq!(Decoder::new(ID).check_header(bytes.first_chunk().unwrap()), Err(corruption));
            // The decoder finds it without the body.
            assert_eq!(Decoder::new(ID).step(&bytes[..24]), Step::Corrupt(corruption));
        }
    }

    #[test]
    fn records_of_another_segment_are_corrupt() {
        for bytes in samples() {
            for id in [ID - 1, ID + 1, ID ^ (1 << 63), 0, u64::MAX] {
                assert_eq!(Decoder::new(id).step(&bytes), Step::Corrupt(Corruption::HeaderChecksum));
            }
        }
    }

    #[test]
    fn the_longest_announced_lengths_are_torn() {
        let bytes = forged(&Record::put(9, b"", b""), |bytes| bytes[2..8].fill(0xff));
        assert_eq!(Decoder::new(ID).step(&bytes), Step::Torn);
    }

    #[test]
    fn check_header_reads_what_step_reads() {
        let bytes = encoded(&Record::delete(9, b"key").with_more());
        let info = Decoder::new(ID).check_header(bytes.first_chunk().unwrap());
        assert_eq!(info, Ok(crate::peek(&bytes).unwrap()));
        assert_eq!(Decoder::new(ID).check_header(&[0; 24]), Err(Corruption::ZeroKind));
        assert_eq!(
            Decoder::new(ID + 1).check_header(bytes.first_chunk().unwrap()),
            Err(Corruption::HeaderChecksum)
        );
    }
}
