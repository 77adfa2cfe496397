//! Reads the records of a segment, whole batches only.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;

use crate::decoder::{Decoder, Step};
use crate::error::{Corruption, HeaderError};
use crate::kind::RecordKind;
use crate::layout::SEGMENT_HEADER_LEN;
use crate::record::Record;
use crate::segment_header::{Origin, SegmentHeader};
use crate::trusted::{parse_trusted, peek};

/// Why a scan stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The scan read a seal: the segment is finished.
    Sealed,
    /// After a whole batch, the bytes end or only zeros fill the next record header.
    End,
    /// The bytes end inside a record, or end or turn to zeros between two records of a batch.
    Torn,
    /// The bytes are neither a record nor the beginning of one.
    Corrupt(Corruption),
    /// A valid record follows a member of a batch and does not continue the batch. No writer of
    /// this format and no lost write produces that.
    BrokenBatch,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed => f.write_str("the segment is sealed"),
            Self::End => f.write_str("nothing or only zeros follow"),
            Self::Torn => f.write_str("the bytes end within a record or a batch"),
            Self::Corrupt(corruption) => corruption.fmt(f),
            Self::BrokenBatch => f.write_str("the record after a member of a batch does not continue it"),
        }
    }
}

/// Where and why a scan stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// End of the last whole batch, in bytes from the start of the segment. The scan yielded
    /// everything before it. A log that is cut here is whole.
    pub offset: usize,
    /// Where the scan stopped. Beyond `offset` when the scan stopped inside a batch.
    pub fault: usize,
    /// Why the scan stopped.
    pub reason: StopReason,
    /// Start of the last yielded record; where the scan began when there are none. In a sealed
    /// segment, the seal is there.
    pub last_record: usize,
    /// Highest LSN of the yielded records; zero when there are none.
    pub last_lsn: u64,
}

/// Iterates over the records of one segment, with the ranges of bytes that they take in it.
///
/// The scanner validates a batch to its end before it yields the first record. So a reader that
/// applies every yielded record applies whole batches. The scanner yields marks and the seal, too.
///
/// ```
/// use kv_wal_format::{Encoder, Origin, Record, Scanner, StopReason};
///
/// let origin = Origin { segment_id: 7, base_lsn: 0 };
/// let (mut segment, encoder) = (Vec::new(), Encoder::new(origin));
/// encoder.append(&Record::put(1, b"a", b"1"), &mut segment)?;
/// encoder.append(&Record::put(2, b"b", b"2").with_more(), &mut segment)?;
/// let unfinished = segment.len();
///
/// let mut scanner = Scanner::new(origin, &segment, 0);
/// let keys: Vec<_> = scanner.by_ref().map(|(_, record)| record.key).collect();
/// assert_eq!(keys, [b"a"]);
/// let stop = scanner.stop();
/// assert_eq!((stop.offset, stop.fault, stop.reason), (16, unfinished, StopReason::Torn));
/// # Ok::<(), kv_wal_format::EncodeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    decoder: Decoder,
    base_lsn: u64,
    segment: &'a [u8],
    /// Start of the next record to yield. On a batch boundary once it reaches `validated`.
    offset: usize,
    /// All bytes before this offset are valid, and end with a whole batch.
    validated: usize,
    last_record: usize,
    last_lsn: u64,
    /// Whether validation has stopped. `fault` and `reason` then say where and why.
    halted: bool,
    fault: usize,
    reason: StopReason,
}

impl<'a> Scanner<'a> {
    /// Scans `segment` from offset `start` on, normally [`SEGMENT_HEADER_LEN`]. `segment` is all
    /// bytes of the segment, header included.
    ///
    /// A `start` beyond the end stops the scan at the end at once, as [`StopReason::Torn`].
    pub fn new(origin: Origin, segment: &'a [u8], start: usize) -> Self {
        let offset = start.min(segment.len());
        Self {
            decoder: Decoder::new(origin),
            base_lsn: origin.base_lsn,
            segment,
            offset,
            validated: offset,
            last_record: offset,
            last_lsn: 0,
            halted: start > segment.len(),
            fault: offset,
            reason: StopReason::Torn,
        }
    }

    /// Reads the header of `segment`, and scans from the first record.
    ///
    /// # Errors
    ///
    /// As [`SegmentHeader::decode`].
    pub fn open(segment: &'a [u8]) -> Result<(SegmentHeader, Self), HeaderError> {
        let header = SegmentHeader::decode(segment)?;
        Ok((header, Self::new(header.origin(), segment, SEGMENT_HEADER_LEN)))
    }

