//! The warm-up: after an open from a checkpoint, the cold segments are brought into memory, as far
//! as the memory budget allows. Readers read their records from the files until then.
//!
//! Two threads share the work, so that one reads a file while the other checks a segment. The
//! newest segments come first. A segment that is damaged, or cannot be read, stays cold: readers of
//! its records get the error. So does one for which memory is short.

use kv_core::Result;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::compaction::Compactor;
use crate::context::Context;
use crate::index::Index;
use crate::manifest::Catalog;
use crate::processors::on_all_processors;
use crate::reclaim::{collect, pin};
use crate::segments::{Location, Segment, SegmentTable};
use crate::verification::Checked;
use crate::working::Working;

/// Brings segments into memory.
#[derive(Debug)]
pub(crate) struct WarmUp {
    context: Arc<Context>,
    index: Arc<Index>,
    segments: Arc<SegmentTable>,
    catalog: Arc<Catalog>,
    work: Mutex<Work>,
    /// Bytes of the files that no thread has finished with.
    bytes_left: AtomicU64,
}

/// The work of a warm-up.
#[derive(Debug)]
struct Work {
    /// The segments that no thread has taken, the newest at the end.
    cold: Vec<Arc<Segment>>,
    /// Number and bytes of the segments that a thread is about to bring into memory.
    taken: usize,
    taken_bytes: u64,
}

