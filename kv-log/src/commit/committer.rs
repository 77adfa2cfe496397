//! Commit: a change takes its LSN, is encoded once into the active segment, and becomes visible.
//!
//! The writer takes the LSN, appends the record and changes the index under one lock, the commit
//! lock. The change becomes visible when the writer unlocks the index shard, after the commit lock.
//! So the order of LSNs, the order of bytes in the log and the order of visibility are the same
//! order. The contract calls it log order.
//!
//! The writer prepares the change before it takes the lock:
//!
//! 1. Without any lock, it checks the limits, computes the hash and the checksum of key and value,
//!    and looks up the record that the change replaces. This record may have to be read from a
//!    file.
//! 2. With the key's index shard locked, it checks that this record is still the newest. If another
//!    writer has replaced it, and only a file can tell by which record, the writer unlocks the
//!    shard and goes back to step 1.
//! 3. With the shard still locked, it makes room in the index for a new key. If the system has no
//!    memory for that, the change is refused, and the log does not hold it.
//!
//! docs/design.md lists all locks and their order.

use kv_core::{Error, Result};
use kv_wal_format::{Record, RecordKind, body_checksum, encoded_len_max};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::pipeline::{Attempt, Outcome, Pipeline, commit_with};
use crate::compaction::{Compactor, Extent};
use crate::context::Context;
use crate::flush::Flusher;
use crate::index::{Index, KeyHash, LockedShard, Newest};
use crate::log::{LockedEnd, Log};
use crate::manifest::Need;
use crate::reclaim::{Guard, collect, pin};
use crate::segments::{Location, SegmentTable};
use kv_core::parts::{Position, Progress};

/// A change that is ready to be committed.
struct Prepared<'a> {
    record: Record<'a>,
    hash: KeyHash,
    body_checksum: u32,
    /// The record that the key pointed at during the last look-up.
    newest: Option<Newest>,
    /// Cold records of other keys with the same tag.
    others: Vec<Location>,
}

impl<'a> Prepared<'a> {
    #[inline]
    fn new(committer: &Committer, record: Record<'a>, guard: &Guard) -> Result<Self> {
        let hash = committer.index.hash(record.key);
        committer.index.prefetch(hash, guard);
        let body_checksum = body_checksum(record.key, record.value);
        let mut prepared = Prepared { record, hash, body_checksum, newest: None, others: Vec::new() };
        prepared.look_up(committer, guard)?;
        Ok(prepared)
    }

    fn look_up(&mut self, committer: &Committer, guard: &Guard) -> Result<()> {
        let (key, others) = (self.record.key, Some(&mut self.others));
        self.newest =
            committer.index.find(self.hash, key, others, &committer.segments, guard, Newest::new)?;
        Ok(())
    }

    /// Whether the change has an effect if it replaces `before`.
    fn is_effective(&self, before: Option<Newest>) -> bool {
        self.record.kind == RecordKind::Put || before.is_some()
    }
}

/// Commits changes to the log and the index.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(super) context: Arc<Context>,
    pub(super) index: Arc<Index>,
    pub(super) segments: Arc<SegmentTable>,
    pub(super) log: Arc<Log>,
    progress: Arc<Progress>,
    flusher: Arc<Flusher>,
    compactor: Arc<Compactor>,
}

impl Committer {
    pub(crate) fn new(
        context: Arc<Context>,
        index: Arc<Index>,
        segments: Arc<SegmentTable>,
        log: Arc<Log>,
        progress: Arc<Progress>,
        flusher: Arc<Flusher>,
        compactor: Arc<Compactor>,
    ) -> Self {
        Committer { context, index, segments, log, progress, flusher, compactor }
    }

    /// Commits a put.
    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> Result<Position> {
        self.context.options.limits.check_key(key)?;
        self.context.options.limits.check_value(value)?;
        Ok(self.commit_one(Record::put(0, key, value))?.expect("a put always changes something"))
    }

