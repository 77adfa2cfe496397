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
