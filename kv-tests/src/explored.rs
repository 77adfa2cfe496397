use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of the explored histories, crashes and faults: a suite that explores nothing proves
/// nothing.
#[derive(Debug, Default)]
pub struct Explored {
    histories: AtomicU64,
    crash_states: AtomicU64,
    faults: AtomicU64,
    damages: AtomicU64,
}

impl Explored {
    pub(crate) fn history(&self) {
        self.histories.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn crash_state(&self) {
        self.crash_states.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn damage(&self) {
        self.damages.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_faults(&self, count: u64) {
        self.faults.fetch_add(count, Ordering::Relaxed);
    }

    /// Operation sequences run against an engine.
    pub fn histories(&self) -> u64 {
        self.histories.load(Ordering::Relaxed)
    }

    /// Disks that an engine recovered after a crash.
    pub fn crash_states(&self) -> u64 {
        self.crash_states.load(Ordering::Relaxed)
    }

    /// Operations that an injected fault struck.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Closed stores that were damaged and opened.
    pub fn damages(&self) -> u64 {
        self.damages.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, other: &Explored) {
        self.histories.fetch_add(other.histories(), Ordering::Relaxed);
        self.crash_states.fetch_add(other.crash_states(), Ordering::Relaxed);
        self.faults.fetch_add(other.faults(), Ordering::Relaxed);
        self.damages.fetch_add(other.damages(), Ordering::Relaxed);
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explored { .. } = self;
        write!(
            f,
            "explored {} histories, {} crash states, {} injected faults, {} damaged stores",
            self.histories(),
            self.crash_states(),
            self.faults(),
            self.damages()
        )
    }
}
