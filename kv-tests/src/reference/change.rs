//! One change: its LSN, its record, its effect on the map, and the moment its call returns.

use super::Defect;
use super::log;
use super::state::{Shared, State};
use kv_core::{Acknowledge, Action, Change, Lsn, Result};
use std::sync::MutexGuard;
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
        let mut state = self.state();
        self.check_writable()?;
        self.remove_leftovers(&mut state);
        let present = |change: &&&Change| {
            matches!(change, Change::Put { .. })
                || state.content.map.contains_key(change.key())
                || self.has(Defect::IdleDeleteTakesLsn)
        };
        let changes: Vec<&Change> = changes.iter().filter(present).copied().collect();
        if changes.is_empty() {
            self.obey_policy_when_idle(&mut state)?;
            return Ok(None);
        }
        state = self.let_go(state, Defect::CheckThenAct);
        let lsn = state.next;
        state.next += 1;
        state = self.let_go(state, Defect::LsnDrawnEarly);
        let takes_back = self.has(Defect::TakesBack) || self.has(Defect::FullDiskTakesLsn);
        let before = takes_back.then(|| (state.content.map.clone(), state.unwritten.clone()));
        self.log(&mut state, lsn, &changes);
        let torn = self.has(Defect::TornValue) && changes.len() == 1;
        for &change in &changes {
            if torn {
                state = self.apply_in_halves(state, change);
            }
            log::apply(&mut state.content.map, change);
            state = self.let_go(state, Defect::BatchKeyByKey);
        }
        state.content.last = state.content.last.max(lsn);
        state.changes += 1;
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
        let before = state.unwritten.len();
        if self.has(Defect::SplitBatch) {
            for change in changes {
                state.unwritten.extend(log::record(epoch, lsn, durable, [*change]));
            }
        } else if self.has(Defect::DeleteNotLogged) {
            let puts = changes.iter().copied().filter(|change| matches!(change, Change::Put { .. }));
            state.unwritten.extend(log::record(epoch, lsn, durable, puts));
        } else {
            state.unwritten.extend(log::record(epoch, lsn, durable, changes.iter().copied()));
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
