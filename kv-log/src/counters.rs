use kv_core::Stats;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters for [`Stats`] only. `LogEnd` holds the figures that every change updates, `Progress`
/// those of dumps.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dumps: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    stalls: AtomicU64,
    stall_ns: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) compacted_bytes: AtomicU64,
    pub(crate) compaction_failures: AtomicU64,
    pub(crate) memory_compactions: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) slack_excesses: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    /// Memory in which a compaction or the warm-up looks at records.
    pub(crate) working_bytes: AtomicU64,
    /// Memory that a thread is about to take for the log, or has taken and not installed; and
    /// images that a compaction has replaced and not retired.
    pub(crate) promised_bytes: AtomicU64,
    /// Memory of the copies that compactions make.
    pub(crate) copy_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn stalled(&self, duration: Duration) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.stall_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Memory of work that is under way, bytes.
    pub(crate) fn memory_under_way(&self) -> u64 {
        let gauges = [&self.working_bytes, &self.promised_bytes, &self.copy_bytes];
        gauges.map(|gauge| gauge.load(Ordering::Relaxed)).into_iter().sum()
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.dumps = read(&self.dumps);
        stats.syncs = read(&self.syncs);
        stats.bytes_written = read(&self.bytes_written);
        stats.stalls = read(&self.stalls);
        stats.stall_time = Duration::from_nanos(read(&self.stall_ns));
        stats.compactions = read(&self.compactions);
        stats.compacted_bytes = read(&self.compacted_bytes);
        stats.compaction_failures = read(&self.compaction_failures);
        stats.memory_compactions = read(&self.memory_compactions);
        stats.evictions = read(&self.evictions);
        stats.slack_excesses = read(&self.slack_excesses);
        stats.checkpoints = read(&self.checkpoints);
    }
}
