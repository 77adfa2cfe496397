//! One change: its LSN, its record, its effect on the map, and the moment its call returns.

use super::Defect;
use super::log;
use super::state::{Shared, State};
use super::stored;
use kv_core::{Acknowledge, Action, Change, Lsn, Result};
use std::sync::{MutexGuard, PoisonError, RwLockWriteGuard};
use std::thread;

impl Shared {
    /// With this defect, releases the state's lock for a moment.
    fn let_go<'a>(&'a self, state: MutexGuard<'a, State>, defect: Defect) -> MutexGuard<'a, State> {
        if !self.has(defect) {
            return state;
        }
        drop(state);
        thread::yield_now();
        self.state()
    }

    /// Applies changes under one LSN; `None` if they change nothing.
    pub(super) fn change(&self, changes: &[&Change]) -> Result<Option<Lsn>> {
        self.wait_before_change(changes);
        let _structure = self.lock_structure(changes);
        let mut state = self.state();
        if self.is_closed_but(Defect::IdleDeleteAfterClose)
            && !changes.is_empty()
            && changes.iter().all(|change| !state.content.map.contains_key(change.key()))
            && changes.iter().all(|change| matches!(change, Change::Delete { .. }))
        {
            return Ok(None);
        }
        self.check_writable()?;
        self.remove_leftovers(&mut state);
        let present = |change: &&&Change| {
            matches!(change, Change::Put { .. })
                || state.content.map.contains_key(change.key())
                || self.has(Defect::IdleDeleteTakesLsn)
        };
        let stops = self.has(Defect::DeletesStopAtAbsent)
            && changes.iter().all(|change| matches!(change, Change::Delete { .. }));
        let changes: Vec<&Change> = if stops {
            changes.iter().take_while(present).copied().collect()
        } else {
            changes.iter().filter(present).copied().collect()
        };
        if changes.is_empty() || self.is_same(&state, &changes) {
            state.changes += u64::from(self.has(Defect::CountsIdleBatches));
            self.obey_policy_when_idle(&mut state)?;
            return Ok(None);
        }
        state = self.let_go(state, Defect::CheckThenAct);
        let lsn = state.next;
        let reuses = self.has(Defect::CallbackReusesLsn) && self.visits.is_mine();
        state.next += u64::from(!reuses);
        state = self.let_go(state, Defect::LsnDrawnEarly);
        self.keep_past(&mut state, lsn, &changes);
        let takes_back = self.has(Defect::TakesBack) || self.has(Defect::FullDiskTakesLsn);
        let before = takes_back.then(|| (state.content.map.clone(), state.unwritten.clone()));
        self.log(&mut state, lsn, &changes);
        if self.has(Defect::LastLsnEarly) {
            state.content.last = state.content.last.max(lsn);
            state = self.let_go(state, Defect::LastLsnEarly);
        }
        let count = if self.has(Defect::CountsBatchEntries) { changes.len() as u64 } else { 1 };
        let torn = self.has(Defect::TornValue) && changes.len() == 1;
        let mut leaf = None;
        for &change in &changes {
            let reached = change.key().first().map(|byte| byte / 64);
            if leaf.replace(reached).is_some_and(|before| before != reached) {
                state = self.let_go(state, Defect::BatchLeafByLeaf);
            }
            state = self.apply_with_gap(state, change);
            if torn {
                state = self.apply_in_halves(state, change);
            }
            self.apply(&mut state, change);
            state = self.let_go(state, Defect::BatchKeyByKey);
        }
        state = self.let_go(state, Defect::LastLsnLate);
        state.content.last = state.content.last.max(lsn);
        state.changes += count;
        state = self.let_go(state, Defect::TakesBack);
        let acknowledged = self.acknowledge(&mut state, &changes);
        if acknowledged.is_err()
            && let Some(before) = before
        {
            (state.content.map, state.unwritten) = before;
        }
        match acknowledged {
            Err(_) if self.has(Defect::FailureToldLate) => Ok(Some(Lsn::new(lsn))),
            acknowledged => acknowledged.map(|()| Some(Lsn::new(lsn))),
        }
    }

