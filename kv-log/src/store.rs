//! The store: the parts of an open store, wired in one place.
//!
//! Each part is a type that owns the state that it changes. Its constructor takes the parts that it
//! uses. From bottom to top: [`Catalog`], [`Evictor`], [`Log`], [`Flusher`], [`Compactor`],
//! [`Committer`]. No part knows one above it. A lower part asks for work above it through
//! [`Signals`](crate::signals::Signals).

use kv_core::parts::StoreLock;
use kv_core::{Acknowledge, Action, Background, Lsn, RecoveryReport, Result, Stats};
use kv_wal_format::SEGMENT_HEADER_LEN;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Task, Poll};

use crate::checkpoint::{Checkpointer, WarmUp};
use crate::commit::Committer;
use crate::compaction::{Compactor, Extent};
use crate::context::Context;
use crate::eviction::Evictor;
use crate::flush::Flusher;
use crate::index::Index;
use crate::log::{Log, LogEnd, MARK_LEN_MAX, SEAL_LEN_MAX, Spares};
use crate::manifest::{Catalog, Room};
use crate::read::Reader;
use crate::reclaim::collect;
use crate::refusal::unless_refused;
use crate::segments::{Segment, SegmentTable};
use crate::slack::Slack;
use kv_core::parts::{Position, Progress};

/// An open store. Callers and background workers share it.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) context: Arc<Context>,
    index: Arc<Index>,
    pub(crate) segments: Arc<SegmentTable>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) log: Arc<Log>,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) compactor: Arc<Compactor>,
    pub(crate) committer: Committer,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) warm_up: WarmUp,
    pub(crate) reader: Reader,
    pub(crate) recovery: Recovery,
    evictor: Arc<Evictor>,
    lock: Arc<StoreLock>,
}

/// The parts that recovery leaves, on which the others stand.
#[derive(Debug)]
pub(crate) struct Foundation {
    pub(crate) context: Arc<Context>,
    pub(crate) lock: Arc<StoreLock>,
    pub(crate) index: Index,
    pub(crate) segments: Arc<SegmentTable>,
    pub(crate) catalog: Catalog,
    pub(crate) room: Arc<Room>,
    pub(crate) progress: Arc<Progress>,
}

/// The result of recovery.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) report: RecoveryReport,
    /// LSNs up to this one belong to earlier openings.
    pub(crate) lsn_floor: Lsn,
}

/// Dead bytes below which a close does not seal the active segment.
const DEAD_BYTES_MIN: u64 = 64 << 10;

/// How often the statistics look at memory that moves meanwhile.
const LOOKS_MAX: u32 = 8;

/// The unit in which file systems give out space, bytes.
const BLOCK_BYTES: usize = 4096;

