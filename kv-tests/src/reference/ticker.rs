//! The thread that dumps when the policy's time is over, and wakes the tasks that wait for
//! durability.

use super::Defect;
use super::state::{Shared, State};
use kv_core::{Action, Lsn};
use std::sync::{MutexGuard, PoisonError};

impl Shared {
    pub(super) fn tick(&self) {
        let mut state = self.state();
        loop {
            // A failure poisons, so the next caller gets it.
            if state.wanted > state.durable && state.closed.is_none() && !self.health.is_poisoned() {
                let _ = self.dump(&mut state, Action::WriteAndSync);
            }
            state = self.wake_tasks(state);
            // The ticker holds the lock from these checks to its wait, so it cannot miss a
            // notification.
            let is_closed = state.closed.is_some() && !self.has(Defect::KeepsTicker);
            if (is_closed || self.health.is_poisoned()) && !self.has(Defect::LeaksStore) {
                break;
            }
            if state.wanted > state.durable {
                continue;
            }
            let again = self.obey_policy(&mut state).unwrap_or(None);
            let wake = |error: PoisonError<_>| error.into_inner();
            state = match again {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(after) => self.changed.wait_timeout(state, after).unwrap_or_else(wake).0,
            };
        }
    }

    /// Wakes the tasks whose answer is ready, without the lock.
    fn wake_tasks<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let durable = Lsn::new(state.durable);
        drop(state);
        if self.health.is_poisoned() {
            if !self.has(Defect::FuturesNotToldOfFailure) {
                self.tasks.wake_all();
            }
        } else {
            self.tasks.wake_up_to(durable);
        }
        self.state()
    }
}
