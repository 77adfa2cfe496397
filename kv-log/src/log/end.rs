//! The end of the log: the active segment, and the newest visible change.
//!
//! Every change writes here. All that it writes lies on one cache line, together with the commit
//! lock. With several writers, this line moves from processor to processor. Each further line would
//! delay the next writer once more (decision 12). So a change does not store derived figures. The
//! number of changes follows from their LSNs. The sums of the active segment are updated on demand
//! ([`LockedEnd::settle`]).

use kv_core::{Lsn, SegmentId};
use kv_wal_format::{Encoder, Mark, Record, RecordKind, Seal, body_checksum, encoded_len_max};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::segments::{Image, Location, Segment};
use crate::sync::change;
use kv_core::parts::Position;

/// Room that every segment keeps for its seal, bytes.
pub(crate) const SEAL_LEN_MAX: usize = encoded_len_max(0, Seal::BODY_LEN);
pub(crate) const MARK_LEN_MAX: usize = encoded_len_max(0, Mark::BODY_LEN);

/// The end of the log. It has cache lines of its own, because other threads read its neighbours.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct LogEnd {
    /// LSN of the newest change. After a crash, the next change skips LSNs.
    lsn: AtomicU64,
    /// Bytes of the records of changes since the store was opened.
    bytes: AtomicU64,
    /// The commit lock.
    active: Mutex<Active>,
    /// LSNs up to this one belong to earlier openings. Above it, LSNs have no gaps.
    lsn_floor: Lsn,
}

/// The active segment, guarded by the commit lock. The fields that every change writes come first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Active {
    /// Offset of the next record.
    end: usize,
    /// Puts and deletes in the segment.
    records: u64,
    put_bytes: u64,
    tombstone_bytes: u64,
    /// The segment's image.
    image: Arc<Image>,
    /// Bytes whose space in the file is reserved.
    capacity: usize,
    slot: u16,
    /// Whether the spares worker was woken for this segment.
    spare_due: bool,
    encoder: Encoder,
    pub(crate) segment: Arc<Segment>,
    /// Sealed segments that the flusher has not taken yet, oldest first.
    pub(crate) sealed: Vec<Arc<Segment>>,
    /// Where the newest sealed segment ends.
    pub(crate) sealed_to: Position,
    /// The newest mark of the log dates the changes up to this one.
    dated_lsn: Lsn,
}

/// The end of the log, with the commit lock held.
#[derive(Debug)]
pub(crate) struct LockedEnd<'a> {
    end: &'a LogEnd,
    pub(crate) active: MutexGuard<'a, Active>,
}

impl LogEnd {
    /// Of a store that was recovered up to `last_lsn`. The next change goes to `active`, of which
    /// `capacity` bytes may be used, and its LSN is above `lsn_floor`. Marks date the changes up to
    /// `dated_lsn`.
    pub(crate) fn new(
        active: Arc<Segment>,
        capacity: usize,
        last_lsn: Lsn,
        lsn_floor: Lsn,
        dated_lsn: Lsn,
    ) -> Self {
        let mut active = Active { dated_lsn, ..Active::new(active) };
        active.capacity = active.capacity.min(capacity);
        LogEnd { lsn: last_lsn.get().into(), bytes: 0.into(), active: Mutex::new(active), lsn_floor }
    }

