//! The checkpointer: it writes the index to a file while writers go on.
//!
//! | after | on disk, after a power cut |
//! |---|---|
//! | writing the file, or a part of it | the old manifest and its checkpoint; the new file is an orphan |
//! | making the log durable, syncing the file | the same |
//! | syncing the directory | the same |
//! | replacing the manifest | either the above, or the new manifest and both files |
//! | removing the old checkpoint | the new manifest, the new file, perhaps the old one as an orphan |
//!
//! Nothing depends on a checkpoint, so a failure before the manifest gives it up and harms nothing.
//! A failed sync of the log or the directory poisons, as everywhere.

use kv_core::fs::{DirExt, File, FileExt};
use kv_core::parts::Position;
use kv_core::{CheckpointView, Error, Lsn, Op, RecoveryReport, Result, SegmentId};
use kv_wal_format::{Record, SegmentKind};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::format::{Covered, Head, Writer};
use crate::compaction::Compactor;
use crate::context::Context;
use crate::directory;
use crate::flush::Flusher;
use crate::index::{Index, ShardCopy};
use crate::log::Log;
use crate::manifest::{Catalog, CheckpointName};
use crate::reclaim::pin;
use crate::segments::{Location, Segment, SegmentTable};

/// Entries in one record, at most.
const ENTRIES_IN_PART: usize = 8 << 10;

/// Bytes of one write, about. An allocator keeps the memory of large buffers for later.
const WRITE_LEN: usize = 64 << 10;

/// With fewer bytes in sealed segments, a checkpoint is written on request only: a replay takes
/// less time than its syncs. At most the bytes of one full segment.
const COVERED_BYTES_MIN: u64 = 1 << 20;

/// A checkpoint with more bytes a key than this, beside [`OVERHEAD_MAX`] for the rest, is outdated.
const BYTES_PER_KEY_MAX: u64 = 16;
const OVERHEAD_MAX: u64 = 64 << 10;

/// Writes checkpoints.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    context: Arc<Context>,
    index: Arc<Index>,
    segments: Arc<SegmentTable>,
    catalog: Arc<Catalog>,
    log: Arc<Log>,
    flusher: Arc<Flusher>,
    last: Mutex<Last>,
}

/// The last checkpoint, or the last attempt.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// The end of the log at that moment.
    position: Position,
    /// Bytes of the log before that moment that an open would replay.
    behind: u64,
    time: Duration,
    /// The state of the store that it holds. `None` if it failed.
    state: Option<State>,
}

/// Two equal states have equal checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    lsn: Lsn,
    compactions: u64,
}

/// The segment of a slot, as the checkpoint knows it.
type Numbers = Vec<Option<(u16, Arc<Segment>)>>;

impl Checkpointer {
    pub(crate) fn new(
        context: Arc<Context>,
        index: Arc<Index>,
        segments: Arc<SegmentTable>,
        catalog: Arc<Catalog>,
        log: Arc<Log>,
        flusher: Arc<Flusher>,
        report: &RecoveryReport,
    ) -> Self {
        let (position, time) = (log.end.position(), context.env.clock.monotonic());
        // A store without a change since the checkpoint needs no other one.
        let state = State { lsn: position.lsn, compactions: 0 };
        let is_current = catalog.checkpoint_bytes() > 0 && report.checkpoint_lsn == position.lsn;
        let state = is_current.then_some(state);
        let behind = report.bytes;
        let last = Mutex::new(Last { position, behind, time, state });
        Checkpointer { context, index, segments, catalog, log, flusher, last }
    }

    /// Writes a checkpoint, and makes it durable. Returns its LSN.
    ///
    /// # Errors
    /// A segment that an entry points into cannot be read. The file cannot be written. A failure of
    /// the log or the manifest poisons the store.
    pub(crate) fn checkpoint(&self, compactor: &Compactor) -> Result<Lsn> {
        self.write(compactor, &compactor.exclude())
    }

    /// Writes a checkpoint if the policy says so. A failure that does not poison is none: the next
    /// one is due as if this one had been written.
    pub(crate) fn checkpoint_if_due(&self, compactor: &Compactor) -> Result<()> {
        if !self.is_due() || !self.is_worthwhile() || self.context.health.check_writable().is_err() {
            return Ok(());
        }
        self.unless_poisoned(self.checkpoint(compactor))
    }

    /// Writes the last checkpoint of a store that is closed, unless the store is small, or the
    /// newest one holds the same state.
    pub(crate) fn checkpoint_at_close(
        &self,
        compactor: &Compactor,
        running: &MutexGuard<'_, ()>,
    ) -> Result<()> {
        let policy = &self.context.options.checkpoint;
        if !policy.at_close() || !self.is_worthwhile() || self.is_current() {
            return Ok(());
        }
        self.unless_poisoned(self.write(compactor, running))
    }