impl Store {
    /// Wires the parts of a recovered store whose log goes on at `end`.
    pub(crate) fn new(foundation: Foundation, end: LogEnd, recovery: Recovery) -> Self {
        let Foundation { context, lock, index, segments, catalog, room, progress } = foundation;
        let (index, catalog) = (Arc::new(index), Arc::new(catalog));
        let evictor = Arc::new(Evictor::new(
            Arc::clone(&context),
            Arc::clone(&index),
            Arc::clone(&segments),
            Arc::clone(&catalog),
        ));
        let slack = Arc::new(Slack::new(
            Arc::clone(&context),
            Arc::clone(&index),
            Arc::clone(&segments),
            Arc::clone(&catalog),
        ));
        let spares = Spares::new(
            Arc::clone(&context),
            Arc::clone(&catalog),
            Arc::clone(&evictor),
            Arc::clone(&slack),
            Arc::clone(&segments),
        );
        let log = Arc::new(Log::new(Arc::clone(&context), end, spares, slack, Arc::clone(&progress)));
        let flusher = Arc::new(Flusher::new(
            Arc::clone(&context),
            Arc::clone(&log),
            room,
            Arc::clone(&segments),
            Arc::clone(&evictor),
            Arc::clone(&progress),
            Arc::clone(&lock),
        ));
        let compactor = Arc::new(Compactor::new(
            Arc::clone(&context),
            &index,
            Arc::clone(&segments),
            Arc::clone(&catalog),
            Arc::clone(&evictor),
            Arc::clone(&log),
            Arc::clone(&flusher),
        ));
        let committer = Committer::new(
            Arc::clone(&context),
            Arc::clone(&index),
            Arc::clone(&segments),
            Arc::clone(&log),
            Arc::clone(&progress),
            Arc::clone(&flusher),
            Arc::clone(&compactor),
        );
        let checkpointer = Checkpointer::new(
            Arc::clone(&context),
            Arc::clone(&index),
            Arc::clone(&segments),
            Arc::clone(&catalog),
            Arc::clone(&log),
            Arc::clone(&flusher),
            &recovery.report,
        );
        let mut cold = catalog.segments();
        cold.retain(|segment| segment.is_unverified());
        let warm_up = WarmUp::new(
            Arc::clone(&context),
            Arc::clone(&index),
            Arc::clone(&segments),
            Arc::clone(&catalog),
            cold,
        );
        let reader = Reader::new(Arc::clone(&context), Arc::clone(&index), Arc::clone(&segments));
        Store {
            context,
            index,
            segments,
            catalog,
            progress,
            log,
            flusher,
            compactor,
            committer,
            checkpointer,
            warm_up,
            reader,
            recovery,
            evictor,
            lock,
        }
    }

    /// Completes the opening. Carries out one compaction plan, however soon the process may end: a
    /// store that is opened often and killed each time would otherwise never be compacted. The
    /// background worker does the rest.
    pub(crate) fn begin(&self) -> Result<()> {
        if !self.context.options.read_only {
            self.date_recovered_changes()?;
        }
        // The index grew while segments were replayed.
        self.evictor.evict_in_place();
        if self.context.options.warm_up {
            self.warm_up.run(&self.compactor);
        }
        if self.context.options.read_only {
            return Ok(());
        }
        // A compaction would read cold segments, and the caller waits.
        let warms_up_later =
            self.context.env.background == Background::Threads && self.warm_up.bytes_left() > 0;
        if !warms_up_later {
            self.compactor.compact_in_passing(Extent::OnePlan)?;
        }
        self.context.signals.compact.wake();
        Ok(())
    }

    /// Gives the recovered changes a mark if they have none. They are durable, so the mark must be,
    /// too: no flush follows before the next change. Compaction and checkpoints come later, because
    /// recovery takes the changes that they cover for dated.
    fn date_recovered_changes(&self) -> Result<()> {
        let is_new = self.log.date_changes(&mut self.log.end.lock());
        if is_new { self.flusher.make_all_durable() } else { Ok(()) }
    }

    /// Does the work that follows a change, after all locks are released. The log ends at `end`
    /// with that change.
    #[inline]
    pub(crate) fn after_change(&self, end: Position) -> Result<()> {
        if self.context.acknowledge == Acknowledge::WhenDurable {
            self.flusher.make_durable(end.lsn)?;
        }
        match self.context.env.background {
            Background::Threads => {
                let now = self.progress.recent_time(end, &*self.context.env.clock);
                self.context.signals.pacing.after_change(now, self.flusher.decide(end, now));
                Ok(())
            }
            Background::Inline => {
                self.flusher.flush_if_due()?;
                self.compact_if_due()?;
                self.warm_up.warm_one(&self.compactor);
                self.checkpointer.checkpoint_if_due(&self.compactor)
            }
        }
    }

    /// Compacts if a part has asked for it. For inline mode.
    pub(crate) fn compact_if_due(&self) -> Result<()> {
        // An unreadable victim is no failure of the change, as in the background.
        if self.context.env.background == Background::Inline && self.context.signals.compact.take() {
            self.compactor.compact_in_passing(Extent::Busy)?;
        }
        Ok(())
    }

