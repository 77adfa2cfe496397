//! Decodes one record from arbitrary bytes.

use crate::checksum::body_checksum;
use crate::error::Corruption;
use crate::layout::SMALL_HEADER_LEN;
use crate::record::Record;
use crate::record_header::{Headers, NoHeader, RecordInfo};
use crate::segment_header::Origin;

/// The content at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A whole, valid record.
    Record {
        /// The record.
        record: Record<'a>,
        /// Its length in bytes. The next step starts there.
        len: usize,
    },
    /// No record: the first bytes, up to the length of a small record header, are all zero. An
    /// empty buffer counts, too.
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
    pub(crate) headers: Headers,
}

impl Decoder {
    /// A decoder for the segment with this id and base LSN. It takes records of other segments for
    /// corrupt. With another base LSN, it decodes other LSNs.
    pub fn new(origin: Origin) -> Self {
        Self { headers: Headers::new(origin) }
    }

    /// Decodes the start of `buf`.
    ///
    /// A step tells a torn record from a damaged one only where the buffer ends inside the record.
    /// In a preallocated file a lost write shows as [`Step::Corrupt`] or [`Step::End`].
    /// [`judge_tail`](crate::judge_tail) tells the cases apart.
    #[inline]
    pub fn step<'a>(&self, buf: &'a [u8]) -> Step<'a> {
        if matches!(buf.first(), None | Some(0)) {
            let start = buf.get(..SMALL_HEADER_LEN).unwrap_or(buf);
            return if is_zero(start) { Step::End } else { Step::Corrupt(Corruption::ZeroTag) };
        }
        let checked = match self.headers.check(buf) {
            Ok(checked) => checked,
            Err(NoHeader::Torn) => return Step::Torn,
            Err(NoHeader::Corrupt(corruption)) => return Step::Corrupt(corruption),
        };
        let Some((key, value)) = checked.info.body(buf) else {
            return Step::Torn;
        };
        if body_checksum(key, value) != checked.body_crc {
            return Step::Corrupt(Corruption::RecordChecksum);
        }
        let RecordInfo { kind, more, .. } = checked.info;
        let record = Record { kind, more, lsn: checked.lsn, key, value };
        Step::Record { record, len: checked.info.encoded_len() }
    }

    /// Checks the record header at the start of `buf` alone, for a reader that does not have the
    /// body or does not need it. `None` when `buf` does not start with a whole, valid header of
    /// this segment; [`step`](Self::step) says why.
    ///
    /// A small header of other bytes passes once in 65,536 tries, a large one once in 2³².
    #[inline]
    pub fn check_header(&self, buf: &[u8]) -> Option<RecordInfo> {
        self.headers.check(buf).ok().map(|checked| checked.info)
    }

    /// Whether a record may begin at `offset` of `segment`, for a search that is about to skip the
    /// body of a header: a valid header is there, or nothing is.
    ///
    /// A false header often announces a body that ends among zeros. So nothing counts only behind a
    /// byte that is not zero.
    pub fn may_follow(&self, segment: &[u8], offset: usize) -> bool {
        let Some((before, rest)) = segment.split_at_checked(offset) else { return false };
        let start = rest.get(..SMALL_HEADER_LEN).unwrap_or(rest);
        let is_end = is_zero(start) || start.len() < SMALL_HEADER_LEN;
        is_end && before.last().is_some_and(|last| *last != 0) || self.check_header(rest).is_some()
    }
}

/// Whether all bytes are zero, as in space that no record has taken yet.
#[inline]
pub fn is_zero(bytes: &[u8]) -> bool {
    // A chunk is checked without an early exit, so that the compiler can use vector instructions.
    bytes.chunks(ZERO_CHUNK).all(|chunk| chunk.iter().fold(0, |seen, byte| seen | byte) == 0)
}

