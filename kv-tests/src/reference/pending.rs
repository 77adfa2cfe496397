//! Changes that are not durable. The engine describes them to the policy, and obeys its answer.

use super::Defect;
use super::state::{Shared, State, live_bytes};
use kv_core::{Action, Change, Decision, Pending, Result};
use std::time::Duration;

impl Shared {
    /// Counts a change whose record takes `bytes`. The map does not hold it yet.
    pub(super) fn count(&self, state: &mut State, changes: &[&Change], bytes: usize) {
        let is_first = if self.has(Defect::AgeSinceOpen) {
            state.changes == 0
        } else {
            state.pending.records == 0 || self.has(Defect::AgeOfNewest)
        };
        if is_first {
            state.oldest = self.place.env.clock.monotonic();
        }
        let is_delete = changes.iter().all(|change| matches!(change, Change::Delete { .. }));
        if is_delete && self.has(Defect::DeletesUncounted) {
            return;
        }
        let overwrites = changes.iter().all(|change| state.content.map.contains_key(change.key()));
        let keys: usize = changes.iter().map(|change| change.key().len()).sum();
        let untold = match self.place.defect {
            Some(Defect::KeysUncounted) => bytes.min(keys + 60),
            Some(Defect::OverwritesUncounted) if overwrites => bytes,
            _ => 0,
        };
        state.pending.bytes += (bytes - untold) as u64;
        state.pending.records += if self.has(Defect::RecordsPerEntry) { changes.len() as u64 } else { 1 };
    }

    /// Nothing is pending any more.
    pub(super) fn count_anew(&self, state: &mut State) {
        let bytes = if self.has(Defect::BytesSinceOpen) { state.pending.bytes } else { 0 };
        state.pending = Pending { bytes, ..Pending::default() };
    }

    /// The bytes that count as pending after an open that recovered `state`.
    pub(super) fn count_recovered(&self, state: &mut State) {
        if self.has(Defect::CountsRecovered) && !state.content.clean {
            state.pending.bytes = live_bytes(&state.content.map);
        }
    }

    /// Asks the policy after these changes, and dumps if it says so.
    pub(super) fn obey_policy_after(&self, state: &mut State, changes: &[&Change]) -> Result<()> {
        let is_delete = changes.iter().all(|change| matches!(change, Change::Delete { .. }));
        let is_silent = match self.place.defect {
            Some(Defect::AsksNotAfterBatch) => changes.len() > 1,
            Some(Defect::AsksNotAfterDelete) => is_delete,
            Some(Defect::AsksEverySecond) => state.changes.is_multiple_of(2),
            // The thread dumps.
            Some(Defect::DumpForgetsLater) => self.has_ticker(),
            _ => false,
        };
        if is_silent { Ok(()) } else { self.obey_policy(state).map(drop) }
    }

    /// Follows a call that changed nothing.
    pub(super) fn obey_policy_when_idle(&self, state: &mut State) -> Result<()> {
        state.pending.records += u64::from(self.has(Defect::AbsentDeletesCounted));
        if self.has(Defect::AsksWhenIdle) { self.obey(state).map(drop) } else { Ok(()) }
    }

    /// Asks the policy, and dumps if it says so. Returns the time after which to ask again.
    pub(super) fn obey_policy(&self, state: &mut State) -> Result<Option<Duration>> {
        if state.pending.records == 0 || self.has(Defect::PolicyIgnored) {
            return Ok(None);
        }
        self.obey(state)
    }

    /// The same, also if nothing is pending.
    pub(super) fn obey(&self, state: &mut State) -> Result<Option<Duration>> {
        let mut pending = self.told(state);
        if self.has(Defect::LastUncounted) {
            pending.records -= 1;
            if pending.records == 0 {
                return Ok(None);
            }
        }
        let Decision { action, ask_again_in } = self.options.persistence.decide(&pending);
        let action = match (action, self.place.defect) {
            (Action::Write, Some(Defect::WriteIsHold)) => Action::Hold,
            (Action::WriteAndSync, Some(Defect::SyncIsWrite)) => Action::Write,
            (action, _) => action,
        };
        if action != Action::Hold {
            self.dump(state, action)?;
        }
        let stops = action == Action::Write && self.has(Defect::WriteStopsAsking);
        Ok(ask_again_in.filter(|_| !stops))
    }

    /// What the policy is told now.
    fn told(&self, state: &State) -> Pending {
        let now = self.place.env.clock.monotonic();
        let mut since_last_dump = now.saturating_sub(state.dumped);
        if self.has(Defect::DumpTimeUntold) {
            since_last_dump = Duration::ZERO;
        }
        Pending { oldest_age: now.saturating_sub(state.oldest), since_last_dump, ..state.pending }
    }

    /// Notes that a dump handed the changes to the operating system, and synced nothing.
    pub(super) fn written(&self, state: &mut State) {
        match self.place.defect {
            Some(Defect::AgeResetByWrite) => state.oldest = self.place.env.clock.monotonic(),
            Some(Defect::WriteForgetsPending) => state.pending = Pending::default(),
            Some(Defect::DurableByWrite) => state.durable = state.content.last,
            _ => {}
        }
    }

    /// With this defect, takes written changes for durable ones.
    pub(super) fn trusts_buffer(&self, state: &State, defect: Defect) -> bool {
        self.has(defect) && state.unwritten.is_empty()
    }
}
