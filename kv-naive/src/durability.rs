//! When changes become durable, and who sees to it.
//!
//! One thread at a time leads a snapshot, the others wait for it: what they wait for is durable afterwards
//! when it was visible before the cut began, else one of them leads the next (group commit). A failure
//! poisons the store, and everybody who waits is woken and told.

use kv_core::{Acknowledge, Action, Background, Lsn, Result};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::snapshot;
use crate::store::{IDENTITY_ROOM, Store};

impl Store {
    /// What follows a change, with no lock held: the caller waits for a snapshot, or makes it, or wakes the
    /// worker.
    #[inline]
    pub(crate) fn after_change(&self, lsn: Lsn) -> Result<()> {
        let clock = &*self.env.clock;
        self.progress.changed(clock);
        if self.acknowledge == Acknowledge::WhenDurable {
            return self.make_durable(lsn);
        }
        match self.env.background {
            Background::Inline => match self.decide(clock.monotonic()) {
                (Action::Hold, _) => Ok(()),
                (Action::Write | Action::WriteAndSync, _) => self.make_durable(lsn),
            },
            Background::Threads => {
                let now = self.progress.recent_time(self.table.position(), clock);
                match self.decide(now) {
                    (Action::Hold, None) => {}
                    (Action::Hold, Some(pause)) => self.signal.ask_at(now.saturating_add(pause)),
                    (Action::Write | Action::WriteAndSync, _) => self.signal.wake(),
                }
                Ok(())
            }
        }
    }

    /// The policy's answer, and when to ask again.
    #[inline]
    pub(crate) fn decide(&self, now: Duration) -> (Action, Option<Duration>) {
        let pending = self.progress.pending(self.table.position(), now);
        if pending.records == 0 {
            return (Action::Hold, None);
        }
        let decision = self.options.persistence.decide(&pending);
        (decision.action, decision.ask_again_in)
    }

    /// Returns once everything up to `lsn` is in a durable snapshot.
    pub(crate) fn make_durable(&self, lsn: Lsn) -> Result<()> {
        let done = || self.progress.durable_lsn() >= lsn;
        self.leadership.lead_until(&self.health, done, || {
            // Dropped before leadership is given up: who leads next knows already.
            let _poison = self.health.poison_on_panic(self.dir.path());
            self.snapshot().map_err(|error| self.health.poison(error))
        })
    }

    /// What the leader does.
    fn snapshot(&self) -> Result<()> {
        let for_snapshots = self.reserve.len().saturating_sub(IDENTITY_ROOM);
        let (position, bytes) = self.reserve.lend(for_snapshots, IDENTITY_ROOM, || {
            self.check_directory()?;
            self.progress.before_cut();
            let cut = self.table.begin_cut();
            let position = cut.position;
            Ok((position, snapshot::write(&*self.dir, self.id, cut)?))
        })?;
        // A snapshot in a directory that is gone is not durable.
        self.check_directory()?;
        self.counters.file_replaced(bytes);
        self.counters.snapshots.fetch_add(1, Ordering::Relaxed);
        self.counters.snapshot_bytes.store(bytes, Ordering::Relaxed);
        self.progress.became_durable(position, self.env.clock.monotonic());
        self.hold_reserve();
        Ok(())
    }
}
