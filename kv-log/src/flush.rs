//! Flush: the flusher writes the log to the segment files, in log order, syncs them, and moves the
//! durable LSN.
//!
//! One thread leads at a time. A thread that needs durability leads if no other thread does, and
//! waits otherwise. When the leader is done, one of the waiting threads that it did not cover leads
//! next: this is group commit. The flush worker is one caller among others.
//!
//! The order of system calls keeps the recovered state a prefix of the log: the leader writes and
//! syncs a sealed segment before it writes a byte of its successor. After a power cut:
//!
//! | after | on disk |
//! |---|---|
//! | taking stock | as before: the durable bytes, and any part of later writes |
//! | write of a sealed segment | any part of its new bytes; its successor is still blank |
//! | trim of the sealed segment | the same, perhaps without the reserved space beyond its end |
//! | sync of the sealed segment | all of it, with its seal. Its image leaves shared memory only now |
//! | write of the active segment | any part of its new bytes: recovery keeps the whole records in front |
//! | sync of the active segment | all of it; only now `durable_lsn` moves |
//!
//! A crash may keep the seal and lose the trim. Recovery then trims the segment.
//!
//! A failure poisons the engine. No thread tries a failed sync again. `Room::write` repeats a write
//! on a full disk.

use kv_core::parts::{Leadership, Leading, Position, Progress, StoreLock};
use kv_core::{Action, Decision, Lsn, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::context::Context;
use crate::eviction::Evictor;
use crate::log::Log;
use crate::manifest::Room;
use crate::reclaim::collect;
use crate::segments::{Image, Segment, SegmentTable, Via};
use crate::working::Working;

/// Segments of at least so many bytes are copied while they are written.
const COPIED_MEANWHILE_MIN: usize = 1 << 20;

/// Writes and syncs the log. One thread at a time leads.
#[derive(Debug)]
pub(crate) struct Flusher {
    context: Arc<Context>,
    log: Arc<Log>,
    room: Arc<Room>,
    segments: Arc<SegmentTable>,
    evictor: Arc<Evictor>,
    progress: Arc<Progress>,
    leadership: Leadership,
    lock: Arc<StoreLock>,
}

/// The extent of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// The sealed segments only, so that they can be compacted.
    Sealed,
    /// All changes.
    All(Action),
}

/// The work of one flush. The leader collects it under the commit lock.
#[derive(Debug)]
struct Stock {
    /// Oldest first. The flush writes and syncs each of them before its successor.
    sealed: Vec<Arc<Segment>>,
    active: Arc<Segment>,
    /// End of the active segment's records, bytes.
    end: usize,
    /// Where the log ends.
    position: Position,
    /// Where the sealed segments end.
    sealed_to: Position,
}

impl Flusher {
    pub(crate) fn new(
        context: Arc<Context>,
        log: Arc<Log>,
        room: Arc<Room>,
        segments: Arc<SegmentTable>,
        evictor: Arc<Evictor>,
        progress: Arc<Progress>,
        lock: Arc<StoreLock>,
    ) -> Self {
        Flusher { context, log, room, segments, evictor, progress, leadership: Leadership::default(), lock }
    }

    /// Returns once everything up to `lsn` is durable.
    pub(crate) fn make_durable(&self, lsn: Lsn) -> Result<()> {
        self.flush_until(Extent::All(Action::WriteAndSync), || self.progress.durable_lsn() >= lsn)
    }

    /// Leads a flush even if every change is durable: a sealed segment may still lack its seal on
    /// the disk.
    pub(crate) fn make_all_durable(&self) -> Result<()> {
        self.context.health.check_writable()?;
        self.flush(Action::WriteAndSync)
    }

    /// Leads one flush.
    pub(crate) fn flush(&self, action: Action) -> Result<()> {
        match self.leadership.take_unless(|| self.context.health.is_poisoned()) {
            Some(_leading) => self.dump(Extent::All(action)),
            None => Err(self.context.health.poisoned()),
        }
    }

    /// Waits for other leaders, or leads, until `done`.
    fn flush_until(&self, extent: Extent, done: impl Fn() -> bool) -> Result<()> {
        self.leadership.lead_until(&self.context.health, done, || self.dump(extent))
    }

    /// Returns once `len` more bytes may be unflushed. The caller may lead a flush itself.
    pub(crate) fn make_room_for(&self, len: usize) -> Result<()> {
        self.flush_until(Extent::All(Action::Write), || self.has_room_for(len, self.log.end.position()))
    }

