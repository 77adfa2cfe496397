//! Wake-ups for the background workers, through which a lower part asks for work above it.

use kv_core::Lsn;
use kv_core::parts::{Pacing, Wake};

use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Signals {
    /// The flush worker, and the tasks that wait for a sync.
    pub(crate) pacing: Pacing,
    /// The worker that makes spares.
    pub(crate) spares: Wake,
    /// The worker that compacts.
    pub(crate) compact: Wake,
    /// The compaction worker sleeps until a flush reaches a higher LSN. [`NOT_ASLEEP`]: it works.
    asleep_since: AtomicU64,
}

/// No change has a higher LSN.
const NOT_ASLEEP: u64 = u64::MAX;

impl Default for Signals {
    fn default() -> Self {
        Signals {
            pacing: Pacing::default(),
            spares: Wake::default(),
            compact: Wake::default(),
            asleep_since: AtomicU64::new(NOT_ASLEEP),
        }
    }
}

impl Signals {
    /// The compaction worker is to sleep until a flush reaches a change above `last`. Afterwards
    /// the worker looks at the log once more: a flush before this call does not wake it.
    pub(crate) fn sleep_until_flush_above(&self, last: Lsn) {
        self.asleep_since.store(last.get(), Ordering::SeqCst);
    }

    /// Changes up to `last` were flushed.
    pub(crate) fn flushed(&self, last: Lsn) {
        if last.get() > self.asleep_since.load(Ordering::SeqCst) {
            self.asleep_since.store(NOT_ASLEEP, Ordering::SeqCst);
            self.compact.wake();
        }
    }

    /// Tells all workers to end.
    pub(crate) fn stop(&self) {
        self.pacing.stop();
        self.spares.wake();
        self.compact.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_wakes_every_worker() {
        let signals = Signals::default();
        assert!(!signals.pacing.is_stopping());
        signals.stop();
        assert!(signals.pacing.is_stopping());
        assert!(signals.spares.take() && signals.compact.take());
    }

    #[test]
    fn only_the_first_change_after_the_last_one_wakes_a_sleeping_compaction_worker() {
        let signals = Signals::default();
        signals.flushed(Lsn::new(7));
        assert!(!signals.compact.take(), "it is awake");
        signals.sleep_until_flush_above(Lsn::new(7));
        signals.flushed(Lsn::new(7));
        assert!(!signals.compact.take(), "it knows of this change");
        signals.flushed(Lsn::new(8));
        assert!(signals.compact.take());
        signals.flushed(Lsn::new(9));
        assert!(!signals.compact.take(), "it was woken");
    }
}
