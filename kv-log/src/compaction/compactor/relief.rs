//! Relief of memory: compaction of the images with the most dead records, so that the
//! [slack](crate::slack) stays below its ceiling.

use kv_core::Result;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::Compactor;
use crate::compaction::claims::Alone;
use crate::eviction::keep_fitting;
use crate::reclaim::collect;
use crate::segments::Segment;

/// A writer waits for slack to come free in steps. After each it looks again.
const STEP: Duration = Duration::from_millis(1);
const STEPS_MAX: u32 = 20;

/// The unit in which shares of survivors are compared.
const PARTS: u64 = 1024;

/// Images are compacted for slack if that frees at least this part of a full segment, or half of a
/// small image.
const WORTHWHILE_PART: usize = 16;

impl Compactor {
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
                // Another thread compacts, or more may come free.
                None | Some(1..) => {}
                // Readers may leave retired images soon.
                Some(0) if self.segments.bytes_in_use_by_readers() > 0 => thread::sleep(STEP),
                Some(0) => break,
            }
        }
        self.context.counters.slack_excesses.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Compacts some images with the most dead records, if slack is to come free. Returns the bytes
    /// that come free once no reader uses them.
    pub(super) fn free_some_memory(&self, alone: &Alone<'_>) -> u64 {
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
        self.keep_copies_below_ceiling(&mut victims);
        victims.iter().filter_map(|victim| self.memory.shrink(victim, alone)).sum()
    }

    /// Keeps the first victims whose survivors fit below the ceiling: until readers have left the
    /// victims, both copies are in memory.
    pub(super) fn keep_copies_below_ceiling(&self, victims: &mut Vec<Arc<Segment>>) {
        let copied = |victim: &Segment| victim.tally.live_bytes();
        let least = victims.iter().map(|victim| copied(victim)).min().unwrap_or(0);
        if self.log.slack.room() < least {
            // This is the slack that comes free at once.
            self.context.tail.remove_kept();
        }
        let room = self.log.slack.room();
        if room >= least {
            victims.retain(|victim| copied(victim) <= room);
            keep_fitting(victims, room.min(self.log.slack.copied_bytes_max()), copied);
        } else if self.segments.bytes_in_use_by_readers() > 0 {
            // Some of it comes free once they leave.
            victims.clear();
        } else {
            // The ceiling has come down with the live data. Only copies bring the slack down.
            self.keep_copies_few(victims);
        }
    }
}

/// The `segments` whose images hold the smallest share of survivors, until `wanted` bytes of them
/// are dead. A survivor costs a copy, so these are the cheapest.
fn dead_images(mut segments: Vec<Arc<Segment>>, wanted: u64, full: usize) -> Vec<Arc<Segment>> {
    let kept = |segment: &Arc<Segment>| {
        segment.tally.live_bytes() + segment.tally.tombstone_bytes.load(Ordering::Relaxed)
    };
    let dead = |segment: &Arc<Segment>| (segment.resident_bytes() as u64).saturating_sub(kept(segment));
    let least = |segment: &Arc<Segment>| (full / WORTHWHILE_PART).min(segment.resident_bytes() / 2).max(1);
    segments.retain(|segment| dead(segment) >= least(segment) as u64);
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
        store.close().unwrap();
    }
}
