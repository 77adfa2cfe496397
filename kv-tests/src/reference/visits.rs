//! The running callbacks: only defects look at them.

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
pub(super) struct Visit {
    pub(super) kind: Kind,
    pub(super) thread: ThreadId,
    pub(super) key: Vec<u8>,
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

    pub(super) fn wait_while(&self, is_meant: impl Fn(&Visit) -> bool) {
        while self.any(&is_meant) {
            thread::sleep(Duration::from_millis(2));
        }
    }
}
