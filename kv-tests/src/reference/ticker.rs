//! The thread that dumps when the policy's time is over, and wakes the tasks that wait for
//! durability.

use super::Defect;
use super::state::{Shared, State};
use kv_core::{Action, Background, Lsn, Pending, Result};
use std::sync::{MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

impl Shared {
    pub(super) fn tick(&self) {
        let mut state = self.state();
        loop {
            // A failure poisons, so the next caller gets it.
            if state.wanted > state.durable && state.closed.is_none() && !self.health.is_poisoned() {
                let _ = self.dump(&mut state, Action::WriteAndSync);
            }
            let (durable, was_poisoned) = (state.durable, self.health.is_poisoned());
            state = self.wake_tasks(state);
            // The ticker holds the lock from these checks to its wait, so it cannot miss a
            // notification. It missed those that came while it woke tasks.
            if state.durable > durable || self.health.is_poisoned() != was_poisoned {
                continue;
            }
            if (state.closed.is_some() || self.health.is_poisoned()) && !self.has(Defect::LeaksStore) {
                break;
            }
            if state.wanted > state.durable {
                continue;
            }
            let has_slept = std::mem::take(&mut state.is_ticker_waiting_for_time);
            let mut again = self.ask_as_ticker(&mut state).unwrap_or(None);
            if has_slept && self.has(Defect::AsksOnceMore) {
                again = None;
            }
            if self.has(Defect::DumpForgetsLater) {
                state = self.forget_later(state);
            }
            let wake = |error: PoisonError<_>| error.into_inner();
            state.is_ticker_waiting_for_time = again.is_some();
            state = match again {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(after) => self.changed.wait_timeout(state, after).unwrap_or_else(wake).0,
            };
        }
    }

    fn ask_as_ticker(&self, state: &mut State) -> Result<Option<Duration>> {
        match self.place.defect {
            Some(Defect::IdleThreadAsks) => self.obey(state),
            Some(Defect::HoldDumps) if state.pending.records > 0 => {
                self.dump(state, Action::WriteAndSync).map(|()| None)
            }
            _ => self.obey_policy(state),
        }
    }

    /// The end of a dump takes place a moment later, and covers everything that came meanwhile.
    fn forget_later<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        drop(state);
        thread::sleep(Duration::from_micros(500));
        let mut state = self.state();
        state.pending = Pending::default();
        state
    }

    /// Whether a thread dumps, too.
    pub(super) fn has_ticker(&self) -> bool {
        self.place.env.background == Background::Threads
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