    /// Returns once each segment that is sealed now is durable.
    pub(crate) fn flush_sealed(&self) -> Result<()> {
        // Also if there is nothing to flush: otherwise the flush worker would try again at once.
        self.log.slack.flush_begins();
        let newest = self.log.end.active_id();
        self.flush_until(Extent::Sealed, || self.log.slack.are_durable_before(newest))
    }

    /// Whether `len` more bytes may be unflushed, if the log ends at `end`.
    #[inline]
    pub(crate) fn has_room_for(&self, len: usize, end: Position) -> bool {
        let unflushed = self.progress.unflushed_bytes(end);
        unflushed == 0 || unflushed + len as u64 <= self.context.options.unflushed_bytes_max
    }

    /// The work of a leader.
    fn dump(&self, extent: Extent) -> Result<()> {
        // Dropped before leadership is given up, so the next leader sees the poison.
        let _poison = self.context.health.poison_on_panic(self.context.path());
        self.try_dump(extent).map_err(|error| self.context.health.poison(error))
    }

    fn try_dump(&self, extent: Extent) -> Result<()> {
        let to_sync = extent == Extent::All(Action::WriteAndSync);
        // Before the look at the log: a segment that is sealed later may be due again.
        self.log.slack.flush_begins();
        // `close` releases the directory while it holds leadership. A later leader finds the lock
        // released.
        self.lock.check()?;
        let stock = self.take_stock(extent)?;
        for segment in &stock.sealed {
            self.dump_sealed(segment)?;
            segment.mark_durable();
        }
        self.context.counters.dumps.fetch_add(1, Ordering::Relaxed);
        if extent == Extent::Sealed {
            if !stock.sealed.is_empty() {
                self.lock.check()?;
                self.progress.synced_in_part(stock.sealed_to, self.context.env.clock.monotonic());
            }
        } else {
            // A dump without a sync goes to the page cache, which is faster than the disk.
            let via = if to_sync { self.context.options.via() } else { Via::Cache };
            self.write_segment(&stock.active, stock.end, via)?;
            self.progress.written(stock.position, self.context.env.clock.monotonic());
        }
        if to_sync {
            self.sync_segment(&stock.active, stock.end)?;
            // Bytes in a directory that was removed meanwhile are not durable.
            self.lock.check()?;
            self.progress.synced(stock.position, self.context.env.clock.monotonic());
        }
        if !stock.sealed.is_empty() {
            self.evictor.evict_in_place();
            self.context.signals.compact.wake();
            // Releases the object of the segment that was copied last.
            collect();
        }
        let flushed = if extent == Extent::Sealed { stock.sealed_to } else { stock.position };
        self.context.signals.flushed(flushed.lsn);
        Ok(())
    }

    /// Takes the sealed segments from the log, and the end of the active one.
    fn take_stock(&self, extent: Extent) -> Result<Stock> {
        let mut log = self.log.end.lock();
        // The leader before this one may have failed while this thread waited.
        if self.context.health.is_poisoned() {
            return Err(self.context.health.poisoned());
        }
        if extent == Extent::All(Action::WriteAndSync) {
            self.progress.begin_sync();
        }
        let position = log.position();
        if extent != Extent::Sealed && self.progress.unflushed_bytes(position) > 0 {
            log.append_mark(self.progress.durable_lsn(), self.context.env.clock.unix_time_ms());
        }
        log.settle();
        let active = Arc::clone(&log.active.segment);
        let end = active.end();
        let (sealed, sealed_to) = (std::mem::take(&mut log.active.sealed), log.active.sealed_to);
        Ok(Stock { sealed, active, end, position, sealed_to })
    }

