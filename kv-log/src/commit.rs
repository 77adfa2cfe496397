//! Commit: a change takes its LSN, is encoded once into the head segment, and becomes visible.
//!
//! All of that happens under one lock, the commit lock, so the order of LSNs, the order of bytes in the
//! log and the order of visibility are one and the same: what the contract calls log order. What can be
//! done before it is done before: limits, hash, checksum of key and value, and the search for the record that the
//! change replaces, which may have to be read from a file. If that has moved on, and to where only a file would tell,
//! the lock is given back, and the search is done once more.
//!
//! Lock order of the engine: leadership of a flush (`flush`) -> commit lock -> making of spares -> spares -> manifest ->
//! segments -> shards of the index in ascending order. No lock is held while a caller's code runs.

use kv_core::{Batch, Change, Error, Lsn, Result};
use kv_wal_format::{
    Encoder, Mark, Record, RecordKind, SEGMENT_HEADER_LEN, Seal, body_checksum, encoded_len,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::index::{Hint, KeyHash, LockedShard, Newest, Unresolved};
use crate::readers::{Guard, pin};
use crate::segment::{Found, Image, Location, SEGMENT_BYTES_MAX, Segment};
use crate::store::Store;
use crate::sync::change;

/// Room that every segment keeps for its seal.
pub(crate) const SEAL_LEN: usize = encoded_len(0, Seal::BODY_LEN);
const MARK_LEN: usize = encoded_len(0, Mark::BODY_LEN);

/// What the commit lock guards: the end of the log. What every change needs comes first, on the cache line of the lock.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head {
    pub(crate) segment: Arc<Segment>,
    /// That of the segment.
    image: Arc<Image>,
    /// That of the segment.
    capacity: usize,
    /// Where the next record goes.
    end: usize,
    next_lsn: Lsn,
    /// Of the newest change. Not always the one before `next_lsn`: numbers are skipped after a crash.
    last_lsn: Lsn,
    encoder: Encoder,
    /// That of the segment.
    slot: u16,
    /// Whether a spare was asked for.
    spare_due: bool,
    /// Sealed segments that are not written and synced yet, oldest first.
    pub(crate) sealed: Vec<Arc<Segment>>,
}

fn image_of(head: &Segment) -> Arc<Image> {
    head.share_image().expect("a segment gives up its image only once it is sealed and durable")
}

fn position_of(shards: &[usize], shard: usize) -> usize {
    shards.binary_search(&shard).expect("the shard of every change is among them")
}

/// Refuses a batch that no segment could hold.
fn check_batch_len(len: usize) -> Result<()> {
    let limit = SEGMENT_BYTES_MAX - SEGMENT_HEADER_LEN - SEAL_LEN;
    if len > limit { Err(Error::TooLarge { what: "batch", len, limit }) } else { Ok(()) }
}

/// A change, ready to be committed.
struct Prepared<'a> {
    record: Record<'a>,
    hash: KeyHash,
    body_checksum: u32,
    /// Where the key pointed a moment ago: the commit lock is not held while memory or a file is waited for.
    hint: Hint,
}

impl<'a> Prepared<'a> {
    fn new(store: &Store, record: Record<'a>, guard: &Guard) -> Result<Self> {
        let hash = store.index.hash(record.key);
        store.index.prefetch(hash, guard);
        let body_checksum = body_checksum(record.key, record.value);
        let mut prepared = Prepared { record, hash, body_checksum, hint: Hint::default() };
        prepared.look_up(store, guard)?;
        Ok(prepared)
    }

    fn look_up(&mut self, store: &Store, guard: &Guard) -> Result<()> {
        let (key, others) = (self.record.key, Some(&mut self.hint.others));
        let newest = |location, found: Found<'_>| Newest { location, value_len: found.value.len() };
        self.hint.newest = store.index.find(self.hash, key, others, &store.segments, guard, newest)?;
        Ok(())
    }

    /// Whether it changes anything, given what it would replace.
    fn is_effective(&self, before: Option<Newest>) -> bool {
        self.record.kind == RecordKind::Put || before.is_some()
    }
}

/// What became of an attempt to commit.
enum Outcome<T> {
    Done(T),
    /// A record has to be read from a file first.
    LookAgain,
}

impl Head {
    pub(crate) fn new(segment: Arc<Segment>, last_lsn: Lsn, next_lsn: Lsn) -> Self {
        Head {
            image: image_of(&segment),
            capacity: segment.capacity,
            encoder: Encoder::new(segment.id.get()),
            end: segment.end(),
            slot: segment.slot,
            segment,
            next_lsn,
            last_lsn,
            sealed: Vec::new(),
            spare_due: false,
        }
    }

    fn has_room(&self, len: usize) -> bool {
        self.end + len + SEAL_LEN <= self.capacity
    }