/// One thread can read while the other checks.
const THREADS: usize = 2;

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
        let work = Mutex::new(Work { cold, taken: 0, taken_bytes: 0 });
        WarmUp { context, index, segments, catalog, work, bytes_left }
    }

    /// Bytes that are still to be read.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.bytes_left.load(Ordering::Relaxed)
    }

    /// Warms all segments, or as many as the budget allows, unless the store closes before.
    pub(crate) fn run(&self, compactor: &Compactor) {
        let run_one = || while !self.context.signals.pacing.is_stopping() && self.warm_one(compactor) {};
        on_all_processors(self.context.env.background, THREADS, run_one);
    }

    /// Warms the next segment. Returns whether more are left.
    pub(crate) fn warm_one(&self, compactor: &Compactor) -> bool {
        let Some(segment) = self.take() else { return false };
        // A damaged segment stays cold. The readers of its records get the error.
        let _warm = self.warm(&segment, compactor);
        let len = segment.file_len() as u64;
        let (is_over, are_left) = {
            let mut work = self.work.lock();
            (work.taken, work.taken_bytes) = (work.taken - 1, work.taken_bytes - len);
            (work.taken == 0 && work.cold.is_empty(), !work.cold.is_empty())
        };
        self.bytes_left.fetch_sub(len, Ordering::Relaxed);
        if is_over {
            self.finish();
        }
        collect();
        are_left
    }

    /// Takes the next segment, if the budget has room for it. If it has none, and no other thread
    /// warms a segment, all others stay cold.
    fn take(&self) -> Option<Arc<Segment>> {
        let mut work = self.work.lock();
        let segment = work.cold.pop()?;
        let len = segment.file_len() as u64;
        if self.has_room_for(work.taken_bytes + len) {
            (work.taken, work.taken_bytes) = (work.taken + 1, work.taken_bytes + len);
            return Some(segment);
        }
        work.cold.push(segment);
        // A segment that has just become warm counts twice until its thread is done with it.
        if work.taken == 0 {
            let left = work.cold.drain(..).map(|segment| segment.file_len() as u64).sum::<u64>();
            drop(work);
            self.bytes_left.fetch_sub(left, Ordering::Relaxed);
            self.finish();
        }
        None
    }

    fn warm(&self, segment: &Arc<Segment>, compactor: &Compactor) -> Result<()> {
        if !self.catalog.is_current(segment) {
            return Ok(());
        }
        let mut working = Working::begin(&self.context.counters.working_bytes);
        let contents = segment.contents()?;
        working.take(contents.memory_bytes());
        let checked = Checked::new(segment, &contents, &self.index)?;
        working.take(checked.memory_bytes());
        // A compaction verifies its victims, and replaces them.
        let alone = compactor.exclude();
        if self.catalog.is_current(segment) {
            checked.compare(segment, &self.index, &self.segments)?;
            let image = contents.into_image();
            segment.warm(image);
            drop(working);
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
            let is_exact = (0..self.index.shard_count()).all(|shard| {
                let guard = pin();
                self.index.recount(shard, |location: Location| {
                    let segment = self.segments.get(location, &guard);
                    let (record, _) = segment.resident(location.offset(), &guard)?;
                    Some(record.key.len() + record.value.len())
                })
            });
            self.index.set_estimated(!is_exact);
        }
        // Compaction waited for this.
        self.context.signals.compact.wake();
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use crate::commit::commit_batch;
    use crate::index::RecordAt;
    use crate::options::Options;
    use crate::reclaim::pin;
    use crate::recovery::open;
    use fastrand::Rng;
    use kv_core::{Background, Batch, Env, Manual, Never, OnRequest};
    use kv_wal_format::encoded_len;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::{Arc, Barrier};
    use std::thread;
    use std::time::Duration;

    /// Each record that dies is counted once, by the walk of the verification or by its writer.
    #[test]
    fn writers_replace_and_delete_records_while_their_segments_become_warm() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { background: Background::Inline, ..Env::os() };
        let options = Options {
            segment_bytes: 256 << 10,
            index_shards: 64,
            persistence: Arc::new(Manual),
            compaction: Arc::new(Never),
            checkpoint: Arc::new(OnRequest),
            ..Options::default()
        };
        let keys: Vec<[u8; 4]> = (0..20_000_u32).map(u32::to_le_bytes).collect();
        let store = open(dir.path(), &env, options.clone()).unwrap();
        for key in &keys {
            store.committer.put(key, &[7; 50]).unwrap();
        }
        store.checkpointer.checkpoint(&store.compactor).unwrap();
        store.close().unwrap();
        drop(store);

        for seed in 0..10 {
            let store = open(dir.path(), &env, options.clone()).unwrap();
            assert!(store.warm_up.bytes_left() > 1 << 20);
            let begin = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut rng = Rng::with_seed(seed);
                    for put in 0.. {
                        let (one, other) = (&keys[rng.usize(..keys.len())], &keys[rng.usize(..keys.len())]);
                        match rng.u8(..8) {
                            0 => drop(store.committer.delete(one).unwrap()),
                            1 => {
                                let mut batch = Batch::new();
                                batch.put(one, &[9; 40]).delete(other);
                                commit_batch(&store.committer, &batch).unwrap();
                            }
                            _ => drop(store.committer.put(one, &[8; 50]).unwrap()),
                        }
                        if put == 100 {
                            begin.wait();
                        } else if put > 200 && store.warm_up.bytes_left() == 0 {
                            break;
                        }
                    }
                });
                begin.wait();
                while store.warm_up.warm_one(&store.compactor) {}
            });
            assert_eq!(store.catalog.sum(|segment| u64::from(segment.is_unverified())), 0, "seed {seed}");
            store.log.end.lock().settle();
            let guard = pin();
            let (mut locations, mut expected) = (Vec::new(), (0, 0));
            for shard in 0..store.warm_up.index.shard_count() {
                store.warm_up.index.locations(shard, &mut locations);
                for location in &locations {
                    let (segment, offset) = (store.segments.get(*location, &guard), location.offset());
                    let (record, _) = segment.resident(offset, &guard).expect("everything is warm");
                    let len = encoded_len(segment.base_lsn, record.lsn, record.key.len(), record.value.len());
                    expected = (expected.0 + 1, expected.1 + len as u64);
                }
            }
            let live = store.catalog.sum(|segment| segment.tally.live_bytes());
            assert_eq!((store.warm_up.index.len(), live), expected, "seed {seed}");
        }
        open(dir.path(), &env, options).unwrap().close().unwrap();
    }

    /// While a compaction makes the warm-up wait, its memory belongs to no segment.
    #[test]
    fn the_statistics_count_what_the_warm_up_holds() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { background: Background::Inline, ..Env::os() };
        let options = Options {
            persistence: Arc::new(Manual),
            compaction: Arc::new(Never),
            checkpoint: Arc::new(OnRequest),
            ..Options::default()
        };
        let store = open(dir.path(), &env, options.clone()).unwrap();
        for number in 0..1000_u32 {
            store.committer.put(&number.to_le_bytes(), &[7; 20]).unwrap();
        }
        store.checkpointer.checkpoint(&store.compactor).unwrap();
        store.close().unwrap();
        drop(store);

        let store = open(dir.path(), &env, options).unwrap();
        let (left, before) = (store.warm_up.bytes_left(), store.stats().memory_bytes);
        let (pairs, puts) = (1000 * 24, 1000 * size_of::<RecordAt>() as u64);
        assert!(left > pairs, "{left}");
        thread::scope(|scope| {
            let alone = store.compactor.exclude();
            scope.spawn(|| while store.warm_up.warm_one(&store.compactor) {});
            let is_counted = (0..10_000).any(|_| {
                thread::sleep(Duration::from_millis(1));
                store.stats().memory_bytes >= before + pairs + puts
            });
            drop(alone);
            assert!(is_counted, "{before}, {left}, {puts}: {}", store.stats().memory_bytes);
        });
        assert_eq!((store.warm_up.bytes_left(), store.context.counters.working_bytes.load(Relaxed)), (0, 0));
        let after = store.stats().memory_bytes;
        assert!((before + pairs..before + pairs + puts).contains(&after), "{before}, {left}, {after}");
        store.close().unwrap();
    }

    /// The segments that other threads are about to bring into memory take room, too.
    #[test]
    fn the_budget_has_room_for_all_that_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { background: Background::Inline, ..Env::os() };
        let options = Options {
            segment_bytes: 4096,
            unflushed_bytes_max: 8192,
            index_shards: 1,
            persistence: Arc::new(Manual),
            compaction: Arc::new(Never),
            checkpoint: Arc::new(OnRequest),
            ..Options::default()
        };
        let store = open(dir.path(), &env, options.clone()).unwrap();
        for number in 0..600_u32 {
            store.committer.put(&number.to_le_bytes(), &[7; 100]).unwrap();
        }
        store.checkpointer.checkpoint(&store.compactor).unwrap();
        store.close().unwrap();
        drop(store);

        let mut taken = Vec::new();
        for budget in (30_000..120_000).step_by(500) {
            let options = Options { memory_budget: Some(budget), ..options.clone() };
            let store = open(dir.path(), &env, options).unwrap();
            let warm_up = &store.warm_up;
            let segments: Vec<_> = std::iter::from_fn(|| warm_up.take()).collect();
            let bytes: u64 = segments.iter().map(|segment| segment.file_len() as u64).sum();
            assert!(segments.is_empty() || warm_up.has_room_for(bytes), "{budget}: {bytes}");
            assert!(!segments.is_empty() || warm_up.bytes_left() == 0, "no thread goes on");
            taken.push(segments.len());
        }
        open(dir.path(), &env, options).unwrap().close().unwrap();
        assert!(taken.contains(&1) && taken.contains(&2) && taken.last() > Some(&10), "{taken:?}");
    }
}