    /// As [`Engine::poll_durable`](kv_core::Engine::poll_durable), for the LSN of a change.
    pub(crate) fn poll_durable(&self, lsn: Lsn, task: &mut Task<'_>) -> Poll<Result<()>> {
        if !self.context.has_workers() {
            // No thread would wake the task.
            return Poll::Ready(self.flusher.make_durable(lsn).and_then(|()| self.compact_if_due()));
        }
        let durable_lsn = || self.progress.durable_lsn();
        self.context.signals.pacing.poll_durable(lsn, task, durable_lsn, &self.context.health)
    }

    /// Wakes all tasks that wait for a sync, so that they see the closed store. The caller holds no
    /// lock.
    pub(crate) fn wake_tasks(&self) {
        self.context.signals.pacing.wake_tasks();
    }

    /// Gives back recycled memory while no changes wait for a flush.
    pub(crate) fn release_idle_memory(&self) {
        if self.flusher.is_idle() {
            // Frees retired images first, so that they are released, too.
            collect();
            self.segments.clear_pool();
            self.context.tail.remove_kept();
        }
    }

    /// Makes a store small to which no change comes. Its newest change has the LSN `last`. Spares
    /// and an active segment that were made for fast writers go, and compaction goes further than
    /// while changes come. A store with unwritten changes stays as it is.
    pub(crate) fn tidy(&self, last: Lsn) -> Result<()> {
        if !self.flusher.is_idle() {
            return Ok(());
        }
        let floor = last.max(self.recovery.lsn_floor);
        for _ in 0..2 {
            // First, so that the files tell how large the next active segment should be: once with
            // those that were made while changes came, and once without.
            self.compactor.compact_in_passing(Extent::Idle(last))?;
            unless_refused(self.compactor.split_large(last))?;
            unless_refused(self.log.spares.remove_large(self.log.spares.calm_capacity(), floor))?;
            self.log.seal_if_large()?;
            self.flusher.flush_sealed()?;
        }
        self.compactor.compact_in_passing(Extent::Idle(last))?;
        unless_refused(self.catalog.expire_past(last))?;
        self.checkpointer.drop_outdated(&self.compactor);
        self.catalog.fit_reserve();
        self.release_idle_memory();
        Ok(())
    }

    /// Memory that is unlinked, and waits for readers, bytes.
    pub(crate) fn bytes_in_use_by_readers(&self) -> u64 {
        self.segments.bytes_in_use_by_readers() + self.index.replaced_bytes()
    }

    /// Bytes of the segments' images and of work that is under way, and bytes that wait for reuse
    /// or readers. Memory that moves between the two counts once, unless some moves at each look.
    fn memory(&self) -> (u64, u64) {
        let elsewhere = || (self.context.counters.memory_under_way(), self.log.slack.waiting_bytes());
        let (mut images, mut before) = (0, elsewhere());
        for _ in 0..LOOKS_MAX {
            images = self.catalog.sum(|segment| segment.resident_bytes() as u64);
            let after = elsewhere();
            if after == before {
                break;
            }
            before = after;
        }
        let (under_way, waiting) = before;
        (images + under_way, waiting)
    }