    /// Scans the remaining records, and returns where and why the scan stopped.
    pub fn stop(&mut self) -> Stop {
        while self.next().is_some() {}
        let Self { validated: offset, fault, reason, last_record, last_lsn, .. } = *self;
        Stop { offset, fault, reason, last_record, last_lsn }
    }

    fn halt(&mut self, fault: usize, reason: StopReason) {
        (self.halted, self.fault, self.reason) = (true, fault, reason);
    }

    /// Validates one more batch, or records where and why that fails.
    fn validate_batch(&mut self) {
        let mut at = self.validated;
        let mut batch_lsn = None;
        loop {
            let reason = match self.decoder.step(self.segment.get(at..).unwrap_or_default()) {
                Step::Record { record, .. }
                    if batch_lsn.is_some_and(|lsn| !continues_batch(&record, lsn)) =>
                {
                    StopReason::BrokenBatch
                }
                Step::Record { record, len } => {
                    at += len;
                    if record.more {
                        batch_lsn = Some(record.lsn);
                        continue;
                    }
                    self.validated = at;
                    if record.kind == RecordKind::Seal {
                        self.halt(at, StopReason::Sealed);
                    }
                    return;
                }
                Step::End if batch_lsn.is_none() => StopReason::End,
                Step::End | Step::Torn => StopReason::Torn,
                Step::Corrupt(corruption) => StopReason::Corrupt(corruption),
            };
            return self.halt(at, reason);
        }
    }
}

fn continues_batch(record: &Record<'_>, batch_lsn: u64) -> bool {
    record.kind.is_change() && record.lsn == batch_lsn
}

impl<'a> Iterator for Scanner<'a> {
    type Item = (Range<usize>, Record<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset == self.validated && !self.halted {
            self.validate_batch();
        }
        let rest = self.segment.get(self.offset..self.validated)?;
        let (record, info) = parse_trusted(self.base_lsn, rest).zip(peek(rest))?;
        let range = self.offset..self.offset + info.encoded_len();
        (self.offset, self.last_record) = (range.end, range.start);
        self.last_lsn = self.last_lsn.max(record.lsn);
        Some((range, record))
    }
}

