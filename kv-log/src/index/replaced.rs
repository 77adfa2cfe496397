use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::reclaim::defer;

/// The tables that larger ones have replaced, until no reader looks at them.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    bytes: Arc<AtomicU64>,
}

impl Replaced {
    /// Calls `free`, which frees a table of so many bytes, once every reader that is pinned now has
    /// unpinned.
    pub(super) fn free_later(&self, bytes: usize, free: impl FnOnce() + Send + 'static) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let waiting = Arc::clone(&self.bytes);
        defer(move || {
            free();
            waiting.fetch_sub(bytes as u64, Ordering::Relaxed);
        });
    }

    /// Bytes of the tables that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
