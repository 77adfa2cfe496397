//! Syncs without the state's lock, so that callers can come during a sync: only defects need them.
//!
//! One caller leads: it writes the records, releases the lock, syncs, and takes the lock again. The
//! others wait for it, and then lead a sync of their own.

use super::Defect;
use super::log::Content;
use super::place::FILE;
use super::state::{Shared, State};
use kv_core::fs::{DirExt, FileExt};
use kv_core::{CompactionReport, Error, Lsn, Op, Pending, Result};
use std::sync::{Arc, MutexGuard, PoisonError, RwLockReadGuard};

impl Shared {
    /// Whether callers sync together.
    pub(super) fn syncs_together(&self) -> bool {
        self.place.defect.is_some_and(|defect| Defect::TOGETHER.contains(&defect))
    }

    /// Waits for the end of the sync that another caller leads.
    pub(super) fn wait_for_leader<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.is_syncing {
            state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Makes every change durable that was visible when the call began, up to a defect.
    pub(super) fn sync_together(&self) -> Result<Lsn> {
        let mut state = self.state();
        while state.is_syncing {
            state = self.wait_for_leader(state);
            let is_careless = self.has(Defect::JoinsEarlierDump)
                || self.has(Defect::JoinerMissesFailure) && self.health.is_poisoned();
            if is_careless {
                return Ok(Lsn::new(state.durable));
            }
        }
        self.health.check_writable()?;
        if state.pending.records == 0 {
            return Ok(Lsn::new(state.durable));
        }
        self.lead(state)
    }

    fn lead(&self, mut state: MutexGuard<'_, State>) -> Result<Lsn> {
        let path = self.place.dir.path_of(FILE);
        state.is_syncing = true;
        let written = state.file.write_all_at(&state.unwritten, state.len);
        state.len += state.unwritten.len() as u64;
        state.unwritten.clear();
        let (covered, records, file) = (state.content.last, state.pending.records, Arc::clone(&state.file));
        if self.has(Defect::DurableWhileSyncing) {
            state.durable = covered;
        }
        drop(state);
        let synced = written
            .map_err(|error| Error::io(Op::Write, &path, error))
            .and_then(|()| file.sync_data().map_err(|error| Error::sync(&path, error)));
        let mut state = self.state();
        if let Err(error) = synced {
            if !self.has(Defect::SleepsAfterFailure) {
                state.is_syncing = false;
                self.synced.notify_all();
            }
            return Err(if self.has(Defect::RetriesForJoiner) { error } else { self.health.poison(error) });
        }
        state.durable_before = state.durable;
        let counts_all = self.has(Defect::CountsLateChanges);
        state.durable = state.durable.max(if counts_all { state.content.last } else { covered });
        if self.has(Defect::ForgetsLateChanges) {
            state.pending = Pending::default();
        } else {
            state.pending.records = state.pending.records.saturating_sub(records);
        }
        state = self.compact_carelessly(state)?;
        state.is_syncing = false;
        self.synced.notify_all();
        Ok(Lsn::new(state.durable))
    }

    /// Replaces the file without the state's lock, and forgets the changes that came meanwhile.
    fn compact_carelessly<'a>(&'a self, state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>> {
        if !self.compacts_carelessly() {
            return Ok(state);
        }
        let now = &state.content;
        let content = Content {
            epoch: now.epoch,
            map: now.map.clone(),
            last: now.last,
            durable: now.durable,
            past: now.past.clone(),
            clean: true,
            ..Content::default()
        };
        drop(state);
        let replaced = self.place.replace(&content).map_err(|error| self.health.poison(error))?;
        let mut state = self.state();
        (state.file, state.len) = (replaced.0.into(), replaced.1);
        if self.has(Defect::CompactionTakesBackLateChange) {
            state.content.map = content.map;
        } else {
            state.unwritten.clear();
        }
        state.pending = Pending::default();
        Ok(state)
    }

    /// What a close does beside a sync of another caller. Returns whether the close takes
    /// everything for durable.
    pub(super) fn close_carelessly<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> (MutexGuard<'a, State>, bool) {
        if self.has(Defect::CloseJoinsEarlierDump) && state.is_syncing {
            return (self.wait_for_leader(state), true);
        }
        if self.has(Defect::CloseMissesLateChanges) {
            drop(state);
            let is_covered = self.sync_together().is_ok();
            state = self.state();
            return (state, is_covered);
        }
        (state, false)
    }

    /// The lock that a new key excludes, for a scan.
    pub(super) fn share_structure(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let shares = self.has(Defect::ScanLocksStructure) || self.has(Defect::BreakKeepsLock);
        let lock = || self.structure.read().unwrap_or_else(PoisonError::into_inner);
        shares.then(lock)
    }

    pub(super) fn compacts_carelessly(&self) -> bool {
        self.has(Defect::CompactionLosesLateChange) || self.has(Defect::CompactionTakesBackLateChange)
    }
}

impl kv_core::Compact for super::Reference {
    fn compact(&self) -> Result<CompactionReport> {
        self.compact_now()?;
        Ok(CompactionReport::default())
    }
}
