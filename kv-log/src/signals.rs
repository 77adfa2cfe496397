//! Wake-ups for the background workers, through which a lower part asks for work above it.

use kv_core::parts::{Pacing, Wake};

#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// The flush worker, and the tasks that wait for a sync.
    pub(crate) pacing: Pacing,
    /// The worker that makes spares.
    pub(crate) spares: Wake,
    /// The worker that compacts.
    pub(crate) compact: Wake,
}

impl Signals {
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
}
