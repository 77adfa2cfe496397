//! The choice of victims: the segments that a policy sees, and the ones that it may name.

use kv_core::{
    CompactionLevel, CompactionPolicy, CompactionView, Error, Lsn, Occasion, SegmentId, SegmentStats, Usage,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::manifest::Need;
use crate::segments::{SEGMENTS_MAX, Segment};

/// How far a compaction goes, and its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Until the policy names no more victims, as for an idle store.
    All,
    /// As `All`, for a store whose newest change has this LSN, until another comes.
    Idle(Lsn),
    /// Until the policy names no more victims, while changes may come.
    Busy,
    /// Until the policy names no more victims on disk among the segments up to this one, or for a
    /// second. Writers cannot delay that end.
    DiskUpTo(SegmentId),
    /// At most one plan.
    OnePlan,
    /// The disk is full: one victim at a time whose space comes free, until there is enough for a
    /// change with this need.
    FullDisk(Need),
    /// No slot is free: until the outputs are fewer than their victims.
    NoSlot,
}

/// On a full disk, a change compacts a victim only if at least this fraction of its file is dead:
/// one sixteenth for new data. A relief accepts less, because its own deletes add to the gain.
const FULL_DISK_DIVISOR_FOR_GROWTH: u64 = 16;
const FULL_DISK_DIVISOR_FOR_RELIEF: u64 = 128;

impl Extent {
    /// For a change with this need that `error` refuses for want of space or slots.
    pub(crate) fn after_refusal(error: &Error, need: Need) -> Self {
        if matches!(error, Error::TooManySegments { .. }) { Extent::NoSlot } else { Extent::FullDisk(need) }
    }

    /// The least dead bytes of a victim with a file of `disk_bytes` bytes, on a full disk.
    fn dead_bytes_min(self, disk_bytes: u64) -> Option<u64> {
        match self {
            Extent::FullDisk(Need::Growth) => Some(disk_bytes / FULL_DISK_DIVISOR_FOR_GROWTH),
            Extent::FullDisk(_) => Some(disk_bytes / FULL_DISK_DIVISOR_FOR_RELIEF),
            _ => None,
        }
    }

    /// Whether a victim may be compacted at all.
    fn allows(self, victim: &SegmentStats) -> bool {
        let is_in_reach = match self {
            Extent::DiskUpTo(last) => victim.id <= last,
            _ => true,
        };
        is_in_reach && self.dead_bytes_min(victim.disk_bytes).is_none_or(|least| victim.dead_bytes >= least)
    }

    /// Whether compaction in memory serves the purpose.
    fn allows_memory(self) -> bool {
        matches!(self, Extent::All | Extent::Idle(_) | Extent::Busy | Extent::OnePlan)
    }

    pub(super) fn occasion(self) -> Occasion {
        match self {
            Extent::All | Extent::Idle(_) => Occasion::Idle,
            Extent::DiskUpTo(_) | Extent::OnePlan => Occasion::OpenOrClose,
            Extent::Busy | Extent::FullDisk(_) | Extent::NoSlot => Occasion::Busy,
        }
    }

    pub(super) fn is_pressed(self) -> bool {
        matches!(self, Extent::FullDisk(_) | Extent::NoSlot)
    }
}

/// The segments of a store as a policy sees them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// The durable ones, in the order of their ids: only they may be compacted.
    stats: Vec<SegmentStats>,
    /// Bytes of all images, and of all files.
    memory_bytes: u64,
    disk_bytes: u64,
    /// Number of all segments.
    count: u64,
}

impl Candidates {
    /// The given segments, which are all of a store, at the time `now`.
    pub(super) fn new(segments: &[Arc<Segment>], now: Duration) -> Self {
        let mut candidates = Candidates { count: segments.len() as u64, ..Candidates::default() };
        let oldest =
            segments.iter().min_by_key(|segment| segment.oldest_dead_put()).map(|segment| segment.id);
        let oldest_but_one = oldest_dead_put(segments, oldest.as_slice());
        let oldest_of_all = oldest_dead_put(segments, &[]);
        for segment in segments {
            let memory_bytes = segment.memory_bytes() as u64;
            candidates.memory_bytes += memory_bytes;
            candidates.disk_bytes += segment.file_len() as u64;
            if segment.is_durable() {
                let is_oldest = oldest == Some(segment.id);
                let oldest_elsewhere = if is_oldest { oldest_but_one } else { oldest_of_all };
                let needed = oldest_elsewhere < segment.max_lsn();
                let tombstone_bytes =
                    if needed { segment.tally.tombstone_bytes.load(Ordering::Relaxed) } else { 0 };
                candidates.stats.push(SegmentStats {
                    id: segment.id,
                    live_bytes: segment.tally.live_bytes(),
                    tombstone_bytes,
                    dead_bytes: segment.dead_bytes(tombstone_bytes),
                    memory_bytes,
                    disk_bytes: segment.file_len() as u64,
                    age: now.saturating_sub(segment.created),
                });
            }
        }
        candidates
    }

    /// Leaves out the victims that are not `worthwhile`.
    pub(super) fn retain(&mut self, worthwhile: impl Fn(SegmentId) -> bool) {
        self.stats.retain(|stats| worthwhile(stats.id));
    }

