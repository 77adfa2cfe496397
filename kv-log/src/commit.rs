//! Commit: a change takes its LSN, is encoded once into the head segment, and becomes visible.
//!
//! All of that happens under one lock, the commit lock, so the order of LSNs, the order of bytes in the
//! log and the order of visibility are one and the same: what the contract calls log order. What can be
//! done before it is done before: limits, hash, checksum of key and value, the search for the record that the
//! change replaces, which may have to be read from a file, and then, with the key's shard of the index locked, another look
//! whether that is still the one. If it has moved on, and to where only a file would tell, the shard is given back, and
//! the search is done once more.
//!
//! Lock order of the engine: leadership of a flush (`flush`) -> shards of the index in ascending order -> commit lock ->
//! making of spares -> spares -> manifest -> segments. No lock is held while a caller's code runs.

use kv_core::{Batch, Change, Error, Result};
use kv_wal_format::{Record, RecordKind, SEGMENT_HEADER_LEN, body_checksum, encoded_len};
use std::thread;
use std::time::Duration;

use crate::catalog::Need;
use crate::compaction::Extent;
use crate::head::{LockedEnd, Position, SEAL_LEN};
use crate::index::{Hint, KeyHash, LockedShard, Newest, Unresolved};
use crate::readers::{Guard, collect, pin};
use crate::segment::{Found, Location, SEGMENT_BYTES_MAX};
use crate::store::{Store, is_full};

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
    /// Where the key pointed a moment ago: no lock is held while memory or a file is waited for.
    hint: Hint,
}

impl<'a> Prepared<'a> {
    #[inline]
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

/// What a change has been through before this attempt to commit it.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    /// It waited for a flush, and once is enough.
    has_waited: bool,
    /// How it may go on in a new segment.
    need: Need,
}

impl Attempt {
    fn first(is_relief: bool) -> Self {
        Attempt { has_waited: false, need: if is_relief { Need::Relief } else { Need::Growth } }
    }

    fn after_waiting(self) -> Self {
        Attempt { has_waited: true, ..self }
    }
}

/// What became of an attempt to commit.
enum Outcome<T> {
    Done(T),
    /// A record has to be read from a file first.
    LookAgain,
    /// Too much is unflushed.
    NoRoom,
}

impl Store {
    /// Commits a put.
    pub(crate) fn commit_put(&self, key: &[u8], value: &[u8]) -> Result<Position> {
        self.options.limits.check_key(key)?;
        self.options.limits.check_value(value)?;
        Ok(self.commit_one(Record::put(0, key, value))?.expect("a put always changes something"))
    }

    /// Commits a delete; `None` when the key was not there.
    pub(crate) fn commit_delete(&self, key: &[u8]) -> Result<Option<Position>> {
        self.check_key(key)?;
        self.commit_one(Record::delete(0, key))
    }

    /// Commits a change; `None` when there is nothing to change.
    #[inline]
    fn commit_one(&self, record: Record<'_>) -> Result<Option<Position>> {
        let mut attempt = Attempt::first(record.kind == RecordKind::Delete);
        loop {
            self.health.check_writable()?;
            let guard = pin();
            let mut change = Prepared::new(self, record, &guard)?;
            let outcome = loop {
                match self.try_commit_one(&mut change, attempt, &guard) {
                    Ok(Outcome::LookAgain) => change.look_up(self, &guard)?,
                    outcome => break outcome,
                }
            };
            // The thread is not pinned while it waits, so it has to find out again what it found out before.
            drop(guard);
            attempt = match outcome {
                Ok(Outcome::Done(position)) => return Ok(position),
                Ok(Outcome::LookAgain | Outcome::NoRoom) => {
                    self.wait_for_room(record.encoded_len())?;
                    attempt.after_waiting()
                }
                Err(error) => self.make_way(attempt, error)?,
            };
        }
    }

    /// Compacts on behalf of a change that found the disk full, or no segment free; returns how the change may try
    /// again.
    ///
    /// # Errors
    /// `error`, where nothing is to be gained, and all other errors.
    #[cold]
    fn make_way(&self, attempt: Attempt, error: Error) -> Result<Attempt> {
        if !is_full(&error) || self.health.is_poisoned() {
            return Err(error);
        }
        let report = match self.compact(Extent::Pressed(attempt.need)) {
            Err(error) if self.health.is_poisoned() => return Err(error),
            report => report.unwrap_or_default(),
        };
        self.wait_for_removed_files();
        match attempt.need {
            _ if report.freed_bytes > 0 => Ok(attempt),
            Need::Relief => Ok(Attempt { need: Need::LastRelief, ..attempt }),
            _ => Err(error),
        }
    }

