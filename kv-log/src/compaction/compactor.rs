//! The compactor: it asks the policy for victims, and has them compacted until the extent is
//! reached.

use kv_core::{CompactionLevel, CompactionReport, Error, Lsn, Occasion, Result, SegmentId};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::choice::{Candidates, Extent};
use super::claims::{Alone, Claims};
use super::disk::{Compacted, DiskCompactor};
use super::memory::MemoryCompactor;
use super::survivors::Unreadable;
use crate::context::Context;
use crate::eviction::{Evictor, keep_fitting};
use crate::flush::Flusher;
use crate::index::Index;
use crate::log::Log;
use crate::manifest::{Catalog, Need};
use crate::reclaim::collect;
use crate::refusal::is_full;
use crate::segments::{Segment, SegmentTable};

/// A writer waits for slack to come free in steps. After each it looks again.
const STEP: Duration = Duration::from_millis(1);
const STEPS_MAX: u32 = 20;

/// A close begins no other compaction after this time. A store whose compaction has fallen behind
/// would be closed for minutes; the next opening goes on.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A file is split only if its records are on average shorter than this part of an output.
const LARGE_PART: usize = 8;

/// How often images are compacted for slack before the policy is asked.
const MEMORY_ROUNDS_MAX: u32 = 4;

/// The most bytes of files that are split.
const SPLIT_BYTES_MAX: usize = 64 << 20;

/// The unit in which shares of survivors are compared.
const PARTS: u64 = 1024;

/// Images are compacted for slack if that frees at least this part of a segment.
const WORTHWHILE_PART: usize = 16;