    /// Whether it is time to make a spare.
    pub(crate) fn is_filling_up(&self) -> bool {
        self.end > self.capacity / 4
    }

    /// Writes one record at the end of the log. The caller made sure that it fits.
    fn append(&mut self, record: &Record<'_>, body_checksum: u32) -> Location {
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
        if record.kind.is_change() {
            self.segment.add_record(Lsn::new(record.lsn), record.kind, len);
        }
        if record.kind == RecordKind::Put {
            // Nobody else changes it: what dies in the head dies under the commit lock, and compaction takes sealed segments.
            change(&self.segment.sums.live_bytes, |bytes| bytes + len as u64);
        }
        self.segment.set_end(self.end);
        location
    }

    /// Seals the head, if it holds anything, and goes on in a new segment with room for `len` bytes.
    fn roll(&mut self, store: &Store, len: usize) -> Result<()> {
        let capacity = store.options.segment_bytes.max(SEGMENT_HEADER_LEN + len + SEAL_LEN);
        for next in store.next_heads(capacity, self.last_lsn())? {
            self.seal();
            let sealed = std::mem::take(&mut self.sealed);
            let next = Head { sealed, ..Head::new(next, self.last_lsn, self.next_lsn) };
            let full = std::mem::replace(self, next).segment;
            self.sealed.push(full);
        }
        Ok(())
    }

    fn seal(&mut self) {
        let body = self.segment.seal().encode_body();
        self.append(&Record::seal(self.last_lsn().get(), &body), body_checksum(b"", &body));
        self.segment.mark_sealed();
    }

    /// LSN of the newest change.
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }

    /// Notes in the log up to where it is durable, if there is room: what later proves that damage
    /// before the mark is damage, and dates the changes before it.
    pub(crate) fn append_mark(&mut self, durable: Lsn, unix_time_ms: u64) {
        if self.has_room(MARK_LEN) {
            let body = Mark { durable_lsn: durable.get(), unix_time_ms }.encode_body();
            self.append(&Record::mark(self.last_lsn().get(), &body), body_checksum(b"", &body));
        }
    }

    /// Where the log ends: the head and its length.
    pub(crate) fn position(&self) -> (Arc<Segment>, usize) {
        (Arc::clone(&self.segment), self.end)
    }
}