    /// Waits a little until no reader keeps the files open that a compaction removed, and with them their space.
    fn wait_for_removed_files(&self) {
        for _ in 0..20 {
            collect();
            if self.segments.retired_bytes() == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[inline]
    fn try_commit_one(
        &self,
        change: &mut Prepared<'_>,
        attempt: Attempt,
        guard: &Guard,
    ) -> Result<Outcome<Option<Position>>> {
        let len = change.record.encoded_len();
        let mut shard = self.index.lock(self.index.shard_of(change.hash));
        let before = shard.resolve(change.hash, change.record.key, &change.hint, &self.segments, guard);
        let Ok(before) = before else { return Ok(Outcome::LookAgain) };
        if !change.is_effective(before) {
            return Ok(Outcome::Done(None));
        }
        let mut end = self.end.lock();
        if !self.make_room(&mut end, len, attempt)? {
            return Ok(Outcome::NoRoom);
        }
        change.record.lsn = end.next_lsn().get();
        let location = end.head.append(&change.record, change.body_checksum);
        self.publish(&mut shard, change, before, location, guard);
        Ok(Outcome::Done(Some(self.committed(&mut end, len))))
    }

    /// Commits a batch: adjacent records in one segment under one LSN. All shards it touches stay
    /// locked until the last of its changes is in the index.
    pub(crate) fn commit_batch(&self, batch: &Batch) -> Result<Position> {
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

        let is_relief = records.iter().all(|record| record.kind == RecordKind::Delete);
        let mut attempt = Attempt::first(is_relief);
        loop {
            self.health.check_writable()?;
            let guard = pin();
            let prepare = |record| Prepared::new(self, record, &guard);
            let mut changes: Vec<Prepared<'_>> =
                records.iter().copied().map(prepare).collect::<Result<_>>()?;
            let outcome = loop {
                match self.try_commit_batch(&mut changes, attempt, &guard) {
                    Ok(Outcome::LookAgain) => {
                        changes.iter_mut().try_for_each(|change| change.look_up(self, &guard))?;
                    }
                    outcome => break outcome,
                }
            };
            drop(changes);
            drop(guard);
            attempt = match outcome {
                Ok(Outcome::Done(position)) => return Ok(position),
                Ok(Outcome::LookAgain | Outcome::NoRoom) => {
                    self.wait_for_room(len_max)?;
                    attempt.after_waiting()
                }
                Err(error) => self.make_way(attempt, error)?,
            };
        }
    }

    fn try_commit_batch(
        &self,
        changes: &mut [Prepared<'_>],
        attempt: Attempt,
        guard: &Guard,
    ) -> Result<Outcome<Position>> {
        let mut shards: Vec<usize> = changes.iter().map(|change| self.index.shard_of(change.hash)).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut locked: Vec<LockedShard<'_>> = shards.iter().map(|shard| self.index.lock(*shard)).collect();
        let Ok(before) = self.resolve_all(changes, &shards, &locked, guard) else {
            return Ok(Outcome::LookAgain);
        };
        let mut effective: Vec<(&mut Prepared<'_>, Option<Newest>)> =
            changes.iter_mut().zip(before).filter(|(change, before)| change.is_effective(*before)).collect();
        let len: usize = effective.iter().map(|(change, _)| change.record.encoded_len()).sum();
        let mut end = self.end.lock();
        let Some(last) = effective.len().checked_sub(1) else {
            self.health.check_writable()?;
            return Ok(Outcome::Done(end.position()));
        };
        if !self.make_room(&mut end, len, attempt)? {
            return Ok(Outcome::NoRoom);
        }
        let lsn = end.next_lsn();
        for (position, (change, before)) in effective.iter_mut().enumerate() {
            change.record.lsn = lsn.get();
            change.record.more = position < last;
            let location = end.head.append(&change.record, change.body_checksum);
            let shard = position_of(&shards, self.index.shard_of(change.hash));
            let shard = locked.get_mut(shard).expect("every touched shard is locked");
            self.publish(shard, change, *before, location, guard);
        }
        Ok(Outcome::Done(self.committed(&mut end, len)))
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
        let mut end = self.end.lock();
        self.health.check_writable()?;
        if end.head.has_changes() { self.roll(&mut end, 0, Need::Relief) } else { Ok(()) }
    }

    /// Sees to it that the head can take a change with records of `len` bytes. `false` when too much is unflushed: then the
    /// caller has to wait, with no lock held, and once is enough.
    #[inline]
    fn make_room(&self, end: &mut LockedEnd<'_>, len: usize, attempt: Attempt) -> Result<bool> {
        self.health.check_writable()?;
        if !attempt.has_waited && !self.has_room_for(len, end.position()) {
            return Ok(false);
        }
        if !end.head.has_room(len) {
            self.roll(end, len, attempt.need)?;
        }
        Ok(true)
    }

    /// Goes on in a segment with room for `len` bytes, and seals the head.
    #[cold]
    fn roll(&self, end: &mut LockedEnd<'_>, len: usize, need: Need) -> Result<()> {
        // A head that was made and is forgotten would be a gap in the log.
        let _poison = self.health.poison_on_panic(self.dir.path());
        let next = self.next_heads(SEGMENT_HEADER_LEN + len + SEAL_LEN, need, end.last_lsn());
        next.map_err(|error| self.poison_unless_refused(error))?.into_iter().for_each(|next| end.roll(next));
        Ok(())
    }

    /// Has the index point at the record of a change, or forget the key. To be seen when the shard is unlocked.
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
        let went = before.map_or(0, |before| key.len() + before.value_len);
        if kind == RecordKind::Put {
            shard.insert(change.hash, before.map(|before| before.location), location);
            shard.count_pairs(key.len() + value.len(), went);
        } else if let Some(before) = before {
            shard.remove(change.hash, before.location);
            shard.count_pairs(0, went);
        }
        if let Some(Newest { location, value_len }) = before {
            // Under the commit lock: a flush that makes this change durable comes later, and only then may compaction
            // drop what hides the record that died.
            self.segments.get(location, guard).sums.died(encoded_len(key.len(), value_len) as u64);
        }
    }

    /// Counts a change that is in the log. Before its shards are unlocked: whoever reads it finds it counted, so that a sync
    /// that follows covers it.
    #[inline]
    fn committed(&self, end: &mut LockedEnd<'_>, len: usize) -> Position {
        if end.head.spare_becomes_due() {
            self.spares_due();
        }
        let position = end.advance(len);
        self.progress.changed(&*self.env.clock);
        position
    }
}
