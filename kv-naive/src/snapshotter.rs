//! Makes changes durable, and reserves LSNs.
//!
//! One thread at a time leads, and writes a snapshot. The others wait. Their changes are durable
//! afterwards if they were visible before the cut began; otherwise one of the waiting threads leads
//! next (group commit). A failure poisons the store: the leader gets the failure, and every thread
//! that waits gets [`Error::Poisoned`].

use kv_core::parts::{Dumper, Health, Leadership, Leading, Progress};
use kv_core::{Action, Clock, Decision, Error, Lsn, PersistencePolicy, Result, Stats};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::files::Files;
use crate::identity;
use crate::past::Kept;
use crate::table::{Cut, Table};

/// The parts and settings that a snapshotter needs.
#[derive(Debug)]
pub(crate) struct Needs {
    pub(crate) table: Arc<Table>,
    pub(crate) health: Arc<Health>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: Arc<dyn PersistencePolicy>,
}

#[derive(Debug)]
pub(crate) struct Snapshotter {
    needs: Needs,
    /// Written by the leader only.
    files: Files,
    leadership: Leadership,
    progress: Progress,
    /// The LSN from which on the ceiling is to be raised.
    raise_at: AtomicU64,
    /// LSNs up to this one belong to earlier openings.
    lsn_floor: Lsn,
}

impl Snapshotter {
    /// For a store that is durable up to `durable_lsn`, and goes on above `lsn_floor`.
    pub(crate) fn new(needs: Needs, files: Files, durable_lsn: Lsn, lsn_floor: Lsn) -> Self {
        let progress = Progress::new(durable_lsn, needs.clock.monotonic());
        let (leadership, raise_at) = Default::default();
        Snapshotter { needs, files, leadership, progress, raise_at, lsn_floor }
    }

    /// Reserves the first LSNs. The identity that it writes completes the creation of a store.
    pub(crate) fn begin(&self) -> Result<()> {
        self.raise_ceiling_above(self.lsn_floor)?;
        self.files.hold_reserve();
        Ok(())
    }

    #[inline]
    pub(crate) fn durable_lsn(&self) -> Lsn {
        self.progress.durable_lsn()
    }

    /// Notes a change that just became visible.
    #[inline]
    pub(crate) fn changed(&self) {
        self.progress.changed(&*self.needs.clock);
    }

    /// The policy's answer after a change, and the time that it is of.
    #[inline]
    pub(crate) fn decide_after_change(&self) -> (Duration, Decision) {
        let Needs { table, clock, policy, .. } = &self.needs;
        let end = table.position();
        let now = self.progress.recent_time(end, &**clock);
        (now, self.progress.decide(&**policy, end, now))
    }

    /// The policy's answer for all visible changes at the time `now`.
    pub(crate) fn decide(&self, now: Duration) -> Decision {
        self.progress.decide(&*self.needs.policy, self.needs.table.position(), now)
    }

    /// Returns once all changes up to `lsn` are in a durable snapshot.
    pub(crate) fn make_durable(&self, lsn: Lsn) -> Result<()> {
        let is_done = || self.progress.durable_lsn() >= lsn;
        self.leadership.lead_until(&self.needs.health, is_done, || self.snapshot())
    }

    /// Makes all visible changes durable.
    pub(crate) fn make_all_durable(&self) -> Result<()> {
        self.make_durable(self.needs.table.last_lsn())
    }

    /// The work of the leader.
    fn snapshot(&self) -> Result<()> {
        self.work(|| {
            let position = self.files.replace_snapshot(&self.needs.table, || self.progress.begin_sync())?;
            self.progress.synced(position, self.needs.clock.monotonic());
            self.files.hold_reserve();
            Ok(())
        })
    }

