//! Calls on threads of their own, so that a call that does not return is a failure with its name.

use crate::{Context, Failure};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// A watchdog against deadlocks, not a limit on speed.
pub(super) fn patience(context: &Context) -> Duration {
    context.settings().timeout.min(Duration::from_secs(20)) / 2
}

/// A call on its own thread.
#[derive(Debug)]
pub(super) struct Running<T> {
    call: String,
    answer: Receiver<T>,
    patience: Duration,
}

/// Begins `work` on a thread of its own. `call` names it for reports.
pub(super) fn start<T: Send + 'static>(
    context: &Context,
    call: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Running<T> {
    let (send, answer) = mpsc::channel();
    thread::spawn(move || {
        // The case is gone if it has failed meanwhile.
        let _ = send.send(work());
    });
    Running { call: call.into(), answer, patience: patience(context) }
}

impl<T> Running<T> {
    /// The answer, if it comes within `wait`.
    pub(super) fn within(&self, wait: Duration) -> Result<Option<T>, Failure> {
        match self.answer.recv_timeout(wait) {
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::new(format!("no operation panics, but {} did", self.call)))
            }
        }
    }

    /// The answer. The failure of a call that does not return names it, and says `whereabouts`.
    pub(super) fn answer(&self, whereabouts: &str) -> Result<T, Failure> {
        self.within(self.patience)?.ok_or_else(|| self.stuck(whereabouts))
    }

    /// The failure of a call that does not return.
    pub(super) fn stuck(&self, whereabouts: &str) -> Failure {
        let call = [self.call.as_str(), whereabouts].join(" ");
        Failure::new(format!("{} did not return within {} s", call.trim_end(), self.patience.as_secs()))
    }
}
