use std::sync::atomic::{AtomicU64, Ordering};

/// Memory for work that is under way, which no segment in the catalog has. A gauge of the
/// [counters](crate::counters::Counters) counts it until this is dropped.
#[derive(Debug)]
pub(crate) struct Working<'a> {
    gauge: &'a AtomicU64,
    bytes: u64,
}

impl<'a> Working<'a> {
    pub(crate) fn begin(gauge: &'a AtomicU64) -> Self {
        Working { gauge, bytes: 0 }
    }

    /// The given bytes from now on.
    pub(crate) fn of(gauge: &'a AtomicU64, bytes: usize) -> Self {
        let mut working = Self::begin(gauge);
        working.take(bytes);
        working
    }

    pub(crate) fn take(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.gauge.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.gauge.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
