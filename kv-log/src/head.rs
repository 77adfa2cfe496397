//! The head: the segment at the end of the log, and how far the log is visible.
//!
//! Every change writes here, and so what it writes lies on one cache line, with the lock: with several writers, that line goes
//! from processor to processor, and each further one would make the next writer wait once more (decision 12). What
//! follows from the rest is not written: how many changes there were follows from their LSNs, and what the head's segment
//! tells of itself is brought up to date when somebody needs it ([`LockedEnd::settle`]).

use kv_core::{Lsn, SegmentId};
use kv_wal_format::{Encoder, Mark, Record, RecordKind, Seal, body_checksum, encoded_len};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::segment::{Image, Location, Segment};
use crate::sync::change;

/// Room that every segment keeps for its seal.
pub(crate) const SEAL_LEN: usize = encoded_len(0, Seal::BODY_LEN);
pub(crate) const MARK_LEN: usize = encoded_len(0, Mark::BODY_LEN);

/// A place in log order, as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lsn: Lsn,
    /// Of the records of changes since the store was opened.
    pub(crate) bytes: u64,
}

/// Where the log ends. On cache lines of its own: others read what lies beside it.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct LogEnd {
    /// Of the newest change. Not always the one before the next: numbers are skipped after a crash.
    lsn: AtomicU64,
    /// Of the records of changes since the store was opened.
    bytes: AtomicU64,
    /// The commit lock.
    head: Mutex<Head>,
}

/// What the commit lock guards. What every change writes comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head {
    /// Where the next record goes.
    end: usize,
    /// Puts and deletes in the segment, and their bytes.
    records: u64,
    put_bytes: u64,
    tombstone_bytes: u64,
    /// Of the segment.
    image: Arc<Image>,
    /// Bytes that have their space in the file.
    capacity: usize,
    slot: u16,
    /// Whether a spare was asked for.
    spare_due: bool,
    encoder: Encoder,
    /// LSNs up to this one belong to earlier openings.
    lsn_floor: Lsn,
    pub(crate) segment: Arc<Segment>,
    /// Sealed segments that are not written and synced yet, oldest first.
    pub(crate) sealed: Vec<Arc<Segment>>,
}

/// The end of the log, for whom it is locked.
#[derive(Debug)]
pub(crate) struct LockedEnd<'a> {
    end: &'a LogEnd,
    pub(crate) head: MutexGuard<'a, Head>,
}

impl LogEnd {
    /// Of a store that was recovered up to `last_lsn`, or is new, and goes on in `head`, of which
    /// `capacity` bytes may be used, with LSNs above `lsn_floor`.
    pub(crate) fn new(head: Arc<Segment>, capacity: usize, last_lsn: Lsn, lsn_floor: Lsn) -> Self {
        let mut head = Head::new(head, lsn_floor);
        head.capacity = head.capacity.min(capacity);
        let head = Mutex::new(head);
        LogEnd { lsn: last_lsn.get().into(), bytes: 0.into(), head }
    }

    #[inline]
    pub(crate) fn lock(&self) -> LockedEnd<'_> {
        LockedEnd { end: self, head: self.head.lock() }
    }

    /// Brings what the head's segment tells of itself up to date, unless a writer is at it.
    pub(crate) fn try_settle(&self) {
        if let Some(head) = self.head.try_lock() {
            LockedEnd { end: self, head }.settle();
        }
    }

    /// The active segment, and the bytes of its file.
    pub(crate) fn head_capacity(&self) -> (SegmentId, usize) {
        let head = self.head.lock();
        (head.segment.id, head.capacity)
    }

    #[inline]
    pub(crate) fn position(&self) -> Position {
        Position { lsn: self.last_lsn(), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    #[inline]
    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn::new(self.lsn.load(Ordering::Acquire))
    }
}