    /// Does work of a leader. A failure poisons.
    fn work<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let health = &self.needs.health;
        // Dropped before the leadership is: the next leader sees the poison.
        let _poison = health.poison_on_panic(self.files.dir().path());
        work().map_err(|error| health.poison(error))
    }

    /// Leads, so that no other thread writes or removes a file.
    ///
    /// # Errors
    /// The store is poisoned.
    pub(crate) fn lead(&self) -> Result<Leading<'_>> {
        let health = &self.needs.health;
        self.leadership.take_unless(|| health.is_poisoned()).ok_or_else(|| health.poisoned())
    }

    /// As [`lead`](Self::lead), with every visible change in the snapshot, unless the store is only
    /// read.
    pub(crate) fn lead_with_all_durable(&self) -> Result<Leading<'_>> {
        let leading = self.lead()?;
        let Needs { table, health, .. } = &self.needs;
        if !health.is_read_only() && self.progress.durable_lsn() < table.last_lsn() {
            self.snapshot()?;
        }
        Ok(leading)
    }

    /// Changes the points as the leader. A refusal changes nothing, and other failures poison.
    ///
    /// With a `cut`, this first makes a snapshot of it, which the change may name.
    pub(crate) fn change_points<R>(
        &self,
        cut: Option<Cut<'_>>,
        change: impl FnOnce(&mut Kept) -> Result<R>,
    ) -> Result<R> {
        let health = &self.needs.health;
        let _poison = health.poison_on_panic(self.files.dir().path());
        let position = cut.as_ref().map(|cut| cut.position);
        let changed = cut.map_or(Ok(()), |cut| self.files.replace_snapshot_by(cut)).and_then(|()| {
            if let Some(position) = position {
                self.progress.synced_in_part(position, self.needs.clock.monotonic());
            }
            self.files.change_points(change)
        });
        changed.map_err(|error| match error {
            Error::InvalidArgument(_) | Error::OutsideWindow { .. } => error,
            error if error.is_refusal() => error,
            error => health.poison(error),
        })
    }

    /// Checks that the store is open.
    pub(crate) fn check_readable(&self) -> Result<()> {
        self.needs.health.check_readable()
    }

    /// The files. They stay as they are while this thread [leads](Self::lead).
    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// Reserves LSNs for the next changes, unless there are enough.
    #[inline]
    pub(crate) fn reserve_lsns(&self) -> Result<()> {
        if self.is_ceiling_near() { self.raise_ceiling() } else { Ok(()) }
    }

    #[inline]
    fn is_ceiling_near(&self) -> bool {
        self.needs.table.last_lsn().get() >= self.raise_at.load(Ordering::Relaxed)
    }

    #[cold]
    fn raise_ceiling(&self) -> Result<()> {
        let Needs { table, health, .. } = &self.needs;
        let is_done = || !self.is_ceiling_near() || health.is_poisoned();
        if let Some(_leading) = self.leadership.take_unless(is_done) {
            // A store that was closed meanwhile has its last ceiling.
            health.check_writable()?;
            self.raise_ceiling_above(table.last_lsn()).map_err(|error| health.poison(error))?;
        }
        health.check_writable()
    }

    /// Reserves LSNs above `last`. Called by the leader, or before other threads know the store.
    fn raise_ceiling_above(&self, last: Lsn) -> Result<()> {
        let ceiling = identity::ceiling_above(last);
        self.files.replace_identity(ceiling)?;
        self.raise_at.store(identity::raise_at(ceiling).get(), Ordering::Relaxed);
        Ok(())
    }

    /// Makes all changes durable, takes no more, and gives unused LSNs back.
    pub(crate) fn close(&self) -> Result<()> {
        let Needs { table, health, .. } = &self.needs;
        health.check_writable()?;
        self.make_all_durable()?;
        // The next snapshot holds the changes that came after the first. No change comes after it.
        health.close();
        let last = table.close();
        self.make_durable(last)?;
        match self.leadership.take_unless(|| health.is_poisoned()) {
            Some(_leading) => match self.files.replace_identity(self.lsn_floor.max(last)) {
                // All changes are durable. Only the unused LSNs are lost.
                Ok(()) | Err(Error::DiskFull { .. }) => Ok(()),
                Err(error) => Err(health.poison(error)),
            },
            None => Err(health.poisoned()),
        }
    }

    /// Closes the table, and gives the directory back once no thread writes to it.
    pub(crate) fn release(&self) {
        let _leading = self.leadership.take_unless(|| false);
        self.needs.health.close();
        self.needs.table.close();
        self.files.release();
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        self.progress.fill(stats, || self.needs.table.position());
        self.files.fill(stats);
    }
}

impl Dumper for Snapshotter {
    fn durable_lsn(&self) -> Lsn {
        self.progress.durable_lsn()
    }

    fn decide(&self, now: Duration) -> Decision {
        Snapshotter::decide(self, now)
    }

    fn make_durable(&self, _lsn: Lsn) -> Result<()> {
        self.make_all_durable()
    }

    fn dump(&self, _action: Action) -> Result<()> {
        self.make_all_durable()
    }

    /// Lets past states expire.
    fn before_rest(&self) {
        if !self.files.kept().old.is_empty()
            && let Ok(_leading) = self.lead()
        {
            let _ = self.work(|| self.files.expire());
        }
    }
}
