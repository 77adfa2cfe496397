//! Reads a segment past damage: every intact record, and each damaged part between them.

use kv_wal_format::{
    Decoder, Mark, Origin, Record, SEGMENT_HEADER_LEN, Scanner, SegmentKind, Step, Stop, StopReason,
    encoded_len, parse_trusted, peek_lsn,
};
use std::ops::Range;

use super::damage::{Lost, LostChange};

/// A part of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// An intact record of a whole batch, or a mark, or the seal; and its bytes.
    Record(Range<usize>, Record<'a>),
    /// A part that holds no whole batch.
    Broken(Broken),
}

/// A part that holds no whole batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The place of the next valid record, or the end of the segment.
    resume: usize,
    /// The first unreadable byte, or the record that does not continue its batch.
    pub(super) fault: usize,
    pub(super) reason: StopReason,
    pub(super) lost: Lost,
}

/// The result of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walked {
    /// The first stop. A plain scan ends there.
    pub(super) stop: Stop,
    /// End of the last whole batch, or of the seal.
    pub(super) end: usize,
}

/// Gives every part of the segment to `visit`, from front to back. Bytes behind a seal, and zeros
/// at the end, are no part.
///
/// Behind damage, the walk looks for the next valid record at every byte. It skips the body of a
/// record whose header is intact, because a value may hold a copy of records. But other bytes pass
/// for a small header once in 65,536 tries, and must not hide records. So the walk skips a body
/// only if a record may follow it.
///
/// A batch that has lost a member is broken as a whole. The walk recognises the rest of such a
/// batch by an intact member or header before it. If there is none, the LSN of a log segment may
/// tell: LSNs have no gap, so damage right before the next LSN is damage of that change, unless
/// marks fill the place. Otherwise the walk takes the changes behind the damage for a whole batch.
pub(super) fn walk<'a>(
    origin: Origin,
    kind: SegmentKind,
    bytes: &'a [u8],
    mut visit: impl FnMut(Piece<'a>),
) -> Walked {
    let (mut start, mut last_lsn, mut first_stop) = (SEGMENT_HEADER_LEN, 0, None);
    loop {
        let mut scanner = Scanner::new(origin, bytes, start);
        for (range, record) in scanner.by_ref() {
            visit(Piece::Record(range, record));
        }
        let stop = scanner.stop();
        last_lsn = last_lsn.max(stop.last_lsn);
        let walked = Walked { stop: *first_stop.get_or_insert(stop), end: stop.offset };
        let rest = bytes.get(stop.fault..).unwrap_or_default();
        let is_whole = match stop.reason {
            StopReason::Sealed => true,
            StopReason::End => is_zero(rest),
            // The segment ends before its first record.
            StopReason::Torn => rest.is_empty() && stop.offset == stop.fault,
            _ => false,
        };
        if is_whole {
            return walked;
        }
        let broken = Search::new(origin, bytes, &stop, last_lsn).run(kind);
        start = broken.resume;
        last_lsn = broken.lost.named.iter().fold(last_lsn, |last, one| last.max(one.lsn));
        visit(Piece::Broken(broken));
        if start >= bytes.len() {
            return walked;
        }
    }
}

/// The search for the end of a damaged part.
struct Search<'a> {
    decoder: Decoder,
    base_lsn: u64,
    bytes: &'a [u8],
    stop: Stop,
    /// The bytes before this offset are looked at.
    at: usize,
    /// The LSN of the batch that goes on at `at`.
    batch_lsn: Option<u64>,
    /// The highest LSN up to here.
    last_lsn: u64,
    /// The beginning of bytes up to `at` that no header explains.
    unknown: Option<usize>,
    lost: Lost,
}

impl<'a> Search<'a> {
    fn new(origin: Origin, bytes: &'a [u8], stop: &Stop, last_lsn: u64) -> Self {
        let lost = Lost { lsn_min: last_lsn, ..Lost::nothing() };
        let (decoder, at, base_lsn) = (Decoder::new(origin), stop.offset, origin.base_lsn);
        Search { decoder, base_lsn, bytes, stop: *stop, at, batch_lsn: None, last_lsn, unknown: None, lost }
    }