impl LockedEnd<'_> {
    #[inline]
    pub(crate) fn position(&self) -> Position {
        self.end.position()
    }

    pub(crate) fn last_lsn(&self) -> Lsn {
        self.end.last_lsn()
    }

    /// The LSN of the next change.
    #[inline]
    pub(crate) fn next_lsn(&self) -> Lsn {
        self.last_lsn().max(self.head.lsn_floor).next()
    }

    /// Counts the change with the next LSN and records of `len` bytes: it is in the log.
    #[inline]
    pub(crate) fn advance(&mut self, len: usize) -> Position {
        let lsn = self.next_lsn();
        change(&self.end.bytes, |bytes| bytes + len as u64);
        // Release: who sees the LSN sees the change counted.
        self.end.lsn.store(lsn.get(), Ordering::Release);
        self.position()
    }

    /// Goes on in `next`, which is blank.
    pub(crate) fn roll(&mut self, next: Arc<Segment>) {
        self.seal();
        let sealed = std::mem::take(&mut self.head.sealed);
        let next = Head { sealed, ..Head::new(next, self.head.lsn_floor) };
        let full = std::mem::replace(&mut *self.head, next).segment;
        self.head.sealed.push(full);
    }

    /// Brings what the head's segment tells of itself up to date.
    pub(crate) fn settle(&self) {
        let Head { end, records, put_bytes, tombstone_bytes, .. } = *self.head;
        self.head.segment.set_end(end);
        self.head.segment.sums.settle(records, put_bytes, tombstone_bytes, self.last_lsn());
    }

    fn seal(&mut self) {
        self.settle();
        let body = self.head.segment.seal().encode_body();
        let seal = Record::seal(self.last_lsn().get(), &body);
        self.head.append(&seal, body_checksum(b"", &body));
        self.settle();
        self.head.segment.mark_sealed();
    }

    /// Notes in the log up to where it is durable, if there is room: what later proves that damage
    /// before the mark is damage, and dates the changes before it.
    pub(crate) fn append_mark(&mut self, durable: Lsn, unix_time_ms: u64) {
        if self.head.has_room(MARK_LEN) {
            let body = Mark { durable_lsn: durable.get(), unix_time_ms }.encode_body();
            let mark = Record::mark(self.last_lsn().get(), &body);
            self.head.append(&mark, body_checksum(b"", &body));
        }
    }
}

impl Head {
    fn new(segment: Arc<Segment>, lsn_floor: Lsn) -> Self {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Head {
            end: segment.end(),
            records: read(&segment.sums.records),
            put_bytes: read(&segment.sums.put_bytes),
            tombstone_bytes: read(&segment.sums.tombstone_bytes),
            image: segment
                .share_image()
                .expect("a segment gives up its image only once it is sealed and durable"),
            capacity: segment.capacity,
            slot: segment.slot,
            spare_due: false,
            encoder: Encoder::new(segment.id.get()),
            lsn_floor,
            segment,
            sealed: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.end + len + SEAL_LEN <= self.capacity
    }

    /// Whether it holds any change.
    pub(crate) fn has_changes(&self) -> bool {
        self.records > 0
    }

    /// Whether it is time to make a spare.
    pub(crate) fn is_filling_up(&self) -> bool {
        self.end > self.capacity / 4
    }

    /// The same; true once.
    #[inline]
    pub(crate) fn spare_becomes_due(&mut self) -> bool {
        let becomes_due = !self.spare_due && self.is_filling_up();
        self.spare_due |= becomes_due;
        becomes_due
    }

    /// Writes one record at the end of the log. The caller made sure that it fits.
    #[inline]
    pub(crate) fn append(&mut self, record: &Record<'_>, body_checksum: u32) -> Location {
        let len = record.encoded_len();
        // SAFETY: this is the holder of the commit lock, the only writer of the head, and the bytes
        // from `end` on were never published.
        let encoded = unsafe {
            self.image
                .fill(self.end, len, |out| self.encoder.encode_with_body_checksum(record, body_checksum, out))
        };
        assert_eq!(encoded, Ok(len), "limits keep records within the format");
        let location = Location::new(self.slot, self.end);
        self.end += len;
        // The next record is likely to be of the same length.
        self.image.prefetch(self.end, len);
        match record.kind {
            RecordKind::Put => {
                if self.put_bytes == 0 {
                    self.segment.sums.first_put(record.lsn);
                }
                self.records += 1;
                self.put_bytes += len as u64;
            }
            RecordKind::Delete => {
                self.records += 1;
                self.tombstone_bytes += len as u64;
            }
            _ => {}
        }
        location
    }
}