    /// Commits a delete. Returns `None` when the key was absent.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<Option<Position>> {
        self.context.check_key(key)?;
        self.commit_one(Record::delete(0, key))
    }

    /// Commits a change. Returns `None` when it has no effect.
    #[inline]
    fn commit_one(&self, record: Record<'_>) -> Result<Option<Position>> {
        commit_with(self, record.kind == RecordKind::Delete, |attempt| {
            let guard = pin();
            let mut change = Prepared::new(self, record, &guard)?;
            loop {
                match self.try_commit_one(&mut change, attempt, &guard)? {
                    Outcome::LookAgain => change.look_up(self, &guard)?,
                    outcome => return Ok(outcome),
                }
            }
        })
    }

    #[inline]
    fn try_commit_one(
        &self,
        change: &mut Prepared<'_>,
        attempt: Attempt,
        guard: &Guard,
    ) -> Result<Outcome<Option<Position>>> {
        let len_max = encoded_len_max(change.record.key.len(), change.record.value.len());
        let mut shard = self.index.lock(self.index.shard_of(change.hash));
        let before = shard.resolve(
            change.hash,
            change.record.key,
            change.newest,
            &change.others,
            &self.segments,
            guard,
        );
        let Ok(before) = before else { return Ok(Outcome::LookAgain) };
        if !change.is_effective(before) {
            return Ok(Outcome::Done(None));
        }
        if before.is_none() {
            // Before the record is in the log: a refusal changes nothing.
            shard.reserve(1, self.context.path())?;
        }
        let mut end = self.log.end.lock();
        if !self.make_room(&mut end, len_max, attempt)? {
            return Ok(Outcome::NoMemoryYet { len: len_max });
        }
        change.record.lsn = end.next_lsn().get();
        let (location, len) = end.active.append(&change.record, change.body_checksum);
        self.publish(&mut shard, change.hash, &change.record, before, location, guard);
        Ok(Outcome::Done(Some(self.committed(&mut end, len))))
    }

    /// Makes room in the active segment for records of `len` bytes. Returns `false` when there
    /// is no memory: the writer then releases its locks and waits, at most once.
    #[inline]
    pub(super) fn make_room(&self, end: &mut LockedEnd<'_>, len: usize, attempt: Attempt) -> Result<bool> {
        self.context.health.check_change()?;
        let has_memory =
            || self.flusher.has_room_for(len, end.position()) && self.log.has_memory_for(end, len);
        if !attempt.has_waited && !has_memory() {
            return Ok(false);
        }
        self.log.make_room(end, len, attempt.need)?;
        Ok(true)
    }

    /// Points the index at the record of a change, or removes the key. Readers see it once the
    /// writer unlocks the shard.
    #[inline]
    pub(super) fn publish(
        &self,
        shard: &mut LockedShard<'_>,
        hash: KeyHash,
        record: &Record<'_>,
        before: Option<Newest>,
        location: Location,
        guard: &Guard,
    ) {
        let Record { kind, key, value, .. } = *record;
        let went = before.map_or(0, |before| key.len() + before.value_len as usize);
        if kind == RecordKind::Put {
            self.context.note_key_len(key.len());
            shard.insert(hash, before.map(|before| before.location), location);
            shard.count_pairs(key.len() + value.len(), went);
        } else if let Some(before) = before {
            shard.remove(hash, before.location);
            shard.count_pairs(0, went);
        }
        if let Some(Newest { location, record_len, .. }) = before {
            // Under the commit lock: the flush that makes this change durable begins later, and
            // compaction may drop the dead record only after that.
            self.segments.get(location, guard).tally.died_in(shard.number(), u64::from(record_len));
        }
    }

    /// Counts a change that is in the log. The writer still holds the shards, so a reader that sees
    /// the change finds it counted, and a sync after the read covers it.
    #[inline]
    pub(super) fn committed(&self, end: &mut LockedEnd<'_>, len: usize) -> Position {
        if end.active.spare_becomes_due() {
            self.log.spares.wake_worker();
        }
        let position = end.advance(len);
        self.progress.changed(&*self.context.env.clock);
        position
    }

    /// Waits a short time for readers to close the files that a compaction removed. Their space is
    /// free only then.
    fn wait_for_removed_files(&self) {
        for _ in 0..20 {
            collect();
            if self.segments.bytes_in_use_by_readers() == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Pipeline for Committer {
    #[inline]
    fn check_change(&self) -> Result<()> {
        self.context.health.check_change()
    }

    fn wait_for_memory(&self, len: usize) -> Result<()> {
        self.context.stalling(|| {
            self.flusher.make_room_for(len)?;
            self.compactor.relieve()
        })
    }

    fn free_space(&self, need: Need, error: &Error) -> Result<bool> {
        let extent = Extent::after_refusal(error, need);
        // A checkpoint is never the reason for a refusal.
        if extent != Extent::NoSlot && self.compactor.give_back_checkpoint() > 0 {
            return Ok(true);
        }
        let report = match self.compactor.compact(extent) {
            Err(error) if self.context.health.is_poisoned() => return Err(error),
            report => report.unwrap_or_default(),
        };
        self.wait_for_removed_files();
        Ok(match extent {
            Extent::NoSlot => report.outputs < report.victims,
            _ => report.freed_bytes > 0,
        })
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use crate::index::gate;
    use crate::{LogEngine, Options};
    use kv_core::{Background, Batch, Engine, EngineExt, Env, Error, Lsn, Op};
    use std::collections::BTreeMap;
    use std::io::ErrorKind;

    fn is_refused<T>(answer: Result<T, Error>) -> bool {
        matches!(
            answer,
            Err(Error::Io { op: Op::GrowIndex, source, .. })
                if source.kind() == ErrorKind::OutOfMemory
        )
    }

    #[test]
    fn where_the_index_cannot_grow_changes_are_refused_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { background: Background::Inline, ..Env::os() };
        let open = || LogEngine::open_in(dir.path(), &env, Options { index_shards: 4, ..Options::default() });
        let store = open().unwrap();
        gate::shut(true);
        let mut model = BTreeMap::new();
        let (mut refused, mut taken_later) = (Vec::new(), 0);
        for key in (0..60_u8).map(|key| vec![key]) {
            let last = store.last_lsn();
            let answer = store.put(&key, b"first");
            if answer.is_ok() {
                taken_later += usize::from(!refused.is_empty());
                model.insert(key, b"first".to_vec());
            } else {
                assert!(is_refused(answer) && store.last_lsn() == last && store.get(&key).unwrap().is_none());
                refused.push(key);
            }
        }
        assert!(taken_later > 0, "other shards still have room");
        assert!(refused.len() > 30, "each of four shards has room for six");

        // One new key that finds no room, among others.
        let (known, last) = (model.keys().next().unwrap().clone(), store.last_lsn());
        let mut batch = Batch::new();
        batch.put(&known, b"second").put(&refused[0], b"second").delete(&known);
        assert!(is_refused(store.apply(&batch)) && store.last_lsn() == last);
        let sorted = |model: &BTreeMap<Vec<u8>, Vec<u8>>| model.clone().into_iter().collect::<Vec<_>>();
        assert_eq!(store.to_sorted_vec().unwrap(), sorted(&model));

        // Changes that need no room go on, and the index uses the room that they free.
        let mut batch = Batch::new();
        for key in model.keys() {
            batch.put(key, b"second");
        }
        assert_eq!(store.apply(&batch).unwrap(), Lsn::new(last.get() + 1));
        for key in model.keys() {
            store.delete(key).unwrap().unwrap();
        }
        model.clear();
        store.put(&refused[0], b"third").unwrap();
        model.insert(refused[0].clone(), b"third".to_vec());
        store.sync().unwrap();

        gate::shut(false);
        for key in &refused {
            store.put(key, b"fourth").unwrap();
            model.insert(key.clone(), b"fourth".to_vec());
        }
        assert_eq!(store.to_sorted_vec().unwrap(), sorted(&model));
        store.close().unwrap();

        gate::shut(true);
        let answer = open();
        gate::shut(false);
        assert!(is_refused(answer));
        assert_eq!(open().unwrap().to_sorted_vec().unwrap(), sorted(&model));
    }

    #[test]
    fn a_batch_makes_room_for_all_its_keys() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { index_shards: 2, ..Options::default() };
        let store = LogEngine::open(dir.path(), options).unwrap();
        let mut batch = Batch::new();
        for key in 0..5000_u32 {
            batch.put(&(key % 4000).to_le_bytes(), b"value").delete(&(key + 5000).to_le_bytes());
        }
        store.apply(&batch).unwrap();
        assert_eq!(store.stats().keys, 4000);
        assert_eq!(store.to_sorted_vec().unwrap().len(), 4000);
    }
}
