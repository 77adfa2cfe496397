//! Wake-ups for the background workers.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use kv_core::parts::{NextAsk, Wakers};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How callers wake the workers.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) flush: Wake,
    pub(crate) spares: Wake,
    pub(crate) compact: Wake,
    /// The time at which the flush worker asks the policy again without a wake-up.
    pub(crate) next_ask: NextAsk,
    /// The tasks that wait for a sync. The flush worker syncs up to the LSN that they wait for,
    /// even if the policy holds.
    pub(crate) tasks: Wakers,
    stopping: AtomicBool,
}

/// Wakes one worker. Several wake-ups before the worker waits count as one.
#[derive(Debug)]
pub(crate) struct Wake {
    sender: Sender<()>,
    receiver: Receiver<()>,
}

impl Default for Wake {
    fn default() -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        Wake { sender, receiver }
    }
}

impl Wake {
    pub(crate) fn wake(&self) {
        match self.sender.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => unreachable!("the receiver lives in the same value"),
        }
    }

    /// Waits for a wake-up, or for `timeout`. Returns whether there was a wake-up.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> bool {
        let woken = match timeout {
            Some(timeout) => self.receiver.recv_timeout(timeout),
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        debug_assert_ne!(woken, Err(RecvTimeoutError::Disconnected), "the sender lives in the same value");
        woken.is_ok()
    }

    /// Whether there was a wake-up since the last wait.
    pub(crate) fn take(&self) -> bool {
        self.receiver.try_recv().is_ok()
    }
}

impl Signals {
    /// Wakes the flush worker, unless it asks the policy by `time` without a wake-up.
    #[inline]
    pub(crate) fn ask_at(&self, time: Duration) {
        if !self.next_ask.asks_by(time) {
            self.flush.wake();
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Tells all workers to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.flush.wake();
        self.spares.wake();
        self.compact.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_ups_before_a_wait_count_as_one() {
        let (wake, no_time) = (Wake::default(), Some(Duration::ZERO));
        assert!(!wake.wait(no_time) && !wake.take());
        wake.wake();
        wake.wake();
        assert!(wake.wait(no_time));
        assert!(!wake.wait(no_time));
        wake.wake();
        assert!(wake.take() && !wake.take());
    }

    #[test]
    fn a_stop_wakes_every_worker() {
        let signals = Signals::default();
        assert!(!signals.stopping());
        signals.stop();
        assert!(signals.stopping());
        assert!(signals.flush.take() && signals.spares.take() && signals.compact.take());
    }
}
