//! Roll-over: the active segment is sealed, and the log goes on in a spare or a new segment.

use kv_core::Result;
use kv_core::parts::Progress;
use kv_wal_format::SEGMENT_HEADER_LEN;
use std::sync::Arc;

use super::end::{LockedEnd, LogEnd, MARK_LEN_MAX, SEAL_LEN_MAX};
use super::spares::Spares;
use crate::context::Context;
use crate::manifest::Need;
use crate::refusal::unless_refused;
use crate::slack::Slack;

/// The end of the log, and the spares that follow its active segment.
#[derive(Debug)]
pub(crate) struct Log {
    context: Arc<Context>,
    pub(crate) end: LogEnd,
    pub(crate) spares: Spares,
    pub(crate) slack: Arc<Slack>,
    progress: Arc<Progress>,
}

impl Log {
    pub(crate) fn new(
        context: Arc<Context>,
        end: LogEnd,
        spares: Spares,
        slack: Arc<Slack>,
        progress: Arc<Progress>,
    ) -> Self {
        Log { context, end, spares, slack, progress }
    }

    /// Seals the active segment if it holds a change, so that compaction may take all of it.
    pub(crate) fn seal_active(&self) -> Result<()> {
        let mut end = self.end.lock();
        self.context.health.check_writable()?;
        if end.active.has_changes() { self.roll(&mut end, 0, Need::Relief) } else { Ok(()) }
    }

    /// Seals the active segment if it is much larger than one that is filled slowly. The log goes
    /// on in a small one.
    pub(crate) fn seal_if_large(&self) -> Result<()> {
        let mut end = self.end.lock();
        self.context.health.check_writable()?;
        // The successor must be smaller: otherwise each call would make another segment.
        let small = self.spares.calm_capacity();
        let is_large = end.active.capacity() > small + small / 2;
        let rolled = if is_large { self.roll(&mut end, 0, Need::Growth) } else { Ok(()) };
        // No writer waited for that segment.
        self.spares.calm_down();
        unless_refused(rolled)
    }

    /// Seals the active segment, unless a resource for its successor is short. Compaction then does
    /// without that segment.
    pub(crate) fn seal_if_possible(&self) -> Result<()> {
        unless_refused(self.seal_active())
    }

    /// Whether records of `len` bytes fit the active segment, or its successor fits below the
    /// ceiling of the [slack](crate::slack).
    #[inline]
    pub(crate) fn has_memory_for(&self, end: &LockedEnd<'_>, len: usize) -> bool {
        end.active.has_room(len) || self.spares.next_fits_ceiling()
    }

    /// Makes room in the active segment for records of `len` bytes.
    #[inline]
    pub(crate) fn make_room(&self, end: &mut LockedEnd<'_>, len: usize, need: Need) -> Result<()> {
        if end.active.has_room(len) { Ok(()) } else { self.roll(end, len, need) }
    }

    /// Seals the active segment and goes on in one with room for `len` bytes.
    #[cold]
    fn roll(&self, end: &mut LockedEnd<'_>, len: usize, need: Need) -> Result<()> {
        // A panic between taking a spare and using it would leave a gap in the log.
        let _poison = self.context.health.poison_on_panic(self.context.path());
        let next =
            self.spares.next(SEGMENT_HEADER_LEN + len + MARK_LEN_MAX + SEAL_LEN_MAX, need, end.last_lsn());
        let next = next.map_err(|error| self.context.poison_unless_refused(error))?;
        self.date_changes(end);
        for next in next {
            end.roll(next);
        }
        Ok(())
    }

    /// Appends a mark that dates the newest changes, unless one dates them. Says whether it did. A
    /// flush of sealed segments appends none, so each segment gets its mark before its seal.
    pub(crate) fn date_changes(&self, end: &mut LockedEnd<'_>) -> bool {
        if end.is_dated() {
            return false;
        }
        end.append_mark(self.progress.durable_lsn(), self.context.env.clock.unix_time_ms());
        end.is_dated()
    }
}
