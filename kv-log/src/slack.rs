//! Slack: the memory that holds no live record, and the ceiling that keeps it small.
//!
//! Dead records are slack, and the free part of segments that writers fill, spares, recycled images
//! and images that wait for readers. The ceiling is a share of the live data and a constant
//! ([`Options::slack_share`](crate::Options::slack_share)). A put that replaces a record makes no
//! slack: one record dies, and one comes to life. Slack comes with the memory of a new segment, so
//! the writer that needs one looks at the ceiling, and waits while a segment more would exceed it.
//!
//! A wait should be short. At any time, one segment is a spare, one is filled, one is flushed, and
//! one is compacted. All of them must fit below the ceiling, so a low ceiling means small segments.

use kv_core::SegmentId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::context::Context;
use crate::index::Index;
use crate::manifest::Catalog;
use crate::segments::{Segment, SegmentTable};
use crate::working::Working;

/// How many full segments fit below the ceiling. The active one and its spare take their memory
/// from it, and so leave less for dead records; but each segment costs syncs.
const SEGMENTS_BELOW_CEILING: u64 = 8;

/// This part of the ceiling is for copies that compaction makes, in memory and on disk.
const COPIES_PART: u64 = 8;

/// Above this part of the ceiling, segments are flushed once they are sealed.
const FLUSH_PART: u64 = 2;

/// A file holds at most this part of the live data, so that the survivors of one segment take
/// little room.
const FILES_OF_STORE: u64 = 16;

/// Measures the slack of a store, and fits the sizes of segments to it.
#[derive(Debug)]
pub(crate) struct Slack {
    context: Arc<Context>,
    index: Arc<Index>,
    segments: Arc<SegmentTable>,
    catalog: Arc<Catalog>,
    /// Whether sealed segments are to be flushed and compacted now, so that no writer has to wait.
    is_scarce: AtomicBool,
}

impl Slack {
    pub(crate) fn new(
        context: Arc<Context>,
        index: Arc<Index>,
        segments: Arc<SegmentTable>,
        catalog: Arc<Catalog>,
    ) -> Self {
        Slack { context, index, segments, catalog, is_scarce: AtomicBool::new(false) }
    }

    /// The ceiling, bytes.
    pub(crate) fn ceiling(&self) -> u64 {
        self.context.options.slack_ceiling(self.index.pair_bytes() as u64)
    }

    /// Memory that is no segment's, bytes: it waits for readers or for reuse.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.segments.retired_bytes() + self.context.tail.kept_bytes() + self.index.replaced_bytes()
    }

    /// Memory that holds no live record, bytes, without the copies that compactions make. Memory
    /// that a segment gets or loses meanwhile may count twice.
    pub(crate) fn bytes(&self) -> u64 {
        let dead =
            |segment: &Segment| (segment.resident_bytes() as u64).saturating_sub(segment.tally.live_bytes());
        // Before and after the segments: memory may become a segment's meanwhile, or cease to be.
        let elsewhere =
            || (self.context.counters.promised_bytes.load(Ordering::Relaxed), self.waiting_bytes());
        let before = elsewhere();
        let dead = self.catalog.sum(dead);
        let after = elsewhere();
        dead + before.0.max(after.0) + before.1.max(after.1)
    }

    /// Memory of the copies that compactions make, bytes. It is read before other memory: a copy
    /// may become a segment's meanwhile.
    fn copy_bytes(&self) -> u64 {
        self.context.counters.copy_bytes.load(Ordering::Relaxed)
    }

    /// Whether `more` bytes of slack fit below the ceiling. Notes whether it gets scarce.
    pub(crate) fn has_room_for(&self, more: usize) -> bool {
        let copies = self.copy_bytes();
        let (bytes, ceiling) = (self.bytes(), self.ceiling());
        self.is_scarce.store(bytes > ceiling / FLUSH_PART, Ordering::Relaxed);
        bytes + copies.max(ceiling / COPIES_PART) + more as u64 <= ceiling
    }

    /// Counts bytes that the caller is about to take, until the answer is dropped. So no other
    /// thread takes the same room.
    pub(crate) fn promise(&self, bytes: usize) -> Working<'_> {
        Working::of(&self.context.counters.promised_bytes, bytes)
    }

    /// As [`promise`](Self::promise), if a segment of `len` bytes [fits](Self::has_room_for).
    pub(crate) fn promise_segment(&self, len: usize) -> Option<Working<'_>> {
        // First, so that of two threads at least one sees the other's.
        let promise = self.promise(len);
        self.has_room_for(0).then_some(promise)
    }

    /// As [`promise`](Self::promise), if a copy of `len` bytes fits below the ceiling, beside the
    /// original.
    pub(crate) fn promise_copy(&self, len: usize) -> Option<Working<'_>> {
        let promise = self.promise(len);
        (self.copy_bytes() + self.bytes() <= self.ceiling()).then_some(promise)
    }

    /// Bytes of slack that fit below the ceiling.
    pub(crate) fn room(&self) -> u64 {
        self.ceiling().saturating_sub(self.copy_bytes() + self.bytes())
    }

    /// The most bytes of survivors that a compaction may copy at a time. Until readers have left
    /// the victims, both copies are in memory.
    pub(crate) fn copied_bytes_max(&self) -> u64 {
        self.ceiling() / COPIES_PART
    }

    /// The slack that is to come free, so that the next segments fit.
    pub(crate) fn excess(&self) -> u64 {
        self.bytes().saturating_sub(to_keep(self.ceiling()))
    }

    /// Whether all sealed segments with lower ids than `newest` are durable.
    pub(crate) fn are_durable_before(&self, newest: SegmentId) -> bool {
        self.catalog.are_durable_before(newest)
    }

    /// Whether the last look found that slack is to come free.
    #[inline]
    pub(crate) fn is_scarce(&self) -> bool {
        self.is_scarce.load(Ordering::Relaxed)
    }

    /// Notes that the sealed segments are about to be flushed.
    pub(crate) fn flush_begins(&self) {
        self.is_scarce.store(false, Ordering::Relaxed);
    }

    /// The size of a full segment now, bytes.
    pub(crate) fn segment_bytes(&self) -> usize {
        self.context.options.fitted_segment_bytes(self.ceiling() / SEGMENTS_BELOW_CEILING)
    }

    /// The size of a file that a compaction writes, bytes.
    pub(crate) fn output_bytes(&self) -> usize {
        let live = self.index.pair_bytes() as u64;
        let fitted = self.context.options.fitted_segment_bytes(live / FILES_OF_STORE);
        fitted.min(self.segment_bytes())
    }
}

