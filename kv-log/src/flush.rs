//! Flush: the log's complete prefix is written to its files and synced, and durability moves.
//!
//! One thread leads at a time. A thread that needs something durable leads if nobody does, and waits
//! otherwise. When the leader is done, one of those that it did not cover leads next: group commit. The
//! background worker is one caller among others.
//!
//! The order of system calls keeps the recovered state a prefix of the log: a sealed segment is written
//! and synced before a byte of its successor is written. On disk after a power cut between any two:
//!
//! | after | on disk |
//! |---|---|
//! | taking stock | as before: durable bytes, and any part of what was written since |
//! | write of a sealed segment | any part of its new bytes; its successor still blank |
//! | its trim | the same, perhaps without the reserved space beyond its end |
//! | its sync | all of it, with its seal |
//! | write of the head | any part of the head's new bytes: recovery keeps the whole ones in front |
//! | sync of the head | all of it; only now `durable_lsn` moves |
//!
//! A failure poisons the engine and is not tried again.

use kv_core::{Action, Lsn, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::head::Position;
use crate::segment::{Segment, Via};
use crate::store::Store;

impl Store {
    /// Returns once everything up to `lsn` is durable.
    pub(crate) fn make_durable(&self, lsn: Lsn) -> Result<()> {
        self.flush_until(Action::WriteAndSync, || self.progress.durable_lsn() >= lsn)
    }

    /// Makes everything durable that was committed before, sealed segments included.
    pub(crate) fn make_all_durable(&self) -> Result<()> {
        self.health.check_writable()?;
        self.flush(Action::WriteAndSync)
    }

    /// Leads one flush.
    pub(crate) fn flush(&self, action: Action) -> Result<()> {
        match self.leadership.take_unless(|| self.health.is_poisoned()) {
            Some(_leading) => self.dump(action),
            None => Err(self.health.poisoned()),
        }
    }

    /// Waits, or flushes, until `done`.
    fn flush_until(&self, action: Action, done: impl Fn() -> bool) -> Result<()> {
        self.leadership.lead_until(&self.health, done, || self.dump(action))
    }

    /// Makes a writer wait while too much is unflushed: it lends a hand with the flush.
    #[cold]
    pub(crate) fn wait_for_room(&self, len: usize) -> Result<()> {
        self.stalling(|| self.flush_until(Action::Write, || self.has_room_for(len, self.end.position())))
    }

    /// Whether so many more bytes may be unflushed, where the log ends at `end`.
    #[inline]
    pub(crate) fn has_room_for(&self, len: usize, end: Position) -> bool {
        let unflushed = self.progress.unflushed_bytes(end);
        unflushed == 0 || unflushed + len as u64 <= self.options.unflushed_bytes_max
    }

    /// What the leader does.
    fn dump(&self, action: Action) -> Result<()> {
        // Dropped before leadership is given up: who leads next knows already.
        let _poison = self.health.poison_on_panic(self.dir.path());
        self.try_dump(action).map_err(|error| self.health.poison(error))
    }

    fn try_dump(&self, action: Action) -> Result<()> {
        let to_sync = action == Action::WriteAndSync;
        let (sealed, head, end, position) = {
            let mut log = self.end.lock();
            // Whoever failed may have failed between our wait and here.
            if self.health.is_poisoned() {
                return Err(self.health.poisoned());
            }
            // Closing leads a flush as others do, and gives the directory back before it stops
            // leading.
            self.lock.check()?;
            if to_sync {
                self.progress.begin_sync();
            }
            let position = log.position();
            if self.progress.unflushed_bytes(position) > 0 {
                log.append_mark(self.progress.durable_lsn(), self.env.clock.unix_time_ms());
            }
            log.settle();
            let head = Arc::clone(&log.head.segment);
            let end = head.end();
            (std::mem::take(&mut log.head.sealed), head, end, position)
        };

        let any_sealed = !sealed.is_empty();
        for segment in &sealed {
            let end = segment.end();
            self.write_segment(segment, end, self.options.via())?;
            if (end as u64) < segment.file.len()? {
                segment.file.trim(end)?;
            }
            self.sync_segment(segment, end)?;
            segment.mark_durable();
        }
        // Without a sync nobody waits for the disk, and the cache is faster.
        let via = if to_sync { self.options.via() } else { Via::Cache };
        self.write_segment(&head, end, via)?;
        self.counters.dumps.fetch_add(1, Ordering::Relaxed);
        self.progress.written(position, self.env.clock.monotonic());
        if to_sync {
            self.sync_segment(&head, end)?;
            // What was written into a directory that is gone is not durable.
            self.lock.check()?;
            self.progress.synced(position, self.env.clock.monotonic());
        }
        if any_sealed {
            self.evict_in_place();
            self.compaction_due();
        }
        Ok(())
    }

    fn write_segment(&self, segment: &Segment, end: usize, via: Via) -> Result<()> {
        let (contents, written) = (segment.contents()?, segment.written());
        if written < end {
            self.catalog.write_with_reserve(end - written, || {
                segment.file.write(contents.bytes(), written..end, via)
            })?;
            segment.set_written(end);
            self.counters.bytes_written.fetch_add((end - written) as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn sync_segment(&self, segment: &Segment, end: usize) -> Result<()> {
        if segment.synced() < end {
            segment.file.sync()?;
            segment.set_synced(end);
            self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Asks the policy; dumps if it says so. For inline mode, after a change.
    pub(crate) fn flush_if_due(&self) -> Result<()> {
        match self.decide(self.end.position(), self.env.clock.monotonic()).0 {
            Action::Hold => Ok(()),
            action => self.flush(action),
        }
    }

    /// The policy's answer at the time `now`, where the log ends at `end`, and when to ask again.
    #[inline]
    pub(crate) fn decide(&self, end: Position, now: Duration) -> (Action, Option<Duration>) {
        let pending = self.progress.pending(end, now);
        if pending.records == 0 {
            return (Action::Hold, None);
        }
        let decision = self.options.persistence.decide(&pending);
        (decision.action, decision.ask_again_in)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Options, open::open};
    use kv_core::{Action, Env, Error};

    /// Somebody else may have the directory by then.
    #[test]
    fn nobody_flushes_once_the_directory_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &Env::os(), Options::default()).unwrap();
        store.commit_put(b"key", b"value").unwrap();
        store.flush(Action::WriteAndSync).unwrap();
        store.close().unwrap();
        let answer = store.flush(Action::WriteAndSync);
        assert!(matches!(answer, Err(Error::Closed)), "{answer:?}");
        assert!(!store.health.is_poisoned());
    }
}
