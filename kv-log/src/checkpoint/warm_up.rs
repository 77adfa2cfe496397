//! The warm-up: after an open from a checkpoint, one thread brings the cold segments into memory,
//! one after the other, as far as the memory budget allows. Readers read their records from the
//! files until then.
//!
//! The newest segments come first. A segment that is damaged, or cannot be read, stays cold:
//! readers of its records get the error.

use kv_core::Result;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::verify::verify;
use crate::compaction::Compactor;
use crate::context::Context;
use crate::index::Index;
use crate::manifest::Catalog;
use crate::reclaim::{collect, pin};
use crate::segments::{Location, Segment, SegmentTable};

/// Brings segments into memory.
#[derive(Debug)]
pub(crate) struct WarmUp {
    context: Arc<Context>,
    index: Arc<Index>,
    segments: Arc<SegmentTable>,
    catalog: Arc<Catalog>,
    /// The segments that are still cold, the newest at the end. None once the work is done.
    cold: Mutex<Vec<Arc<Segment>>>,
    /// Bytes of their files.
    bytes_left: AtomicU64,
}

impl WarmUp {
    /// `cold` segments come from a checkpoint, in the order of their ids.
    pub(crate) fn new(
        context: Arc<Context>,
        index: Arc<Index>,
        segments: Arc<SegmentTable>,
        catalog: Arc<Catalog>,
        cold: Vec<Arc<Segment>>,
    ) -> Self {
        let bytes_left = cold.iter().map(|segment| segment.file_len() as u64).sum::<u64>().into();
        WarmUp { context, index, segments, catalog, cold: Mutex::new(cold), bytes_left }
    }

    /// Bytes that are still to be read.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.bytes_left.load(Ordering::Relaxed)
    }

    /// Warms all segments, or as many as the budget allows, unless the store closes before.
    pub(crate) fn run(&self, compactor: &Compactor) {
        while !self.context.signals.pacing.is_stopping() && self.warm_one(compactor) {}
    }

    /// Warms the next segment. Returns whether more are left.
    pub(crate) fn warm_one(&self, compactor: &Compactor) -> bool {
        let Some(segment) = self.cold.lock().pop() else { return false };
        if self.has_room_for(segment.file_len() as u64) {
            // A damaged segment stays cold. The readers of its records get the error.
            let _warm = self.warm(&segment, compactor);
            self.bytes_left.fetch_sub(segment.file_len() as u64, Ordering::Relaxed);
        } else {
            self.cold.lock().clear();
            self.bytes_left.store(0, Ordering::Relaxed);
        }
        let is_over = self.cold.lock().is_empty();
        if is_over {
            self.finish();
        }
        collect();
        !is_over
    }

    fn warm(&self, segment: &Arc<Segment>, compactor: &Compactor) -> Result<()> {
        let contents = segment.contents()?;
        // A compaction verifies its victims, and replaces them.
        let alone = compactor.exclude();
        if self.catalog.is_current(segment) {
            verify(segment, &contents, &self.index, &self.segments)?;
            segment.warm(contents.into_image());
        }
        drop(alone);
        Ok(())
    }

    /// Whether the budget has room for an image of `len` bytes.
    fn has_room_for(&self, len: u64) -> bool {
        let images = || self.catalog.sum(|segment| segment.memory_bytes() as u64);
        let used = || images() + self.index.allocated_bytes() as u64;
        self.context.options.resident_bytes_max().is_none_or(|limit| used() + len <= limit)
    }

    /// Replaces the estimate of the pairs' bytes, if everything is in memory.
    fn finish(&self) {
        let _settled = self.index.settle_at(|_| true, &self.segments);
        if self.index.is_estimated() {
            let guard = pin();
            let pair_bytes = |location: Location| {
                let segment = self.segments.get(location, &guard);
                let (record, _) = segment.resident(location.offset(), &guard)?;
                Some(record.key.len() + record.value.len())
            };
            let is_exact = (0..self.index.shard_count()).all(|shard| self.index.recount(shard, pair_bytes));
            self.index.set_estimated(!is_exact);
        }
        // Compaction waited for this.
        self.context.signals.compact.wake();
    }
}
