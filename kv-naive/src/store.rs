use kv_core::parts::{AtExit, Health, Pacing};
use kv_core::{Acknowledge, Action, Background, Env, Limits, Lsn, OpenOptions, RecoveryReport, Result};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::snapshotter::Snapshotter;
use crate::table::Table;

/// The parts of an open store, which callers and the background thread share, and how a change goes
/// through them.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) table: Arc<Table>,
    pub(crate) health: Arc<Health>,
    pub(crate) snapshotter: Snapshotter,
    pub(crate) pacing: Pacing,
    pub(crate) limits: Limits,
    /// Longest key that can be looked up, bytes: that of the limits, or of a key that was present
    /// before they were lowered.
    pub(crate) key_len_max: usize,
    pub(crate) recovery: RecoveryReport,
    env: Env,
    /// The policy's answer, asked once.
    acknowledge: Acknowledge,
    read_only: bool,
}

impl Store {
    /// Wires the parts of a store that was recovered as `recovery` says.
    pub(crate) fn new(
        table: Arc<Table>,
        health: Arc<Health>,
        snapshotter: Snapshotter,
        recovery: RecoveryReport,
        env: &Env,
        options: &OpenOptions,
    ) -> Self {
        Store {
            key_len_max: table.longest_loaded_key().max(options.limits.key_len_max),
            table,
            health,
            snapshotter,
            pacing: Pacing::default(),
            limits: options.limits,
            recovery,
            env: env.clone(),
            acknowledge: options.persistence.acknowledge(),
            read_only: options.read_only,
        }
    }

    /// The environment of the store.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Whether a thread dumps in the background.
    pub(crate) fn has_thread(&self) -> bool {
        self.env.background == Background::Threads && !self.read_only
    }

    /// The work of that thread. `dir` is for errors.
    pub(crate) fn snapshot_when_due(&self, dir: &Path) {
        self.pacing.serve(&self.snapshotter, &*self.env.clock, &self.health, dir);
    }

    /// Checks that a change may be made now, and that there is an LSN for it.
    #[inline]
    pub(crate) fn before_change(&self) -> Result<()> {
        self.health.check_writable()?;
        self.snapshotter.reserve_lsns()
    }

    /// Follows a change, with no lock held: the caller waits for a snapshot, or writes it, or wakes
    /// the thread.
    #[inline]
    pub(crate) fn after_change(&self, lsn: Lsn) -> Result<()> {
        self.snapshotter.changed();
        if self.acknowledge == Acknowledge::WhenDurable {
            return self.snapshotter.make_durable(lsn);
        }
        match self.env.background {
            Background::Inline => match self.snapshotter.decide(self.env.clock.monotonic()).action {
                Action::Hold => Ok(()),
                Action::Write | Action::WriteAndSync => self.snapshotter.make_durable(lsn),
            },
            Background::Threads => {
                let (now, decision) = self.snapshotter.decide_after_change();
                self.pacing.after_change(now, decision);
                Ok(())
            }
        }
    }

    /// Refuses to look up a key that is longer than every key of the store can be.
    #[inline]
    pub(crate) fn check_look_up(&self, key: &[u8]) -> Result<()> {
        self.limits.check_key_with(key, self.key_len_max)
    }

    /// As [`Engine::poll_durable`](kv_core::Engine::poll_durable) of an LSN that was given out.
    pub(crate) fn poll_durable(&self, lsn: Lsn, task: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.has_thread() {
            // No thread would wake the task.
            return Poll::Ready(self.snapshotter.make_durable(lsn));
        }
        self.pacing.poll_durable(lsn, task, || self.snapshotter.durable_lsn(), &self.health)
    }

    /// Makes all changes durable, and gives the directory back in any case. The thread has ended.
    pub(crate) fn close(&self) -> Result<()> {
        let result = if self.read_only { Ok(()) } else { self.snapshotter.close() };
        self.snapshotter.release();
        result
    }
}

impl AtExit for Store {
    fn at_exit(&self) {
        if self.health.check_writable().is_ok() {
            let _ = self.snapshotter.make_all_durable();
        }
    }
}