    /// Takes the lock that a scan shares, for a new key.
    fn lock_structure(&self, changes: &[&Change]) -> Option<RwLockWriteGuard<'_, ()>> {
        let is_locked = self.has(Defect::ScanLocksStructure) || self.has(Defect::BreakKeepsLock);
        let state = self.state();
        let is_new = |change: &&Change| {
            matches!(change, Change::Put { .. }) && !state.content.map.contains_key(change.key())
        };
        let takes = is_locked && changes.iter().any(is_new);
        drop(state);
        takes.then(|| self.structure.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Releases the lock while present keys are not in the map: the old value of an overwritten
    /// key, or the upper half of a map that a new key splits.
    fn apply_with_gap<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        change: &Change,
    ) -> MutexGuard<'a, State> {
        if !matches!(change, Change::Put { .. }) {
            return state;
        }
        let is_present = state.content.map.contains_key(change.key());
        if is_present && self.has(Defect::OverwriteRemovesFirst) {
            state.content.map.remove(change.key());
            return self.let_go(state, Defect::OverwriteRemovesFirst);
        }
        let len = state.content.map.len();
        let splits = !is_present && len % 64 == 63 && self.has(Defect::SplitHidesKeys);
        let Some(middle) = state.content.map.keys().nth(len / 2).filter(|_| splits).cloned() else {
            return state;
        };
        let upper = state.content.map.split_off(&middle);
        state = self.let_go(state, Defect::SplitHidesKeys);
        for (key, value) in upper {
            state.content.map.entry(key).or_insert(value);
        }
        state
    }

    /// With [`Defect::SameValueTakesNone`], whether this is a put of the present value.
    fn is_same(&self, state: &State, changes: &[&Change]) -> bool {
        let same = |change: &&Change| match change {
            Change::Put { key, value } => state.content.map.get(key) == Some(value),
            Change::Delete { .. } => false,
        };
        self.has(Defect::SameValueTakesNone) && changes.iter().all(same)
    }

    /// Applies a change to the map.
    fn apply(&self, state: &mut State, change: &Change) {
        let map = &mut state.content.map;
        let keeps_tail = self.has(Defect::ShortKeepsTail);
        let before = if keeps_tail { map.get(change.key()).cloned() } else { None };
        log::apply(map, change);
        if let (Some(before), Some(now)) = (before, map.get_mut(change.key())) {
            now.extend(before.iter().skip(now.len()).copied().collect::<Vec<u8>>());
        }
        if self.has(Defect::DeleteTakesPrefix) && matches!(change, Change::Delete { .. }) {
            map.retain(|key, _| !key.starts_with(change.key()));
        }
    }

    /// Releases the lock while only half of a value is in the map.
    fn apply_in_halves<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        change: &Change,
    ) -> MutexGuard<'a, State> {
        if let Change::Put { key, value } = change {
            let half = value.iter().take(value.len() / 2).copied().collect();
            state.content.map.insert(key.clone(), half);
        }
        drop(state);
        thread::yield_now();
        self.state()
    }

    /// Adds the records of a change to the unwritten ones.
    fn log(&self, state: &mut State, lsn: u64, changes: &[&Change]) {
        let (epoch, durable) = (state.content.epoch, state.durable);
        let now = self.place.env.clock.unix_time_ms();
        let before = state.unwritten.len();
        if self.has(Defect::SplitBatch) {
            for change in changes {
                state.unwritten.extend(log::record(epoch, lsn, durable, now, [*change]));
            }
        } else if self.has(Defect::DeleteNotLogged) {
            let puts = changes.iter().copied().filter(|change| matches!(change, Change::Put { .. }));
            state.unwritten.extend(log::record(epoch, lsn, durable, now, puts));
        } else {
            let stored = stored::changes(self.place.defect, changes);
            state.unwritten.extend(log::record(epoch, lsn, durable, now, &stored));
        }
        let bytes = state.unwritten.len() - before;
        self.count(state, changes, bytes);
    }

    /// Returns at once, or waits until the change is durable: as the policy says.
    fn acknowledge(&self, state: &mut State, changes: &[&Change]) -> Result<()> {
        let is_delete = changes.iter().all(|change| matches!(change, Change::Delete { .. }));
        let waits = match self.place.defect {
            Some(Defect::HoldWhenDurable) => false,
            Some(Defect::DeletesDoNotWait) => !is_delete,
            Some(Defect::BatchesDoNotWait) => changes.len() == 1,
            _ => true,
        };
        let must_wait = waits && self.options.persistence.acknowledge() == Acknowledge::WhenDurable;
        if must_wait && self.has(Defect::AcknowledgeBeforeDump) {
            return Ok(());
        }
        if must_wait {
            return self.dump(state, Action::WriteAndSync);
        }
        let sleeps = state.is_ticker_waiting_for_time && self.has(Defect::SoonerTimeIgnored);
        if !self.has(Defect::LostWakeUp) && !sleeps {
            self.changed.notify_one();
        }
        self.obey_policy_after(state, changes)
    }
}