    fn run(mut self, kind: SegmentKind) -> Broken {
        // In a compacted segment, changes of one batch are apart, and share its LSN.
        self.lost.lsn_min += u64::from(kind == SegmentKind::Log);
        while self.at < self.stop.fault
            && let Some((record, len)) = self.next_record()
        {
            self.lose(&record, len);
        }
        self.at = self.stop.fault;
        if self.stop.reason == StopReason::BrokenBatch {
            // The next record is whole, and of another batch.
            self.batch_lsn = None;
        } else {
            self.skip_damage();
        }
        while let Some((next, len)) = self.next_record() {
            if !self.belongs_to_batch(&next, kind) {
                break;
            }
            self.lose(&next, len);
            if self.batch_lsn.is_some() && self.next_record().is_none() {
                self.skip_damage();
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Broken {
        let named = self.lost.named.iter().map(|one| one.lsn);
        if self.lost.others {
            self.lost.lsn_max = self.next_record().map(|(next, _)| next.lsn);
        } else {
            self.lost.lsn_min = named.clone().min().unwrap_or(self.lost.lsn_min);
            self.lost.lsn_max = named.max();
        }
        let Stop { offset: start, fault, reason, .. } = self.stop;
        // Zeros at the end of the segment are unused.
        let part = self.bytes.get(fault..self.at).unwrap_or_default();
        let used = part.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let end = if self.at < self.bytes.len() { self.at } else { fault + used };
        Broken { start, end, resume: self.at, fault, reason, lost: self.lost }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The record at `at`, and its length.
    fn next_record(&self) -> Option<(Record<'a>, usize)> {
        match self.decoder.step(self.rest()) {
            Step::Record { record, len } => Some((record, len)),
            _ => None,
        }
    }

    /// Whether `next`, the record at `at`, is of the batch that has lost members before it.
    fn belongs_to_batch(&self, next: &Record<'_>, kind: SegmentKind) -> bool {
        if !next.kind.is_change() {
            return false;
        }
        match (self.batch_lsn, self.unknown) {
            (Some(lsn), _) => next.lsn == lsn,
            (None, Some(unknown)) => {
                // All marks between two changes have the LSN of the first one, so the same length.
                let mark_len = encoded_len(self.base_lsn, self.last_lsn, 0, Mark::BODY_LEN);
                let may_be_marks = (self.at - unknown).is_multiple_of(mark_len);
                kind == SegmentKind::Log && next.lsn == self.last_lsn.saturating_add(1) && !may_be_marks
            }
            (None, None) => false,
        }
    }

    /// Takes the intact record at `at`, a change, for lost.
    fn lose(&mut self, record: &Record<'_>, len: usize) {
        let (offset, key) = (self.at as u64, Some(record.key.to_vec()));
        self.lost.named.push(LostChange { offset, lsn: record.lsn, key, is_intact: true });
        self.pass(len, record.lsn, record.more);
    }

    /// Goes on behind a record of which at least the header is intact.
    fn pass(&mut self, len: usize, lsn: u64, more: bool) {
        self.at = self.at.saturating_add(len).min(self.bytes.len());
        self.last_lsn = self.last_lsn.max(lsn);
        self.batch_lsn = more.then_some(lsn);
        self.unknown = None;
    }

    /// Goes on to the next valid record, or to the end.
    fn skip_damage(&mut self) {
        while self.at < self.bytes.len() && self.next_record().is_none() {
            let header = self.decoder.check_header(self.rest()).zip(peek_lsn(self.base_lsn, self.rest()));
            let end = header.map(|(info, _)| self.at.saturating_add(info.encoded_len()));
            // Right behind a whole record, bytes that pass for a header are one. The file may cut
            // its body.
            let is_expected = self.unknown.is_none();
            let is_followed = end.is_some_and(|end| {
                self.decoder.may_follow(self.bytes, end) || is_expected && end > self.bytes.len()
            });
            let header = header.filter(|_| is_followed || is_expected);
            if let Some((info, lsn)) = header {
                if info.kind.is_change() {
                    let record = parse_trusted(self.base_lsn, self.rest());
                    let key = record.map(|record| record.key.to_vec());
                    let offset = self.at as u64;
                    self.lost.named.push(LostChange { offset, lsn, key, is_intact: false });
                }
                if is_followed {
                    self.pass(info.encoded_len(), lsn, info.more);
                    continue;
                }
                self.batch_lsn = info.more.then_some(lsn);
            }
            self.unknown.get_or_insert(self.at);
            self.lost.others = true;
            // No record starts with a zero.
            let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
            self.at += 1 + rest.iter().position(|byte| *byte != 0).unwrap_or(rest.len());
        }
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