    #[inline]
    pub(crate) fn lock(&self) -> LockedEnd<'_> {
        LockedEnd { end: self, active: self.active.lock() }
    }

    /// Updates the sums of the active segment, unless a writer holds the commit lock.
    pub(crate) fn try_settle(&self) {
        if let Some(active) = self.active.try_lock() {
            LockedEnd { end: self, active }.settle();
        }
    }

    /// The id of the active segment.
    pub(crate) fn active_id(&self) -> SegmentId {
        self.active.lock().segment.id
    }

    /// The id of the active segment, and the bytes of its file.
    pub(crate) fn active_id_and_capacity(&self) -> (SegmentId, usize) {
        let active = self.active.lock();
        (active.segment.id, active.capacity)
    }

    #[inline]
    pub(crate) fn position(&self) -> Position {
        let lsn = self.last_lsn();
        let changes = lsn.get().saturating_sub(self.lsn_floor.get());
        Position { lsn, changes, bytes: self.bytes.load(Ordering::Relaxed) }
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
        self.last_lsn().max(self.end.lsn_floor).next()
    }

    /// Makes the change with the next LSN the newest one. Its records have `len` bytes and are in
    /// the log.
    #[inline]
    pub(crate) fn advance(&mut self, len: usize) -> Position {
        let lsn = self.next_lsn();
        change(&self.end.bytes, |bytes| bytes + len as u64);
        // Release pairs with the Acquire in `LogEnd::last_lsn`: a thread that sees the LSN also
        // sees the bytes counted.
        self.end.lsn.store(lsn.get(), Ordering::Release);
        self.position()
    }

    /// Seals the active segment, and makes `next`, which is blank, the active one.
    pub(crate) fn roll(&mut self, next: Arc<Segment>) {
        self.seal();
        let sealed = std::mem::take(&mut self.active.sealed);
        let (sealed_to, dated_lsn) = (self.position(), self.active.dated_lsn);
        let next = Active { sealed, sealed_to, dated_lsn, ..Active::new(next) };
        let full = std::mem::replace(&mut *self.active, next).segment;
        self.active.sealed.push(full);
    }

    /// Updates the sums of the active segment.
    pub(crate) fn settle(&self) {
        let Active { end, records, put_bytes, tombstone_bytes, .. } = *self.active;
        self.active.segment.set_end(end);
        self.active.segment.tally.settle(records, put_bytes, tombstone_bytes, self.last_lsn());
    }

    fn seal(&mut self) {
        self.settle();
        let body = self.active.segment.seal().encode_body();
        let seal = Record::seal(self.last_lsn().get(), &body);
        self.active.append(&seal, body_checksum(b"", &body));
        self.settle();
        self.active.segment.mark_sealed();
    }

    /// Appends a mark with the durable LSN and the time, if there is room. A mark dates the changes
    /// before it, and lets recovery tell damage from a torn tail.
    pub(crate) fn append_mark(&mut self, durable: Lsn, unix_time_ms: u64) {
        if self.active.has_room(0) {
            let body = Mark { durable_lsn: durable.get(), unix_time_ms }.encode_body();
            let mark = Record::mark(self.last_lsn().get(), &body);
            self.active.append(&mark, body_checksum(b"", &body));
            self.active.dated_lsn = self.last_lsn();
        }
    }

    /// Whether a mark dates every change.
    pub(crate) fn is_dated(&self) -> bool {
        self.active.dated_lsn >= self.last_lsn()
    }
}

impl Active {
    fn new(segment: Arc<Segment>) -> Self {
        segment.mark_active();
        Active {
            end: segment.end(),
            records: segment.tally.records(),
            put_bytes: segment.tally.put_bytes(),
            tombstone_bytes: segment.tally.tombstone_bytes.load(Ordering::Relaxed),
            image: segment
                .share_image()
                .expect("a segment gives up its image only once it is sealed and durable"),
            capacity: segment.capacity,
            slot: segment.slot,
            spare_due: false,
            encoder: Encoder::new(segment.origin()),
            segment,
            sealed: Vec::new(),
            sealed_to: Position::default(),
            dated_lsn: Lsn::ZERO,
        }
    }

    /// Whether there is room for records of `len` bytes, and a mark that dates them.
    #[inline]
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.end + len + MARK_LEN_MAX + SEAL_LEN_MAX <= self.capacity
    }

    /// Bytes of the segment's file.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether the segment holds a change.
    pub(crate) fn has_changes(&self) -> bool {
        self.records > 0
    }

    /// Whether the segment is full enough for its successor to be made.
    pub(crate) fn is_filling_up(&self) -> bool {
        self.end > self.capacity / 4
    }

    /// As [`is_filling_up`](Self::is_filling_up), but true once only.
    #[inline]
    pub(crate) fn spare_becomes_due(&mut self) -> bool {
        let becomes_due = !self.spare_due && self.is_filling_up();
        self.spare_due |= becomes_due;
        becomes_due
    }

    /// Writes one record at the end of the log. Returns its place and its length in bytes. The
    /// caller has checked that there is room.
    #[inline]
    pub(crate) fn append(&mut self, record: &Record<'_>, body_checksum: u32) -> (Location, usize) {
        let len = self.encoder.encoded_len(record);
        // SAFETY: the caller holds the commit lock, so it is the only writer of the active segment.
        // The bytes from `end` on were never published.
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
                    self.segment.tally.first_put(record.lsn);
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
        (location, len)
    }
}