/// Compacts segments in memory and on disk. One thread at a time.
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
    /// Held while a compaction runs that the policy has asked for. The first lock in the order of
    /// locks.
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

    /// Waits until no compaction runs. Until the answer is dropped, none begins.
    pub(crate) fn exclude(&self) -> MutexGuard<'_, ()> {
        self.running.lock()
    }

    /// As [`exclude`](Self::exclude), of compaction in memory and eviction: no record moves. The
    /// caller holds the lock of `exclude`.
    pub(crate) fn hold_still(&self, _running: &MutexGuard<'_, ()>) -> impl Sized + use<'_> {
        self.claims.lock()
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

    /// Lowers the slack below its ceiling, for a writer that needs a segment: makes the sealed
    /// segments durable, and compacts in memory. The policy is not asked. If that does not suffice,
    /// or another compaction takes long, the writer goes on above the ceiling, which is counted.
    pub(crate) fn relieve(&self) -> Result<()> {
        let fits = || self.log.spares.next_fits_ceiling();
        if fits() {
            return Ok(());
        }
        self.flusher.flush_sealed()?;
        for _ in 0..STEPS_MAX {
            let freed = self.claims.try_lock_for(STEP).map(|alone| self.free_some_memory(&alone));
            if fits() {
                return Ok(());
            }
            match freed {
                // Another thread compacts.
                None | Some(1..) => {}
                // Readers may leave retired images soon.
                Some(0) if self.segments.bytes_in_use_by_readers() > 0 => thread::sleep(STEP),
                Some(0) => break,
            }
        }
        self.context.counters.slack_excesses.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Splits large files of a small store that is idle, because a store has to hold space for the
    /// survivors of its largest file. Ends once the newest change is not that of `last` any more.
    pub(crate) fn split_large(&self, last: Lsn) -> Result<()> {
        let _alone = self.exclude();
        let _poison = self.context.health.poison_on_panic(self.context.path());
        let is_over = || self.context.signals.pacing.is_stopping() || self.log.end.last_lsn() != last;
        let mut victims = self.files_to_split();
        while !victims.is_empty() && !is_over() {
            self.context.health.check_writable()?;
            // Until readers have left the victims, both copies are in memory.
            let mut some = victims.clone();
            self.keep_copies_few(&mut some);
            match self.disk.compact(&some) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(self.after_failure(error)?),
                // The victims stay as they are.
                Err(_) => {
                    self.count_unreadable();
                    return Ok(());
                }
            }
            victims.retain(|victim| !some.iter().any(|done| done.id == victim.id));
        }
        Ok(())
    }

    /// The files that are much larger than an output of compaction. None, if there is much in them.
    fn files_to_split(&self) -> Vec<Arc<Segment>> {
        let part = self.log.slack.output_bytes();
        let mut large = self.catalog.segments();
        large.retain(|segment| {
            // Large records cannot be split.
            let records = segment.survivors_max();
            let are_small = segment.file_len() < records.saturating_mul(part / LARGE_PART);
            segment.is_durable() && segment.file_len() > part + part / 2 && are_small
        });
        let bytes: usize = large.iter().map(|segment| segment.file_len()).sum();
        if bytes > SPLIT_BYTES_MAX { Vec::new() } else { large }
    }

    fn count_unreadable(&self) {
        self.context.counters.compaction_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Stores a manifest after a compaction on disk failed with `error`, which it returns if that
    /// is a refusal.
    ///
    /// # Errors
    /// The failure that poisons the store. It comes before the refusal.
    fn after_failure(&self, error: Error) -> Result<Error> {
        let error = self.context.poison_unless_refused(error);
        if self.context.health.is_poisoned() {
            return Err(error);
        }
        let tidied = self.catalog.tidy(self.log.end.last_lsn());
        tidied.map_err(|error| self.context.poison_unless_refused(error))?;
        Ok(error)
    }

    /// Compacts some images with the most dead records, if slack is to come free. Returns the bytes
    /// that come free once no reader uses them.
    fn free_some_memory(&self, alone: &Alone<'_>) -> u64 {
        let _poison = self.context.health.poison_on_panic(self.context.path());
        collect();
        self.segments.release_limbo();
        let excess = self.log.slack.excess();
        if excess == 0 {
            return 0;
        }
        let mut victims = self.catalog.segments();
        victims.retain(|segment| segment.is_durable() && alone.is_free(segment));
        let mut victims = dead_images(victims, excess, self.log.slack.segment_bytes());
        self.keep_copies_few(&mut victims);
        victims.iter().filter_map(|victim| self.memory.shrink(victim, alone)).sum()
    }

    fn compact_alone(&self, extent: Extent, _running: &MutexGuard<'_, ()>) -> Result<CompactionReport> {
        let _poison = self.context.health.poison_on_panic(self.context.path());
        let (mut total, mut unreadable, mut failure) = (CompactionReport::default(), Vec::new(), None);
        let asked = extent;
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
            // Writers that make garbage fast enough would delay a close forever, and they may wait
            // for memory while an idle store is made smaller.
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
        let (level, ids) = candidates.choose(
            &*options.compaction,
            extent,
            except,
            match extent.occasion() {
                Occasion::Busy => self.log.slack.segment_bytes(),
                Occasion::OpenOrClose | Occasion::Idle => self.log.slack.output_bytes(),
            } as u64,
            options.memory_budget,
        )?;
        // The catalog sorts them. There may be many: a search from the front would take long.
        let named = |id: &SegmentId| {
            let at = segments.binary_search_by_key(id, |segment| segment.id).ok()?;
            segments.get(at)
        };
        let mut victims: Vec<Arc<Segment>> = ids.iter().filter_map(named).cloned().collect();
        self.evictor.keep_loadable(&mut victims);
        self.keep_copies_few(&mut victims);
        victims.sort_unstable_by_key(|victim| victim.id);
        Some((level, victims))
    }

    /// Keeps the first victims, in the given order, whose survivors are few enough to be copied
    /// below the ceiling.
    fn keep_copies_few(&self, victims: &mut Vec<Arc<Segment>>) {
        keep_fitting(victims, self.log.slack.copied_bytes_max(), |victim| victim.tally.live_bytes());
    }
}

/// The `segments` whose images hold the smallest share of survivors, until `wanted` bytes of them
/// are dead. A survivor costs a copy, so these are the cheapest.
fn dead_images(mut segments: Vec<Arc<Segment>>, wanted: u64, full: usize) -> Vec<Arc<Segment>> {
    let kept = |segment: &Arc<Segment>| {
        segment.tally.live_bytes() + segment.tally.tombstone_bytes.load(Ordering::Relaxed)
    };
    let dead = |segment: &Arc<Segment>| (segment.resident_bytes() as u64).saturating_sub(kept(segment));
    let worthwhile = (full / WORTHWHILE_PART) as u64;
    segments.retain(|segment| dead(segment) >= worthwhile);
    segments.sort_by_cached_key(|segment| kept(segment) * PARTS / (segment.resident_bytes() as u64).max(1));
    let mut sum = 0;
    let enough = segments.iter().position(|segment| {
        sum += dead(segment);
        sum >= wanted
    });
    segments.truncate(enough.map_or(usize::MAX, |last| last + 1));
    segments
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::{Options, recovery::open};
    use kv_core::{Background, Env, Manual};

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
    }

    #[test]
    fn the_emptiest_images_are_compacted_first_until_enough_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { background: Background::Inline, ..Env::os() };
        let store = open(dir.path(), &env, Options { persistence: Arc::new(Manual), ..Options::default() });
        let store = store.unwrap();
        // The first segment has more dead bytes, the second a smaller share of survivors.
        for (keys, overwritten) in [(0..200_u8, 0..100_u8), (200..250, 200..245)] {
            for key in keys.chain(overwritten) {
                store.committer.put(&[key], &[key; 1000]).unwrap();
            }
            store.log.seal_active().unwrap();
        }
        store.flusher.flush_sealed().unwrap();
        let segments = || store.catalog.segments().into_iter().filter(|one| one.is_durable()).collect();
        let ids = |wanted| -> Vec<u64> {
            dead_images(segments(), wanted, 16 << 10).iter().map(|one| one.id.get()).collect()
        };
        let all = ids(u64::MAX);
        assert!(all.len() >= 2 && ids(1) == all[..1], "{all:?}");
        let kept = |id: u64| {
            let segments: Vec<Arc<Segment>> = segments();
            let one = segments.iter().find(|one| one.id.get() == id).unwrap();
            one.tally.live_bytes() * 1000 / one.resident_bytes() as u64
        };
        assert!(all.iter().map(|id| kept(*id)).is_sorted_by(|a, b| a <= &(b + 1)), "{all:?}");
    }
}