    fn write_segment(&self, segment: &Segment, end: usize, via: Via) -> Result<()> {
        let (contents, written) = (segment.contents()?, segment.written());
        if written < end {
            self.room.write(end - written, || segment.file.write(contents.bytes(), written..end, via))?;
            segment.set_written(end);
            self.context.counters.bytes_written.fetch_add((end - written) as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn sync_segment(&self, segment: &Segment, end: usize) -> Result<()> {
        if segment.synced() < end {
            segment.file.sync()?;
            segment.set_synced(end);
            self.context.counters.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes and syncs a sealed segment, and moves it to ordinary memory. The object serves
    /// another segment.
    fn dump_sealed(&self, segment: &Segment) -> Result<()> {
        let is_large = segment.end() >= COPIED_MEANWHILE_MIN;
        if is_large
            && self.context.has_workers()
            && let Some(_promise) = self.promise_to_leave(segment)
        {
            if let Some(copy) = self.write_and_copy(segment)? {
                self.leave_shared_memory(segment, copy);
                return Ok(());
            }
        } else {
            self.write_sealed(segment)?;
        }
        if let Some(_promise) = self.promise_to_leave(segment)
            && let Some(copy) = self.segments.copy(segment)
        {
            self.leave_shared_memory(segment, copy);
            // Now: the object then serves the next segment, and one of the two images goes.
            collect();
        }
        Ok(())
    }

    fn write_sealed(&self, segment: &Segment) -> Result<()> {
        let end = segment.end();
        self.write_segment(segment, end, self.context.options.via())?;
        segment.file.trim(end)?;
        self.sync_segment(segment, end)
    }

    /// Writes and syncs a sealed segment while a thread copies its image to ordinary memory. `None`
    /// if there is no copy, for want of memory or a thread.
    fn write_and_copy(&self, segment: &Segment) -> Result<Option<Image>> {
        thread::scope(|scope| {
            let named = thread::Builder::new().name("kv-log copy".to_owned());
            let copy = named.spawn_scoped(scope, || {
                // Releases the object of the segment before.
                collect();
                self.segments.copy(segment)
            });
            self.write_sealed(segment)?;
            Ok(copy.ok().and_then(|copy| copy.join().ok().flatten()))
        })
    }

    /// The room for a copy of a segment that lies in shared memory and may leave it. Both images
    /// are in memory until no reader uses the old one. Without room, the segment stays where it is.
    fn promise_to_leave(&self, segment: &Segment) -> Option<Working<'_>> {
        let copy = || self.log.slack.promise_copy(segment.end());
        segment.is_shared().then(copy).flatten()
    }

    /// Exchanges the image of a synced segment for a copy in ordinary memory.
    fn leave_shared_memory(&self, segment: &Segment, copy: Image) {
        // SAFETY: the compactor and the evictor take images of durable segments only, and one
        // flusher leads at a time.
        unsafe { self.segments.exchange(segment, copy) };
    }

    /// Asks the policy, and dumps if it says so. For inline mode, after a change.
    pub(crate) fn flush_if_due(&self) -> Result<()> {
        match self.decide(self.log.end.position(), self.context.env.clock.monotonic()).action {
            Action::Hold => Ok(()),
            action => self.flush(action),
        }
    }

    /// The policy's answer at the time `now`, if the log ends at `end`. If the policy holds while
    /// slack is scarce, it is [`Action::Write`].
    #[inline]
    pub(crate) fn decide(&self, end: Position, now: Duration) -> Decision {
        let decision = self.progress.decide(&*self.context.options.persistence, end, now);
        // Sealed segments come free only after they are flushed.
        if decision.action == Action::Hold && self.log.slack.is_scarce() {
            Decision::now(Action::Write)
        } else {
            decision
        }
    }

    /// Waits until no other thread leads. Until the answer is dropped, no flush begins.
    pub(crate) fn exclude(&self) -> Option<Leading<'_>> {
        self.leadership.take_unless(|| false)
    }

    /// Whether every change is written.
    pub(crate) fn is_idle(&self) -> bool {
        self.progress.unflushed_bytes(self.log.end.position()) == 0
    }
}

#[cfg(test)]
mod tests {
    use crate::{Options, recovery::open};
    use kv_core::{Action, Background, Env, Error, Manual, Never};
    use std::sync::Arc;
    use std::time::Duration;

    /// An idle store has no sealed segment to flush, however much slack it has.
    #[test]
    fn scarce_slack_asks_for_one_flush_of_the_sealed_segments() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { background: Background::Inline, ..Env::os() };
        let options =
            Options { persistence: Arc::new(Manual), compaction: Arc::new(Never), ..Options::default() };
        let store = open(dir.path(), &env, options).unwrap();
        let slack = &store.log.slack;
        while slack.bytes() <= slack.ceiling() / 2 {
            store.committer.put(b"key", &[7; 10_000]).unwrap();
        }
        for _ in 0..2 {
            slack.has_room_for(0);
            assert!(slack.is_scarce());
            store.flusher.flush_sealed().unwrap();
            let decision = store.flusher.decide(store.log.end.position(), Duration::ZERO);
            assert_eq!(decision.action, Action::Hold);
        }
        store.close().unwrap();
    }

    /// Another process may have the directory by then.
    #[test]
    fn no_flush_begins_after_the_directory_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &Env::os(), Options::default()).unwrap();
        store.committer.put(b"key", b"value").unwrap();
        store.flusher.flush(Action::WriteAndSync).unwrap();
        store.close().unwrap();
        let answer = store.flusher.flush(Action::WriteAndSync);
        assert!(matches!(answer, Err(Error::Closed)), "{answer:?}");
        assert!(!store.context.health.is_poisoned());
    }
}