impl Store {
    /// Commits a put.
    pub(crate) fn commit_put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        self.options.limits.check_key(key)?;
        self.options.limits.check_value(value)?;
        Ok(self.commit_one(Record::put(0, key, value))?.expect("a put always changes something"))
    }

    /// Commits a delete; `None` when the key was not there.
    pub(crate) fn commit_delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        self.options.limits.check_key(key)?;
        self.commit_one(Record::delete(0, key))
    }

    /// Commits a change; `None` when there is nothing to change.
    #[inline]
    fn commit_one(&self, record: Record<'_>) -> Result<Option<Lsn>> {
        self.health.check_writable()?;
        self.wait_for_room(record.encoded_len() as u64)?;
        let guard = pin();
        let mut change = Prepared::new(self, record, &guard)?;
        loop {
            match self.try_commit_one(&mut change, &guard)? {
                Outcome::Done(lsn) => return Ok(lsn),
                Outcome::LookAgain => change.look_up(self, &guard)?,
            }
        }
    }

    #[inline]
    fn try_commit_one(&self, change: &mut Prepared<'_>, guard: &Guard) -> Result<Outcome<Option<Lsn>>> {
        let mut head = self.head.lock();
        self.health.check_writable()?;
        let len = change.record.encoded_len();
        loop {
            let mut shard = self.index.lock(self.index.shard_of(change.hash));
            let before = shard.resolve(change.hash, change.record.key, &change.hint, &self.segments, guard);
            let Ok(before) = before else { return Ok(Outcome::LookAgain) };
            if !change.is_effective(before) {
                return Ok(Outcome::Done(None));
            }
            if head.has_room(len) {
                let lsn = head.next_lsn;
                change.record.lsn = lsn.get();
                let location = head.append(&change.record, change.body_checksum);
                self.publish(&mut shard, change, before, location, guard);
                self.committed(&mut head, lsn, len);
                return Ok(Outcome::Done(Some(lsn)));
            }
            // Not under the lock of a shard. Compaction may move the record meanwhile.
            drop(shard);
            self.roll(&mut head, len)?;
        }
    }

    /// Commits a batch: adjacent records in one segment under one LSN. All shards it touches stay
    /// locked until the last of its changes is in the index.
    pub(crate) fn commit_batch(&self, batch: &Batch) -> Result<Lsn> {
        self.options.limits.check_batch(batch)?;
        let records: Vec<Record<'_>> = batch
            .effective_changes()
            .into_iter()
            .map(|change| match change {
                Change::Put { key, value } => Record::put(0, key, value),
                Change::Delete { key } => Record::delete(0, key),
            })
            .collect();
        let len_max: usize = records.iter().map(Record::encoded_len).sum();
        check_batch_len(len_max)?;
        self.health.check_writable()?;
        self.wait_for_room(len_max as u64)?;

        let guard = pin();
        let prepare = |record| Prepared::new(self, record, &guard);
        let mut changes: Vec<Prepared<'_>> = records.into_iter().map(prepare).collect::<Result<_>>()?;
        loop {
            match self.try_commit_batch(&mut changes, &guard)? {
                Outcome::Done(lsn) => return Ok(lsn),
                Outcome::LookAgain => {
                    changes.iter_mut().try_for_each(|change| change.look_up(self, &guard))?;
                }
            }
        }
    }

    fn try_commit_batch(&self, changes: &mut [Prepared<'_>], guard: &Guard) -> Result<Outcome<Lsn>> {
        let mut shards: Vec<usize> = changes.iter().map(|change| self.index.shard_of(change.hash)).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut head = self.head.lock();
        self.health.check_writable()?;
        loop {
            let mut locked: Vec<LockedShard<'_>> =
                shards.iter().map(|shard| self.index.lock(*shard)).collect();
            let Ok(before) = self.resolve_all(changes, &shards, &locked, guard) else {
                return Ok(Outcome::LookAgain);
            };
            let mut effective: Vec<(&mut Prepared<'_>, Option<Newest>)> = changes
                .iter_mut()
                .zip(before)
                .filter(|(change, before)| change.is_effective(*before))
                .collect();
            let len: usize = effective.iter().map(|(change, _)| change.record.encoded_len()).sum();
            let Some(last) = effective.len().checked_sub(1) else {
                return Ok(Outcome::Done(head.last_lsn()));
            };
            if head.has_room(len) {
                let lsn = head.next_lsn;
                for (position, (change, before)) in effective.iter_mut().enumerate() {
                    change.record.lsn = lsn.get();
                    change.record.more = position < last;
                    let location = head.append(&change.record, change.body_checksum);
                    let shard = position_of(&shards, self.index.shard_of(change.hash));
                    let shard = locked.get_mut(shard).expect("every touched shard is locked");
                    self.publish(shard, change, *before, location, guard);
                }
                self.committed(&mut head, lsn, len);
                return Ok(Outcome::Done(lsn));
            }
            drop(locked);
            self.roll(&mut head, len)?;
        }
    }

    /// What each of the changes would replace.
    fn resolve_all(
        &self,
        changes: &[Prepared<'_>],
        shards: &[usize],
        locked: &[LockedShard<'_>],
        guard: &Guard,
    ) -> Result<Vec<Option<Newest>>, Unresolved> {
        let resolve = |change: &Prepared<'_>| {
            let shard = position_of(shards, self.index.shard_of(change.hash));
            let shard = locked.get(shard).expect("every touched shard is locked");
            shard.resolve(change.hash, change.record.key, &change.hint, &self.segments, guard)
        };
        changes.iter().map(resolve).collect()
    }

    /// Seals the head if it holds any change, so that compaction may look at all of it.
    pub(crate) fn seal_head(&self) -> Result<()> {
        let mut head = self.head.lock();
        self.health.check_writable()?;
        if head.segment.sums.records.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.roll(&mut head, 0)
    }

    /// Goes on in a segment with room for `len` bytes.
    fn roll(&self, head: &mut Head, len: usize) -> Result<()> {
        head.roll(self, len).map_err(|error| self.poison_unless_refused(error))
    }

    /// Makes the change visible: the index points at its record, or forgets the key.
    #[inline]
    fn publish(
        &self,
        shard: &mut LockedShard<'_>,
        change: &Prepared<'_>,
        before: Option<Newest>,
        location: Location,
        guard: &Guard,
    ) {
        let Record { kind, key, value, .. } = change.record;
        if kind == RecordKind::Put {
            self.progress.add_pair(key.len() + value.len());
            shard.insert(change.hash, before.map(|before| before.location), location);
        } else if let Some(before) = before {
            shard.remove(change.hash, before.location);
        }
        if let Some(Newest { location, value_len }) = before {
            let len = encoded_len(key.len(), value_len) as u64;
            self.segments.get(location, guard).sums.live_bytes.fetch_sub(len, Ordering::Relaxed);
            self.progress.remove_pair(key.len() + value_len);
        }
    }

    /// Counts a change that is visible now. Still under the commit lock, and before its shards are unlocked: whoever
    /// reads it finds it counted, so that a sync that follows covers it.
    #[inline]
    fn committed(&self, head: &mut Head, lsn: Lsn, len: usize) {
        head.last_lsn = lsn;
        head.next_lsn = lsn.next();
        if !head.spare_due && head.is_filling_up() {
            head.spare_due = true;
            self.spares_due();
        }
        self.progress.committed(lsn, len as u64, &*self.env.clock);
    }
}