    /// Gives back the space of a checkpoint that is much larger than the next one.
    pub(crate) fn drop_outdated(&self, compactor: &Compactor) {
        // Otherwise it might drop one that another thread has just written.
        let _alone = compactor.exclude();
        if self.catalog.checkpoint_bytes() > self.index.len() as u64 * BYTES_PER_KEY_MAX + OVERHEAD_MAX {
            self.catalog.drop_checkpoint();
            self.last.lock().state = None;
        }
    }

    fn unless_poisoned(&self, written: Result<Lsn>) -> Result<()> {
        match written {
            Err(error) if self.context.health.is_poisoned() => Err(error),
            _ => Ok(()),
        }
    }

    fn is_due(&self) -> bool {
        let (last, end) = (*self.last.lock(), self.log.end.position());
        let now = self.context.env.clock.monotonic();
        self.context.options.checkpoint.is_due(&CheckpointView {
            log_bytes: end.bytes.saturating_sub(last.position.bytes) + last.behind,
            changes: end.changes.saturating_sub(last.position.changes),
            elapsed: now.saturating_sub(last.time),
            checkpoint_bytes: self.index.len() as u64 * size_of::<u64>() as u64,
        })
    }

    fn is_worthwhile(&self) -> bool {
        let least = COVERED_BYTES_MIN.min(self.context.options.segment_bytes as u64);
        let sealed = |segment: &Segment| if segment.is_sealed() { segment.file_len() as u64 } else { 0 };
        self.catalog.sum(sealed) >= least
    }

    /// Whether the newest checkpoint holds the state of the store. A full disk may have taken it.
    fn is_current(&self) -> bool {
        self.catalog.checkpoint_bytes() > 0 && self.last.lock().state == Some(self.state())
    }

    fn state(&self) -> State {
        let compactions = self.context.counters.compactions.load(Ordering::Relaxed);
        State { lsn: self.log.end.last_lsn(), compactions }
    }

    /// No compaction on disk runs meanwhile: it would replace covered segments.
    fn write(&self, compactor: &Compactor, running: &MutexGuard<'_, ()>) -> Result<Lsn> {
        let _poison = self.context.health.poison_on_panic(self.context.path());
        let (position, time) = (self.log.end.position(), self.context.env.clock.monotonic());
        let state = self.state();
        *self.last.lock() = Last { position, behind: 0, time, state: None };
        self.index.settle_at(|_| true, &self.segments)?;
        let (id, file) = self.catalog.create_checkpoint(self.log.end.last_lsn())?;
        match self.write_file(id, &*file, compactor, running) {
            Ok((name, len, horizon)) => {
                self.catalog.name_checkpoint(name, len, self.log.end.last_lsn())?;
                self.last.lock().state = Some(state);
                self.context.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
                Ok(horizon)
            }
            Err(error) => {
                drop(file);
                self.catalog.discard_checkpoint(id);
                Err(error)
            }
        }
    }

    /// Writes and syncs the file. Returns its name, its length and its horizon.
    fn write_file(
        &self,
        id: SegmentId,
        file: &dyn File,
        compactor: &Compactor,
        running: &MutexGuard<'_, ()>,
    ) -> Result<(CheckpointName, u64, Lsn)> {
        let path = self.context.dir.path_of(&directory::checkpoint_file_name(id));
        // No other checkpoint has this number.
        let env = &self.context.env;
        let nonce = env.draw((id.get(), self.catalog.store_id(), env.clock.unix_time_ms()));
        self.flusher.flush_sealed()?;
        // Until the entries are copied, none moves: `numbers` knows only the slots of today. The
        // lock is not held during a sync, because a writer that needs memory may wait for it.
        let still = compactor.hold_still(running);
        let all = self.catalog.segments();
        // A segment that is sealed now holds no change above the horizon, and a durable one has the
        // final length of its file.
        let (horizon, covered) = {
            let end = self.log.end.lock();
            (end.last_lsn(), covered(all, |segment| segment.kind, |segment| segment.is_durable()))
        };
        let head = Head {
            nonce,
            seed: self.index.seed(),
            hash_check: self.index.hash_check(),
            longest_key: self.context.longest_key() as u64,
            shards: self.index.shard_count() as u64,
            is_estimated: self.index.is_estimated(),
        };
        let mut writer = Writer::new(id, horizon.get(), self.catalog.store_id(), &head);
        // Taken before the first copy, so that the copies show every death that the facts count.
        let facts: Vec<_> = covered.iter().map(|segment| segment.tally.file_facts()).collect();
        let slots_end = covered.iter().map(|segment| usize::from(segment.slot) + 1).max();
        let mut numbers: Numbers = vec![None; slots_end.unwrap_or_default()];
        for ((number, segment), facts) in (0..).zip(&covered).zip(facts) {
            let len = segment.file_len() as u64;
            let Segment { id, kind, base_lsn, .. } = **segment;
            writer.segment(number, &Covered { id, kind, len, base_lsn, facts });
            if let Some(slot) = numbers.get_mut(usize::from(segment.slot)) {
                *slot = Some((number, Arc::clone(segment)));
            }
        }
        let mut len = 0;
        let (mut copy, mut entries) = (ShardCopy::default(), Vec::new());
        for shard in 0..self.index.shard_count() {
            self.write_shard(shard, &numbers, &mut copy, &mut entries, &mut writer)?;
            if writer.bytes().len() >= WRITE_LEN {
                len += self.pour(file, &path, len, writer.bytes())?;
            }
        }
        // Compaction in memory frees nothing of which this holds a reference.
        drop((still, numbers, covered));
        // The copies show changes up to here.
        self.flusher.make_durable(self.log.end.last_lsn())?;
        writer.seal();
        len += self.pour(file, &path, len, writer.bytes())?;
        file.sync_all().map_err(|error| Error::io(Op::Sync, &path, error))?;
        self.context.counters.syncs.fetch_add(1, Ordering::Relaxed);
        Ok((CheckpointName { id, nonce }, len, horizon))
    }