    /// The level and the victims that `policy` names for this extent, none of which is in `except`.
    /// `None` when there is nothing to compact.
    pub(super) fn choose(
        mut self,
        policy: &dyn CompactionPolicy,
        extent: Extent,
        except: &[SegmentId],
        segment_bytes: u64,
        output_bytes: u64,
        memory_budget: Option<u64>,
    ) -> Option<(CompactionLevel, Vec<SegmentId>)> {
        self.stats.retain(|stats| extent.allows(stats) && !except.contains(&stats.id));
        let is_disk_full = matches!(extent, Extent::FullDisk(_));
        let view = CompactionView {
            segments: &self.stats,
            segment_bytes,
            output_bytes,
            memory: Usage { used: self.memory_bytes, limit: memory_budget },
            // A full disk is one whose limit is reached.
            disk: Usage { used: self.disk_bytes, limit: is_disk_full.then_some(self.disk_bytes) },
            slots: Usage { used: self.count, limit: Some(SEGMENTS_MAX as u64) },
            occasion: extent.occasion(),
        };
        let plan = policy.plan(&view)?;
        let is_allowed = plan.level != CompactionLevel::Memory || extent.allows_memory();
        let is_candidate = |id: &SegmentId| self.stats.binary_search_by_key(id, |stats| stats.id).is_ok();
        let mut victims: Vec<SegmentId> = plan.victims.into_iter().filter(is_candidate).collect();
        deduplicate(&mut victims);
        (is_allowed && !victims.is_empty()).then_some((plan.level, victims))
    }
}

/// Drops repetitions, and keeps the order: a policy names the best victim first.
fn deduplicate(victims: &mut Vec<SegmentId>) {
    let mut seen = std::collections::BTreeSet::new();
    victims.retain(|victim| seen.insert(*victim));
}

/// A lower bound for the LSNs of dead puts in the files of all segments other than `except`, which
/// are in ascending order: a tombstone older than that hides no record.
pub(super) fn oldest_dead_put(segments: &[Arc<Segment>], except: &[SegmentId]) -> u64 {
    debug_assert!(except.is_sorted());
    let others = segments.iter().filter(|segment| except.binary_search(&segment.id).is_err());
    others.map(|segment| segment.oldest_dead_put()).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::CompactionPlan;
    use std::sync::Mutex;

    /// Names every segment that it sees, in reverse and twice, and notes the limit of the disk.
    #[derive(Debug)]
    struct All {
        level: CompactionLevel,
        disk_limit: Mutex<Option<u64>>,
    }

    impl CompactionPolicy for All {
        fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
            *self.disk_limit.lock().unwrap() = view.disk.limit;
            let seen = view.segments.iter().rev().map(|stats| stats.id);
            let strangers = [SegmentId::new(77)].into_iter();
            let victims = seen.clone().chain(strangers).chain(seen).collect();
            Some(CompactionPlan { level: self.level, victims })
        }
    }

    fn policy(level: CompactionLevel) -> All {
        All { level, disk_limit: Mutex::new(None) }
    }

    /// Three segments of 1,280 bytes with ids 1 to 3, of which 9, 10 and 80 bytes are dead.
    fn candidates() -> Candidates {
        let stats = (1..).zip([9, 10, 80]).map(|(id, dead_bytes)| SegmentStats {
            id: SegmentId::new(id),
            live_bytes: 1000,
            tombstone_bytes: 0,
            dead_bytes,
            memory_bytes: 1280,
            disk_bytes: 1280,
            age: Duration::ZERO,
        });
        Candidates { stats: stats.collect(), memory_bytes: 3840, disk_bytes: 3840, count: 3 }
    }

    fn chosen(level: CompactionLevel, extent: Extent, except: &[u64]) -> Vec<u64> {
        let except: Vec<SegmentId> = except.iter().map(|id| SegmentId::new(*id)).collect();
        let chosen = candidates().choose(&policy(level), extent, &except, 4096, 4096, None);
        chosen.map_or(Vec::new(), |(_, victims)| victims.iter().map(|id| id.get()).collect())
    }

    #[test]
    fn each_extent_allows_its_victims() {
        let second = SegmentId::new(2);
        for (extent, on_disk, in_memory) in [
            (Extent::All, &[3, 2, 1][..], &[3, 2, 1][..]),
            (Extent::OnePlan, &[3, 2, 1], &[3, 2, 1]),
            (Extent::DiskUpTo(second), &[2, 1], &[]),
            (Extent::FullDisk(Need::Growth), &[3], &[]),
            (Extent::FullDisk(Need::Relief), &[3, 2], &[]),
            (Extent::FullDisk(Need::LastRelief), &[3, 2], &[]),
            (Extent::FullDisk(Need::Compaction), &[3, 2], &[]),
            (Extent::NoSlot, &[3, 2, 1], &[]),
        ] {
            assert_eq!(chosen(CompactionLevel::Disk, extent, &[]), on_disk, "{extent:?}");
            assert_eq!(chosen(CompactionLevel::Memory, extent, &[]), in_memory, "{extent:?}");
        }
    }

    #[test]
    fn unreadable_victims_are_left_out() {
        assert_eq!(chosen(CompactionLevel::Disk, Extent::All, &[3, 1]), [2]);
        assert!(chosen(CompactionLevel::Disk, Extent::All, &[3, 1, 2]).is_empty());
    }

    #[test]
    fn only_a_compaction_of_a_full_disk_sees_a_full_disk() {
        for (extent, limit) in
            [(Extent::All, None), (Extent::NoSlot, None), (Extent::FullDisk(Need::Growth), Some(3840))]
        {
            let policy = policy(CompactionLevel::Disk);
            candidates().choose(&policy, extent, &[], 4096, 4096, None);
            assert_eq!(*policy.disk_limit.lock().unwrap(), limit);
        }
    }
}
