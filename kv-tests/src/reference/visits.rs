//! The running callbacks: only defects look at them.

use super::Defect;
use super::state::Shared;
use kv_core::Change;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// The call that runs a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    ReadMany,
    Scan,
}

#[derive(Debug)]
struct Visit {
    kind: Kind,
    thread: ThreadId,
    key: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Visits(Mutex<Vec<Visit>>);

impl Visits {
    fn any(&self, is_meant: impl Fn(&Visit) -> bool) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(is_meant)
    }

    /// Runs a callback.
    pub(super) fn during<T>(&self, kind: Kind, key: &[u8], callback: impl FnOnce() -> T) -> T {
        let thread = thread::current().id();
        let visit = Visit { kind, thread, key: key.to_vec() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
        let answer = callback();
        let mut visits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = visits.iter().rposition(|visit| visit.thread == thread) {
            visits.remove(at);
        }
        answer
    }

    /// Whether this thread runs a callback.
    pub(super) fn is_mine(&self) -> bool {
        let thread = thread::current().id();
        self.any(|visit| visit.thread == thread)
    }

    fn wait_while(&self, is_meant: impl Fn(&Visit) -> bool) {
        while self.any(&is_meant) {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Shared {
    /// Waits for callbacks before a change, where a defect demands it.
    pub(super) fn wait_before_change(&self, changes: &[&Change]) {
        let thread = thread::current().id();
        if self.has(Defect::ReadPinsKey) {
            let is_named = |key: &[u8]| changes.iter().any(|change| change.key() == key);
            self.visits.wait_while(|visit| visit.kind == Kind::Read && is_named(&visit.key));
        }
        if self.has(Defect::CallbackStopsWriters) {
            self.visits.wait_while(|visit| visit.kind == Kind::Scan && visit.thread != thread);
        }
    }

    /// Waits for callbacks before a sync, where a defect demands it.
    pub(super) fn wait_before_sync(&self) {
        if self.has(Defect::SyncWaitsForReadMany) {
            self.visits.wait_while(|visit| visit.kind == Kind::ReadMany);
        }
    }

    /// Waits for callbacks before the statistics, where a defect demands it.
    pub(super) fn wait_before_stats(&self) {
        if self.has(Defect::StatsWaitForScan) {
            self.visits.wait_while(|visit| visit.kind == Kind::Scan);
        }
    }
}