/// Bytes that [`is_zero`] checks together.
const ZERO_CHUNK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::HeaderSeed;
    use crate::encoder::Encoder;
    use crate::error::ShapeError;
    use crate::kind::RecordKind;
    use crate::layout::LARGE_HEADER_LEN;

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

    const BASE: u64 = 1;
    const ORIGIN: Origin = Origin { segment_id: 7, base_lsn: BASE };

    fn decoder() -> Decoder {
        Decoder::new(ORIGIN)
    }

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        Encoder::new(ORIGIN).append(record, &mut bytes).unwrap();
        bytes
    }

    fn samples() -> Vec<Vec<u8>> {
        let body = [0xa5; 16];
        [
            Record::put(1, b"", b""),
            Record::put(2, b"key", b"value"),
            Record::put(3, b"key", b"value").with_more(),
            Record::put(u64::MAX, &[0; 64], &[0; 100]),
            Record::put(0, b"", b""),
            Record::put(4, &[7; 256], b"").with_more(),
            Record::delete(5, b"key"),
            Record::delete(6, b"").with_more(),
            Record::mark(7, &body),
            Record::mark(0, &body),
            Record::seal(8, &body),
        ]
        .iter()
        .map(encoded)
        .collect()
    }

    /// The record's bytes with a changed header and checksums that match.
    fn forged(record: &Record<'_>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bytes = encoded(record);
        let (seed, body_crc) = (HeaderSeed::new(7), body_checksum(record.key, record.value));
        change(&mut bytes);
        if bytes[0] < 0x80 {
            let h = seed.checksum(&bytes[..8]);
            bytes[8..10].copy_from_slice(&h.to_le_bytes()[1..3]);
            bytes[10..14].copy_from_slice(&(h ^ body_crc).to_le_bytes());
        } else {
            let h = seed.checksum(&bytes[..15]);
            bytes[15..19].copy_from_slice(&h.to_le_bytes());
            bytes[19..23].copy_from_slice(&(h ^ body_crc).to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_record_is_decoded_and_what_follows_left_alone() {
        for (lsn, len) in [(9, 23), (0, 32)] {
            let record = Record::put(lsn, b"key", b"value!").with_more();
            let mut bytes = encoded(&record);
            assert_eq!(decoder().step(&bytes), Step::Record { record, len });
            bytes.push(0xff);
            assert_eq!(decoder().step(&bytes), Step::Record { record, len });
        }
    }

    #[test]
    fn zeros_are_the_end() {
        for len in 0..64 {
            assert_eq!(decoder().step(&vec![0; len]), Step::End, "{len}");
        }
        let mut bytes = [0; 15];
        bytes[14] = 1;
        assert_eq!(decoder().step(&bytes), Step::End);
    }

    #[test]
    fn a_first_byte_of_zero_starts_no_record() {
        for nonzero in 1..SMALL_HEADER_LEN {
            let mut bytes = [0; 32];
            bytes[nonzero] = 1;
            for len in nonzero + 1..32 {
                assert_eq!(decoder().step(&bytes[..len]), Step::Corrupt(Corruption::ZeroTag));
            }
        }
    }

    #[test]
    fn every_non_empty_proper_prefix_is_torn() {
        for bytes in samples() {
            for len in 1..bytes.len() {
                assert_eq!(decoder().step(&bytes[..len]), Step::Torn, "{len} of {bytes:?}");
            }
        }
    }

    #[test]
    fn every_bit_flip_is_corruption() {
        for bytes in samples() {
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let step = decoder().step(&bytes);
                assert!(matches!(step, Step::Corrupt(_)), "bit {bit}: {step:?}");
                // The decoder finds damage to the header without the body.
                let header_len = if bytes[0] < 0x80 { SMALL_HEADER_LEN } else { LARGE_HEADER_LEN };
                if (1..header_len - 4).contains(&(bit / 8)) {
                    let step = decoder().step(&bytes[..header_len]);
                    assert_eq!(step, Step::Corrupt(Corruption::HeaderChecksum), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn corruption_names_what_is_wrong() {
        let at = |byte| {
            let mut bytes = encoded(&Record::put(9, b"key", b"valu"));
            bytes[byte] ^= 0x08;
            bytes
        };
        let cases = [
            (at(0), Corruption::HeaderChecksum),
            (at(7), Corruption::HeaderChecksum),
            (at(9), Corruption::HeaderChecksum),
            (at(10), Corruption::RecordChecksum),
            (at(13), Corruption::RecordChecksum),
            (at(14), Corruption::RecordChecksum),
            (at(20), Corruption::RecordChecksum),
        ];
        for (bytes, corruption) in cases {
            assert_eq!(decoder().step(&bytes), Step::Corrupt(corruption));
        }
    }

    #[test]
    fn a_tag_of_neither_form_is_corrupt() {
        for tag in (0x10..0xf0).filter(|tag| tag & 0x0f == 1) {
            let mut bytes = encoded(&Record::put(9, b"key", b"value"));
            bytes[0] = tag;
            assert_eq!(decoder().step(&bytes), Step::Corrupt(Corruption::UnknownForm(tag)));
            assert_eq!(decoder().check_header(&bytes), None);
        }
    }

    #[test]
    fn valid_headers_that_this_version_does_not_have() {
        let put = Record::put(9, b"k", b"");
        let large = Record::put(0, b"k", b"");
        let mark = Record::mark(9, &[1; 16]);
        let more = ShapeError::More { kind: RecordKind::Mark };
        let value = ShapeError::ValueLength { kind: RecordKind::Delete, len: 1 };
        let cases = [
            (forged(&put, |bytes| bytes[0] = 5), Corruption::UnknownKind(5)),
            (forged(&put, |bytes| bytes[0] = 0x0f), Corruption::UnknownKind(7)),
            (forged(&large, |bytes| bytes[0] = 0xf0), Corruption::UnknownKind(0)),
            (forged(&large, |bytes| bytes[0] = 0xf6), Corruption::UnknownKind(6)),
            (forged(&mark, |bytes| bytes[0] |= 8), Corruption::Shape(more)),
            (forged(&Record::put(9, b"", b"v"), |bytes| bytes[0] = 2), Corruption::Shape(value)),
            (forged(&large, |bytes| bytes[7] = 1), Corruption::NeedlesslyLarge),
            (forged(&large, |bytes| bytes[10] = 1), Corruption::NeedlesslyLarge),
        ];
        for (bytes, corruption) in cases {
            assert_eq!(decoder().step(&bytes), Step::Corrupt(corruption));
            assert_eq!(decoder().check_header(&bytes), None);
            // The decoder finds it without the body.
            let header_len = if bytes[0] < 0x80 { SMALL_HEADER_LEN } else { LARGE_HEADER_LEN };
            assert_eq!(decoder().step(&bytes[..header_len]), Step::Corrupt(corruption));
        }
    }

    #[test]
    fn an_lsn_beyond_64_bits_is_corrupt() {
        let origin = Origin { segment_id: 7, base_lsn: u64::MAX - 4 };
        let mut bytes = Vec::new();
        Encoder::new(origin).append(&Record::put(u64::MAX, b"k", b""), &mut bytes).unwrap();
        assert!(matches!(Decoder::new(origin).step(&bytes), Step::Record { .. }));
        bytes[4] += 1;
        let h = HeaderSeed::new(7).checksum(&bytes[..8]);
        bytes[8..10].copy_from_slice(&h.to_le_bytes()[1..3]);
        assert_eq!(Decoder::new(origin).step(&bytes), Step::Corrupt(Corruption::LsnOverflow));
    }

    #[test]
    fn records_of_another_segment_are_corrupt() {
        for bytes in samples() {
            for id in [6, 8, 7 ^ (1 << 63), 0, u64::MAX] {
                let step = Decoder::new(Origin { segment_id: id, ..ORIGIN }).step(&bytes);
                assert_eq!(step, Step::Corrupt(Corruption::HeaderChecksum));
            }
        }
    }

    #[test]
    fn a_small_header_counts_from_the_base_lsn() {
        let record = Record::put(9, b"key", b"value");
        let (mut bytes, elsewhere) = (Vec::new(), Origin { base_lsn: BASE + 100, ..ORIGIN });
        Encoder::new(elsewhere).append(&Record { lsn: 109, ..record }, &mut bytes).unwrap();
        assert_eq!(bytes, encoded(&record));
        assert_eq!(
            Decoder::new(elsewhere).step(&bytes),
            Step::Record { record: Record { lsn: 109, ..record }, len: 22 }
        );
    }

    #[test]
    fn the_longest_announced_lengths_are_torn() {
        let bytes = forged(&Record::put(9, b"", b""), |bytes| bytes[1..4].fill(0xff));
        assert_eq!(decoder().step(&bytes), Step::Torn);
        let bytes = forged(&Record::put(0, b"", b""), |bytes| bytes[1..7].fill(0xff));
        assert_eq!(decoder().step(&bytes), Step::Torn);
    }

    #[test]
    fn check_header_reads_what_step_reads() {
        for record in [Record::delete(9, b"key").with_more(), Record::put(0, b"key", b"value")] {
            let bytes = encoded(&record);
            let info = decoder().check_header(&bytes).unwrap();
            assert_eq!(Some(info), crate::peek(&bytes));
            assert_eq!(decoder().check_header(&bytes[..info.header_len]), Some(info));
            assert_eq!(decoder().check_header(&bytes[..info.header_len - 1]), None);
            assert_eq!(Decoder::new(Origin { segment_id: 8, ..ORIGIN }).check_header(&bytes), None);
        }
        assert_eq!(decoder().check_header(&[0; 24]), None);
    }
}