    fn write_shard(
        &self,
        shard: usize,
        numbers: &Numbers,
        copy: &mut ShardCopy,
        entries: &mut Vec<u8>,
        writer: &mut Writer,
    ) -> Result<()> {
        // A location leads to its record while this is pinned.
        let guard = pin();
        self.index.copy_shard(shard, copy, &guard);
        let mut pair_bytes = copy.pair_bytes;
        entries.clear();
        copy.write(entries, |location| {
            let number = numbers.get(usize::from(location.slot())).and_then(Option::as_ref);
            if let Some((number, segment)) = number {
                return Ok(Some(Location::new(*number, segment.offset_in_file(location.offset()))));
            }
            let pair_len = |record: &Record<'_>| (record.key.len() + record.value.len()) as u64;
            let len = self.segments.with_record(location, &guard, pair_len)?;
            pair_bytes = pair_bytes.saturating_sub(len);
            Ok(None)
        })?;
        let mut value = Vec::with_capacity(size_of::<u64>() * (ENTRIES_IN_PART + 1));
        for part in entries.chunks(size_of::<u64>() * ENTRIES_IN_PART) {
            value.clear();
            value.extend_from_slice(&std::mem::take(&mut pair_bytes).to_le_bytes());
            value.extend_from_slice(part);
            writer.part(shard, &value);
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`, and empties them. Returns their number.
    fn pour(&self, file: &dyn File, path: &std::path::Path, offset: u64, bytes: &mut Vec<u8>) -> Result<u64> {
        file.write_all_at(bytes, offset).map_err(|error| Error::io(Op::Write, path, error))?;
        let len = bytes.len() as u64;
        self.context.counters.bytes_written.fetch_add(len, Ordering::Relaxed);
        bytes.clear();
        Ok(len)
    }
}

/// The segments that a checkpoint covers. `all` are in the order of their ids.
///
/// The covered log segments are a prefix of the log. If a later one were covered without an earlier
/// one, an opening would replay the earlier one alone, and a key that the later one deletes would
/// come back. The flusher makes segments durable meanwhile, so each is asked once.
fn covered<T>(
    all: Vec<T>,
    kind: impl Fn(&T) -> SegmentKind,
    mut is_durable: impl FnMut(&T) -> bool,
) -> Vec<T> {
    let mut is_prefix = true;
    let mut covers = |segment: &T| {
        let is_log = kind(segment) == SegmentKind::Log;
        let covers = (is_prefix || !is_log) && is_durable(segment);
        is_prefix &= covers || !is_log;
        covers
    };
    all.into_iter().filter(|segment| covers(segment)).collect()
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn the_covered_log_segments_are_a_prefix_of_the_log() {
        use SegmentKind::{Compacted, Log};
        // The flusher makes one segment of the log durable before each question.
        let all = vec![(1, Log), (2, Compacted), (3, Log), (4, Compacted), (5, Log), (6, Log)];
        for durable_at_first in 0..=6 {
            let mut durable = durable_at_first;
            let found = covered(
                all.clone(),
                |(_, kind)| *kind,
                |(id, kind)| {
                    durable += 1;
                    *kind == Compacted || *id < durable
                },
            );
            let log: Vec<i32> = found.iter().filter(|(_, kind)| *kind == Log).map(|(id, _)| *id).collect();
            assert!([1, 3, 5, 6].starts_with(&log), "{log:?}");
            assert_eq!(found.len() - log.len(), 2, "{found:?}");
        }
        let none_before_the_third = covered(all, |(_, kind)| *kind, |(id, _)| *id != 3);
        assert_eq!(none_before_the_third.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 4]);
    }
}