impl FusedIterator for Scanner<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::Encoder;
    use crate::mark::Mark;
    use crate::seal::Seal;
    use crate::segment_header::SegmentKind;

    const ORIGIN: Origin = Origin { segment_id: 7, base_lsn: 0 };
    const MARK: [u8; Mark::BODY_LEN] = [1; 16];
    const SEAL: [u8; Seal::BODY_LEN] = [2; 16];

    /// Records of 22 bytes each (marks and seals: 30), without a segment header.
    fn segment(records: &[Record<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in records {
            Encoder::new(ORIGIN).append(record, &mut bytes).unwrap();
        }
        bytes
    }

    fn scan(bytes: &[u8]) -> (Vec<usize>, Stop) {
        let mut scanner = Scanner::new(ORIGIN, bytes, 0);
        let offsets = scanner.by_ref().map(|(range, _)| range.start).collect();
        (offsets, scanner.stop())
    }

    fn put(lsn: u64) -> Record<'static> {
        Record::put(lsn, b"key", b"value")
    }

    /// Bytes, yielded offsets, then `offset`, `fault`, `reason` and `last_lsn` of [`Stop`].
    type Row = (Vec<u8>, &'static [usize], usize, usize, StopReason, u64);

    #[test]
    fn stops() {
        use StopReason::{BrokenBatch, End, Sealed, Torn};
        let zeros = |mut bytes: Vec<u8>| {
            bytes.resize(bytes.len() + 64, 0);
            bytes
        };
        let (mark, seal) = (Record::mark(2, &MARK), Record::seal(2, &SEAL));
        let (more, last) = (put(3).with_more(), put(3));
        let table: [Row; 15] = [
            (segment(&[]), &[], 0, 0, End, 0),
            (zeros(segment(&[])), &[], 0, 0, End, 0),
            (segment(&[put(5), put(4)]), &[0, 22], 44, 44, End, 5),
            (zeros(segment(&[put(1), put(2)])), &[0, 22], 44, 44, End, 2),
            (segment(&[put(1), mark]), &[0, 22], 52, 52, End, 2),
            (segment(&[put(1), seal, put(3)]), &[0, 22], 52, 52, Sealed, 2),
            (segment(&[put(1), more, more, last, put(4)]), &[0, 22, 44, 66, 88], 110, 110, End, 4),
            (segment(&[more, Record::delete(3, b"key")]), &[0, 22], 39, 39, End, 3),
            (segment(&[put(1), more, more]), &[0], 22, 66, Torn, 1),
            (zeros(segment(&[put(1), more, more])), &[0], 22, 66, Torn, 1),
            (segment(&[put(1), more, put(4)]), &[0], 22, 44, BrokenBatch, 1),
            (segment(&[put(1), more, put(2)]), &[0], 22, 44, BrokenBatch, 1),
            (segment(&[put(1), more, more, put(4), last]), &[0], 22, 66, BrokenBatch, 1),
            (segment(&[put(1), more, Record::mark(3, &MARK), last]), &[0], 22, 44, BrokenBatch, 1),
            (segment(&[put(1), more, Record::seal(3, &SEAL)]), &[0], 22, 44, BrokenBatch, 1),
        ];
        for (bytes, offsets, offset, fault, reason, last_lsn) in table {
            let (yielded, stop) = scan(&bytes);
            assert_eq!(yielded, offsets, "{reason:?}");
            let last_record = offsets.last().copied().unwrap_or(0);
            assert_eq!(stop, Stop { offset, fault, reason, last_record, last_lsn });
        }
    }

    #[test]
    fn damage_stops_before_its_batch() {
        let clean = segment(&[put(1), put(2).with_more(), put(2), put(3)]);
        // The damaged byte, and the stop that follows from it.
        for (byte, offset, fault, last_record, last_lsn) in
            [(15, 0, 0, 0, 0), (37, 22, 22, 0, 1), (59, 22, 44, 0, 1), (81, 66, 66, 44, 2)]
        {
            let mut bytes = clean.clone();
            bytes[byte] ^= 1;
            let reason = StopReason::Corrupt(Corruption::RecordChecksum);
            assert_eq!(scan(&bytes).1, Stop { offset, fault, reason, last_record, last_lsn }, "{byte}");
        }
    }

    #[test]
    fn a_stopped_scanner_stays_stopped() {
        let bytes = segment(&[put(1), Record::seal(1, &SEAL), put(2)]);
        let mut scanner = Scanner::new(ORIGIN, &bytes, 0);
        assert_eq!(scanner.by_ref().count(), 2);
        assert!(scanner.next().is_none());
        assert_eq!(scanner.stop(), scanner.stop());
    }

    #[test]
    fn stop_scans_what_is_left() {
        let bytes = segment(&[put(1), put(2).with_more(), put(2)]);
        let mut scanner = Scanner::new(ORIGIN, &bytes, 0);
        assert_eq!(scanner.nth(1).map(|(range, record)| (range, record.more)), Some((22..44, true)));
        let (offset, fault) = (66, 66);
        let stop = Stop { offset, fault, reason: StopReason::End, last_record: 44, last_lsn: 2 };
        assert_eq!(scanner.stop(), stop);
        assert!(scanner.next().is_none());
    }

    #[test]
    fn a_scan_starts_where_it_is_told() {
        let bytes = segment(&[put(1), put(2)]);
        let from = |start| {
            let mut scanner = Scanner::new(ORIGIN, &bytes, start);
            (scanner.by_ref().count(), scanner.stop())
        };
        let end = |last_record, last_lsn| {
            let (offset, fault) = (44, 44);
            Stop { offset, fault, reason: StopReason::End, last_record, last_lsn }
        };
        assert_eq!(from(22), (1, end(22, 2)));
        assert_eq!(from(44), (0, end(44, 0)));
        for beyond in [45, usize::MAX] {
            assert_eq!(from(beyond), (0, Stop { reason: StopReason::Torn, ..end(44, 0) }));
        }
    }

    #[test]
    fn open_reads_the_header_and_skips_it() {
        let header = SegmentHeader { kind: SegmentKind::Log, segment_id: 7, base_lsn: 9, store_id: 0 };
        let mut bytes = header.encode().to_vec();
        Encoder::new(header.origin()).append(&put(10), &mut bytes).unwrap();
        let (found, mut scanner) = Scanner::open(&bytes).unwrap();
        assert_eq!(found, header);
        assert_eq!(scanner.next(), Some((40..62, put(10))));
        assert_eq!(Scanner::open(&bytes[1..]).unwrap_err(), HeaderError::BadMagic);
    }
}