    /// As [`Engine::stats`](kv_core::Engine::stats).
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.log.end.try_settle();
        self.progress.fill(&mut stats, || self.log.end.position());
        self.context.counters.fill(&mut stats);
        stats.keys = self.index.len() as u64;
        stats.live_bytes = self.index.pair_bytes() as u64;
        stats.index_bytes = self.index.allocated_bytes() as u64;
        (stats.memory_bytes, stats.retired_bytes) = self.memory();
        stats.warm_up_bytes = self.warm_up.bytes_left();
        stats.fetches = self.segments.fetches();
        stats.recovery = self.recovery.report.clone();
        let (leftover_files, leftover_bytes) = self.catalog.leftovers();
        stats.leftover_files = leftover_files;
        stats.past_bytes = self.catalog.past_bytes();
        stats.disk_bytes = stats.past_bytes + leftover_bytes + self.catalog.overhead_bytes();
        let active = self.log.end.active_id_and_capacity();
        let mut all_shared = true;
        for segment in self.catalog.segments() {
            // A spare holds no record.
            stats.segments += u64::from(segment.end() > SEGMENT_HEADER_LEN);
            let is_active = segment.id == active.0;
            let is_blank = !is_active && segment.end() <= SEGMENT_HEADER_LEN;
            // In this order: the flusher takes a segment out of shared memory once it is synced,
            // and calls it durable later.
            all_shared &= segment.is_durable()
                || is_blank
                || segment.is_shared()
                || segment.is_sealed() && segment.synced() >= segment.end();
            stats.disk_bytes += match (segment.is_durable(), is_active) {
                (true, _) => segment.file_len(),
                (false, true) => active.1,
                (false, false) => segment.capacity,
            } as u64;
        }
        stats.process_safety = self.context.tail.safety(all_shared);
        stats
    }

    /// Makes everything durable, stores the last manifest, and releases the directory even after a
    /// failure.
    pub(crate) fn close(&self) -> Result<()> {
        self.context.health.begin_close();
        let result = if self.context.options.read_only { Ok(()) } else { self.close_files() };
        let result = result.map_err(|error| self.context.health.poison(error));
        // After a failure, other threads may still work on the files: a compaction, the leader of a
        // flush, a writer that creates a segment, and a thread that pins a moment. The directory is
        // released after they are done.
        let _no_compaction = self.compactor.exclude();
        let _no_flush = self.flusher.exclude();
        let _no_writer = self.log.end.lock();
        self.catalog.refuse_changes();
        self.context.health.close();
        self.context.tail.close(result.is_err() && !self.lock.is_dir_removed());
        self.lock.release();
        result
    }

    fn close_files(&self) -> Result<()> {
        self.flusher.make_all_durable()?;
        // Without this, a store that is open only for moments would never be compacted.
        if self.is_active_mostly_dead() {
            self.log.seal_if_possible()?;
            self.flusher.make_all_durable()?;
        }
        self.compactor.compact_in_passing(Extent::DiskUpTo(self.log.end.active_id()))?;
        let no_compaction = self.compactor.exclude();
        let (last_lsn, active) = {
            // No change comes between the last sync and the last manifest.
            let end = self.log.end.lock();
            self.context.health.check_writable()?;
            self.context.health.close();
            (end.last_lsn(), Arc::clone(&end.active.segment))
        };
        // Changes and sealed segments since the first flush.
        self.flusher.flush(Action::WriteAndSync)?;
        self.checkpointer.checkpoint_at_close(&self.compactor, &no_compaction)?;
        let spares = self.log.spares.take_all();
        let ended = give_back_unused_space(&active)
            .and_then(|()| self.catalog.close(&spares, last_lsn.max(self.recovery.lsn_floor)));
        // Everything is durable: the next opening finds the end of the log without the last
        // manifest.
        unless_refused(ended)
    }

    /// Whether compaction would drop most of the active segment if it was sealed.
    fn is_active_mostly_dead(&self) -> bool {
        self.log.end.try_settle();
        let active = Arc::clone(&self.log.end.lock().active.segment);
        let tombstones = active.tally.tombstone_bytes.load(Ordering::Relaxed);
        active.dead_bytes(tombstones) > active.tally.live_bytes() + tombstones + DEAD_BYTES_MIN
    }
}

/// Cuts the file of the active segment to the bytes that it holds, and room for a mark and a seal,
/// in whole blocks.
fn give_back_unused_space(active: &Segment) -> Result<()> {
    let len = (active.end() + SEAL_LEN_MAX + MARK_LEN_MAX).next_multiple_of(BLOCK_BYTES);
    active.file.trim(len).map(drop)
}

#[cfg(all(test, not(shuttle)))]
mod suite;
#[cfg(all(test, not(shuttle)))]
mod tests;
