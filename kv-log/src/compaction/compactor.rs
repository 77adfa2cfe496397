//! The compactor: it asks the policy for victims, and has them compacted until the extent is
//! reached.

use kv_core::{CompactionLevel, CompactionReport, Error, Occasion, Result, SegmentId};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

mod relief;
mod split;

use super::choice::{Candidates, Extent};
use super::claims::Claims;
use super::disk::{Compacted, DiskCompactor};
use super::memory::MemoryCompactor;
use super::survivors::Unreadable;
use crate::context::Context;
use crate::eviction::{Evictor, keep_fitting};
use crate::flush::Flusher;
use crate::index::Index;
use crate::log::Log;
use crate::manifest::{Catalog, Need};
use crate::refusal::is_full;
use crate::segments::{Segment, SegmentTable};

/// A close begins no other compaction after this time. A store whose compaction has fallen behind
/// would be closed for minutes; the next opening goes on.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// How often images are compacted for slack before the policy is asked.
const MEMORY_ROUNDS_MAX: u32 = 4;

/// Compacts segments in memory and on disk. One thread at a time compacts on disk, under `running`.
/// Threads compact in memory one after the other, under the lock of the claims.
#[derive(Debug)]
pub(crate) struct Compactor {
    context: Arc<Context>,
    catalog: Arc<Catalog>,
    segments: Arc<SegmentTable>,
    evictor: Arc<Evictor>,
    log: Arc<Log>,
    flusher: Arc<Flusher>,
    memory: MemoryCompactor,
    disk: DiskCompactor,
    claims: Arc<Claims>,
    /// One compaction that the policy has asked for, split, checkpoint, or comparison of the
    /// warm-up at a time. In the order of locks, only `Life` comes before it.
    running: Mutex<()>,
}

impl Compactor {
    pub(crate) fn new(
        context: Arc<Context>,
        index: &Arc<Index>,
        segments: Arc<SegmentTable>,
        catalog: Arc<Catalog>,
        evictor: Arc<Evictor>,
        log: Arc<Log>,
        flusher: Arc<Flusher>,
    ) -> Self {
        let claims = Arc::<Claims>::default();
        let memory = MemoryCompactor::new(&context, index, &segments, &catalog, &claims);
        let disk = DiskCompactor::new(&context, index, &segments, &catalog, &log, &flusher, &claims);
        Compactor {
            context,
            catalog,
            segments,
            evictor,
            log,
            flusher,
            memory,
            disk,
            claims,
            running: Mutex::default(),
        }
    }

    /// Compacts as far as the extent says, or until a compaction frees nothing. Unreadable victims
    /// stay as they are, and the others are compacted.
    ///
    /// # Errors
    /// The error of an unreadable victim. There is no room for the outputs. All other errors poison
    /// the store.
    pub(crate) fn compact(&self, extent: Extent) -> Result<CompactionReport> {
        let alone = self.exclude();
        if !matches!(extent, Extent::FullDisk(_)) {
            return self.compact_alone(extent, &alone);
        }
        // The window goes first, if its policy says so. Victims are then not archived, unless a
        // point needs them.
        let last = self.log.end.last_lsn();
        self.catalog.set_disk_full(true);
        let report = match self.catalog.give_up_past(last) {
            // The files of all victims would stay.
            Ok(0) if !self.catalog.lets_victims_go(last) => Ok(CompactionReport::default()),
            Ok(0) => self.compact_alone(extent, &alone),
            given_up => given_up.map(|freed_bytes| CompactionReport { freed_bytes, ..Default::default() }),
        };
        self.catalog.set_disk_full(false);
        report
    }