/// The slack that may stay while there is room for more: three quarters of the ceiling. The less
/// slack there is, the more records compaction copies for each byte that comes free.
fn to_keep(ceiling: u64) -> u64 {
    ceiling / 4 * 3
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::reclaim::collect;
    use crate::store::Store;
    use crate::{Options, recovery::open};
    use kv_core::{Background, Env};
    use std::path::Path;
    use std::time::Duration;
    use std::{iter, thread};

    /// A store whose slack stays as it is: the memory that the open has exchanged is free.
    fn open_and_rest(dir: &Path) -> Store {
        let env = Env { background: Background::Inline, ..Env::os() };
        let store = open(dir, &env, Options::default()).expect("it opens");
        // Threads of other tests may be pinned, each for a moment.
        let is_free = (0..2000).any(|_| {
            collect();
            thread::sleep(Duration::from_millis(1));
            store.bytes_in_use_by_readers() == 0
        });
        assert!(is_free);
        store
    }

    #[test]
    fn promised_memory_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let store = open_and_rest(dir.path());
        let slack = &store.log.slack;
        let (before, len) = (slack.bytes(), slack.segment_bytes());
        let segments: Vec<Working<'_>> = iter::from_fn(|| slack.promise_segment(len)).collect();
        assert_eq!(slack.bytes(), before + (segments.len() * len) as u64);
        assert!(!segments.is_empty() && !slack.has_room_for(len), "{} segments", segments.len());
        assert!(slack.bytes() <= slack.ceiling() / COPIES_PART * (COPIES_PART - 1));
        let copies: Vec<Working<'_>> = iter::from_fn(|| slack.promise_copy(len)).collect();
        assert!(!copies.is_empty() && slack.room() < len as u64, "{} copies", copies.len());
        assert!(slack.bytes() <= slack.ceiling());
        drop((segments, copies));
        assert_eq!(slack.bytes(), before);
        store.close().unwrap();
    }

    #[test]
    fn copies_of_compactions_have_a_part_of_their_own_and_fit_below_the_ceiling() {
        let dir = tempfile::tempdir().unwrap();
        let store = open_and_rest(dir.path());
        let slack = &store.log.slack;
        let (ceiling, bytes) = (slack.ceiling(), slack.bytes());
        let part = ceiling / COPIES_PART;
        let len = |bytes: u64| usize::try_from(bytes).unwrap();
        let most = len(ceiling - part - bytes);
        // One compaction copies at most this much, and two may copy at a time.
        for (copied, room) in [(0, most), (part, most), (2 * part, most - len(part))] {
            let _copies = Working::of(&store.context.counters.copy_bytes, len(copied));
            assert_eq!((slack.bytes(), slack.room()), (bytes, ceiling - bytes - copied));
            assert!(slack.has_room_for(room) && !slack.has_room_for(room + 1), "{copied}");
            assert!(slack.promise_copy(len(slack.room())).is_some(), "{copied}");
            assert!(slack.promise_copy(len(slack.room()) + 1).is_none(), "{copied}");
        }
        store.close().unwrap();
    }
}