    /// Takes the compaction lock. Until the answer is dropped, only a writer that needs memory
    /// compacts, in memory.
    pub(crate) fn exclude(&self) -> MutexGuard<'_, ()> {
        self.running.lock()
    }

    /// As [`exclude`](Self::exclude), of compaction in memory and eviction: no record moves. The
    /// caller holds the lock of `exclude`.
    pub(crate) fn hold_still(&self, _running: &MutexGuard<'_, ()>) -> impl Sized + use<'_> {
        self.claims.lock()
    }

    /// Compacts all durable segments in memory. Returns the bytes that came free, or `None` if
    /// another thread keeps records from moving.
    #[cfg(test)]
    pub(crate) fn try_shrink_all(&self) -> Option<u64> {
        let alone = self.claims.try_lock_for(Duration::ZERO)?;
        let durable = self.catalog.segments().into_iter().filter(|segment| segment.is_durable());
        Some(durable.filter_map(|segment| self.memory.shrink(&segment, &alone)).sum())
    }

    /// Gives back the space of the newest checkpoint, after one that is being written. Returns its
    /// bytes.
    pub(crate) fn give_back_checkpoint(&self) -> u64 {
        let _alone = self.exclude();
        self.catalog.drop_checkpoint()
    }

    /// As [`Compact::compact`](kv_core::Compact::compact): with the active segment, and leftovers.
    pub(crate) fn compact_all(&self) -> Result<CompactionReport> {
        // Taken before the seal: otherwise the background worker might compact the sealed segment,
        // and the report would not count it. The lock also keeps the directory this store's until
        // the leftovers are gone.
        let alone = self.exclude();
        self.log.seal_if_possible()?;
        self.flusher.make_all_durable()?;
        let mut report = self.compact_alone(Extent::All, &alone)?;
        self.context.health.check_writable()?;
        self.catalog.expire_past(self.log.end.last_lsn())?;
        self.catalog.remove_leftovers();
        report.leftover_files = self.catalog.leftovers().0;
        self.segments.clear_pool();
        Ok(report)
    }

    /// Compacts as part of another call: an open, a close, or a change in inline mode. Only a
    /// failure that poisons is an error.
    pub(crate) fn compact_in_passing(&self, extent: Extent) -> Result<()> {
        match self.compact(extent) {
            Err(error) if self.context.health.is_poisoned() => Err(error),
            _ => Ok(()),
        }
    }

    fn count_unreadable(&self) {
        self.context.counters.compaction_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// After a compaction on disk failed with `error`: stores a manifest, and returns the refusal.
    ///
    /// # Errors
    /// `error` poisons the store, or the manifest cannot be stored.
    fn after_failure(&self, error: Error) -> Result<Error> {
        let error = self.context.poison_unless_refused(error);
        if self.context.health.is_poisoned() {
            return Err(error);
        }
        let stored = self.catalog.store_if_leftovers_wait(self.log.end.last_lsn());
        stored.map_err(|error| self.context.poison_unless_refused(error))?;
        Ok(error)
    }

    fn compact_alone(&self, asked: Extent, _running: &MutexGuard<'_, ()>) -> Result<CompactionReport> {
        let _poison = self.context.health.poison_on_panic(self.context.path());
        let (mut total, mut unreadable, mut failure) = (CompactionReport::default(), Vec::new(), None);
        // Becomes that of a full disk, or of no free slot, if there is no room for the outputs.
        let mut extent = asked;
        let clock = &self.context.env.clock;
        let began = clock.monotonic();
        loop {
            // Frees the images of earlier victims.
            self.segments.release_limbo();
            // Needs no disk, so it comes first: writers may wait for it.
            // Writers may make more meanwhile, so there is an end.
            let mut rounds = if extent == Extent::Busy { MEMORY_ROUNDS_MAX } else { 0 };
            while rounds > 0 && self.free_some_memory(&self.claims.lock()) > 0 {
                rounds -= 1;
            }
            {
                let _alone = self.claims.lock();
                self.evictor.evict_to_limit();
            }
            // Without this end, fast writers would delay a close forever, and writers would wait
            // for memory while an idle store is made small.
            let is_stopping = self.context.signals.pacing.is_stopping();
            let is_over = match asked {
                Extent::All | Extent::Busy => is_stopping,
                Extent::Idle(last) => is_stopping || self.log.end.last_lsn() != last,
                Extent::DiskUpTo(_) => clock.monotonic().saturating_sub(began) >= CLOSE_MAX,
                _ => false,
            };
            if is_over {
                break;
            }
            let Some((level, victims)) = self.choose_victims(extent, &unreadable) else { break };
            self.context.health.check_writable()?;
            if level == CompactionLevel::Memory {
                if self.memory.compact(&victims) == 0 || extent == Extent::OnePlan {
                    break;
                }
                continue;
            }
            match self.disk.compact(&victims) {
                Ok(Ok(Compacted { report, is_smaller })) => {
                    total.victims += report.victims;
                    total.outputs += report.outputs;
                    total.copied_bytes += report.copied_bytes;
                    total.freed_bytes += report.freed_bytes;
                    self.catalog.hold_reserve();
                    if !is_smaller && report.outputs >= report.victims {
                        // The policy would name the same victims forever.
                        break;
                    }
                    if report.freed_bytes == 0 && matches!(extent, Extent::FullDisk(_)) {
                        // Another victim would take more of the reserve, and free as little.
                        break;
                    }
                    if extent == Extent::OnePlan || self.is_relieved(extent, &total) {
                        break;
                    }
                }
                Ok(Err(error)) => {
                    let error = self.after_failure(error)?;
                    if !is_full(&error) || extent.is_pressed() {
                        return Err(error);
                    }
                    // There is no room for the survivors of several victims at a time.
                    extent = Extent::after_refusal(&error, Need::Compaction);
                }
                Err(Unreadable { victim, error }) => {
                    self.count_unreadable();
                    unreadable.push(victim);
                    failure = failure.or(Some(error));
                }
            }
        }
        failure.map_or(Ok(total), Err)
    }

    /// Whether a compaction under pressure has freed enough for its change.
    fn is_relieved(&self, extent: Extent, total: &CompactionReport) -> bool {
        match extent {
            Extent::FullDisk(Need::Relief | Need::LastRelief) => {
                total.freed_bytes >= self.catalog.tombstone_segment_bytes()
            }
            Extent::NoSlot => total.outputs < total.victims,
            _ => false,
        }
    }

    /// The victims that the policy names, in the order of their ids. They are as many as memory has
    /// room for.
    fn choose_victims(
        &self,
        extent: Extent,
        except: &[SegmentId],
    ) -> Option<(CompactionLevel, Vec<Arc<Segment>>)> {
        let options = &self.context.options;
        let segments = self.catalog.segments();
        let mut candidates = Candidates::new(&segments, self.context.env.clock.monotonic());
        if matches!(extent, Extent::FullDisk(_)) {
            // A backup or a reader would hold the space of the victim, and the outputs take more.
            candidates.retain(|id| self.catalog.holds_space_alone(id));
        }
        let output_bytes = self.log.slack.output_bytes();
        let segment_bytes = match extent.occasion() {
            Occasion::Busy => self.log.slack.segment_bytes(),
            Occasion::OpenOrClose | Occasion::Idle => output_bytes,
        };
        let (level, ids) = candidates.choose(
            &*options.compaction,
            extent,
            except,
            segment_bytes as u64,
            output_bytes as u64,
            options.memory_budget,
        )?;
        // The catalog sorts them. There may be many: a search from the front would take long.
        let named = |id: &SegmentId| {
            let at = segments.binary_search_by_key(id, |segment| segment.id).ok()?;
            segments.get(at)
        };
        let mut victims: Vec<Arc<Segment>> = ids.iter().filter_map(named).cloned().collect();
        self.evictor.keep_loadable(&mut victims);
        match level {
            CompactionLevel::Memory => self.keep_copies_below_ceiling(&mut victims),
            CompactionLevel::Disk => self.keep_copies_few(&mut victims),
        }
        victims.sort_unstable_by_key(|victim| victim.id);
        Some((level, victims))
    }

    /// Keeps the first victims, in the given order, whose survivors are few enough to be copied
    /// below the ceiling.
    fn keep_copies_few(&self, victims: &mut Vec<Arc<Segment>>) {
        keep_fitting(victims, self.log.slack.copied_bytes_max(), |victim| victim.tally.live_bytes());
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::{Options, recovery::open};
    use kv_core::{Background, Env, Manual};
    use kv_tests::sim::{Gate, OpKind, SimFs};
    use std::path::Path;
    use std::thread;

    #[test]
    fn compaction_in_memory_leaves_claimed_and_replaced_segments_alone() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { background: Background::Inline, ..Env::os() };
        let options = Options { persistence: Arc::new(Manual), ..Options::default() };
        let store = open(dir.path(), &env, options).unwrap();
        for key in (0..100_u8).chain(0..50) {
            store.committer.put(&[key], &[key; 100]).unwrap();
        }
        store.log.seal_active().unwrap();
        store.flusher.flush_sealed().unwrap();
        let compactor = &store.compactor;
        let victim = store.catalog.segments().into_iter().find(|segment| segment.is_durable()).unwrap();
        let shrink = || compactor.memory.shrink(&victim, &compactor.claims.lock());
        let mut claim = compactor.claims.begin();
        claim.add(&mut compactor.claims.lock(), victim.id);
        assert_eq!(shrink(), None);
        drop(claim);
        assert!(shrink().is_some_and(|freed| freed > 5000));
        assert_eq!(shrink(), None);
        assert!(store.reader.read(&[7], &mut |value| assert_eq!(value, [7; 100])).unwrap());
        store.close().unwrap();
    }

    #[test]
    fn victims_count_until_they_are_retired() {
        let (gate, fs) = Gate::before(SimFs::new());
        let env = Env { fs, background: Background::Inline, ..Env::os() };
        let options = Options { persistence: Arc::new(Manual), ..Options::default() };
        let store = open(Path::new("/store"), &env, options).unwrap();
        for key in (0..100_u8).chain(0..50) {
            store.committer.put(&[key], &[key; 100]).unwrap();
        }
        store.log.seal_active().unwrap();
        store.flusher.flush_sealed().unwrap();
        let victim = store.catalog.segments().into_iter().find(|segment| segment.is_durable()).unwrap();
        let wait = Duration::from_secs(10);
        gate.shut(|kind| kind == OpKind::Rename);
        thread::scope(|scope| {
            let gate = gate; // A panic here opens it, which ends the other thread.
            let compaction = scope.spawn(|| store.compactor.compact(Extent::All));
            assert_eq!(gate.stop(wait).unwrap().name, "MANIFEST");
            let memory = || {
                let in_segments = store.catalog.sum(|segment| segment.resident_bytes() as u64);
                store.context.counters.memory_under_way() + in_segments
            };
            let before = memory();
            // The compactor needs the lock before it points the index at the copies.
            let alone = store.compactor.claims.lock();
            gate.open();
            while store.catalog.current(victim.id).is_some() {
                assert!(!compaction.is_finished());
                thread::yield_now();
            }
            assert!(memory() >= before && before > 0, "{} of {before} bytes", memory());
            assert!(store.log.slack.bytes() >= victim.resident_bytes() as u64);
            drop(alone);
            assert!(compaction.join().unwrap().unwrap().freed_bytes > 0);
        });
        let counters = &store.context.counters;
        let gauges = [&counters.working_bytes, &counters.promised_bytes, &counters.copy_bytes];
        assert_eq!(gauges.map(|gauge| gauge.load(Ordering::Relaxed)), [0; 3]);
        store.close().unwrap();
    }
}
