//! Which segments are compacted, and at which level. A policy decides, the engine executes.

use std::fmt;
use std::time::Duration;

/// Identity of a log segment; grows with creation and is never used twice in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(u64);

impl SegmentId {
    /// The id with this number.
    pub const fn new(number: u64) -> Self {
        SegmentId(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a compaction gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionLevel {
    /// Memory: live records move to a right-sized image; no disk I/O.
    Memory,
    /// Disk and memory: survivors of the victims move to new segments, the victims are removed.
    Disk,
}

/// One sealed segment, as a policy sees it. Sizes are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SegmentStats {
    /// Which segment.
    pub id: SegmentId,
    /// Records that the index points at.
    pub live_bytes: u64,
    /// Tombstones that may still hide something.
    pub tombstone_bytes: u64,
    /// Its image in memory; 0 when it has none.
    pub memory_bytes: u64,
    /// Its file.
    pub disk_bytes: u64,
    /// Time since it was written; for a compacted segment, since its records were.
    pub age: Duration,
}

impl SegmentStats {
    /// Share of the file that must survive, 0.0 to 1.0 and more precisely `(live + tombstones) / disk`.
    pub fn disk_utilization(&self) -> f64 {
        ratio(self.survivor_bytes(), self.disk_bytes)
    }

    /// What a compaction would have to keep, bytes.
    pub fn survivor_bytes(&self) -> u64 {
        self.live_bytes + self.tombstone_bytes
    }

    /// Share of the image that is live.
    pub fn memory_utilization(&self) -> f64 {
        ratio(self.live_bytes, self.memory_bytes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for a heuristic")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { (part as f64 / whole as f64).min(1.0) }
}

/// Bytes used of what is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In use.
    pub used: u64,
    /// Allowed; `None`: no limit.
    pub limit: Option<u64>,
}

/// Everything that a policy may look at.
#[derive(Clone, Copy, Debug)]
pub struct CompactionView<'a> {
    /// The sealed segments, in the order of their ids.
    pub segments: &'a [SegmentStats],
    /// Size of a full segment.
    pub segment_bytes: u64,
    /// Memory of all images.
    pub memory: Usage,
    /// All files.
    pub disk: Usage,
}

/// A policy's answer: compact these together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionPlan {
    /// What for.
    pub level: CompactionLevel,
    /// The victims, the most worthwhile first: where memory is short, an engine may leave out the last. Not empty.
    pub victims: Vec<SegmentId>,
}

/// Decides which segments are compacted.
///
/// An engine asks when a segment was sealed and after each compaction, until the answer is `None`.
/// To come to an end, a policy must not name victims whose compaction neither frees bytes nor leaves
/// fewer segments.
pub trait CompactionPolicy: fmt::Debug + Send + Sync {
    /// What to compact now.
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan>;
}

/// No compaction: dead records stay until the store is rewritten by other means.
#[derive(Clone, Copy, Debug, Default)]
pub struct Never;

impl CompactionPolicy for Never {
    fn plan(&self, _view: &CompactionView<'_>) -> Option<CompactionPlan> {
        None
    }
}

/// Compacts the emptiest segments first, on disk; merges small ones, so that they do not pile up. Where nothing is worth
/// that, it compacts in memory, where a byte costs no I/O to free and so may be freed earlier.
#[derive(Clone, Copy, Debug)]
pub struct Greedy {
    /// Segments at or above this utilization are left alone on disk. Default 0.6: at most about two thirds more disk
    /// than live data, for at most 1.5 bytes written per byte freed.
    pub utilization_max: f64,
    /// Images at or above this utilization are left alone in memory. Default 0.85: at most about a sixth more memory
    /// than live records, for at most 6 bytes copied per byte freed.
    pub memory_utilization_max: f64,
    /// Most victims of one compaction. Default 8.
    pub victims_max: usize,
}

impl Default for Greedy {
    fn default() -> Self {
        Greedy { utilization_max: 0.6, memory_utilization_max: 0.85, victims_max: 8 }
    }
}

impl CompactionPolicy for Greedy {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        on_disk(view, self.utilization_max, self.victims_max, SegmentStats::disk_utilization)
            .or_else(|| in_memory(view, self.memory_utilization_max, self.victims_max))
    }
}

/// Compacts where the space freed, weighed by how long it will stay free, is worth the copying.
///
/// Ranks by `(1-u)*age/u` where survivors come from memory and by `(1-u)*age/(1+u)` where they must
/// be read from disk (Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured
/// File System", 1992, section 3.5; the first form is Rumble et al., "Log-structured Memory for
/// DRAM-based Storage", FAST 2014, section 4).
#[derive(Clone, Copy, Debug)]
pub struct CostBenefit {
    /// Segments at or above this utilization are left alone on disk. Default 0.9: old segments are worth
    /// cleaning even when they are rather full.
    pub utilization_max: f64,
    /// Images at or above this utilization are left alone in memory. Default 0.85.
    pub memory_utilization_max: f64,
    /// Most victims of one compaction. Default 8.
    pub victims_max: usize,
}

impl Default for CostBenefit {
    fn default() -> Self {
        CostBenefit { utilization_max: 0.9, memory_utilization_max: 0.85, victims_max: 8 }
    }
}

impl CostBenefit {
    /// Cost by benefit: smaller is better.
    fn rank(segment: &SegmentStats) -> f64 {
        let utilization = segment.disk_utilization();
        // A segment without age still has a benefit.
        let age = segment.age.as_secs_f64() + 1e-3;
        let cost = if segment.memory_bytes > 0 { utilization } else { 1.0 + utilization };
        cost / ((1.0 - utilization) * age)
    }
}

impl CompactionPolicy for CostBenefit {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        on_disk(view, self.utilization_max, self.victims_max, Self::rank)
            .or_else(|| in_memory(view, self.memory_utilization_max, self.victims_max))
    }
}

/// The images with the least share worth keeping, of those in which at least a sixteenth of a segment comes free.
fn in_memory(view: &CompactionView<'_>, utilization_max: f64, victims_max: usize) -> Option<CompactionPlan> {
    let utilization = |segment: &SegmentStats| ratio(segment.survivor_bytes(), segment.memory_bytes);
    let freed = |segment: &SegmentStats| segment.memory_bytes.saturating_sub(segment.survivor_bytes());
    let mut candidates: Vec<&SegmentStats> = view
        .segments
        .iter()
        .filter(|segment| utilization(segment) < utilization_max && freed(segment) >= view.segment_bytes / 16)
        .collect();
    candidates.sort_by(|a, b| utilization(a).total_cmp(&utilization(b)).then(a.id.cmp(&b.id)));
    candidates.truncate(victims_max);
    (!candidates.is_empty()).then(|| CompactionPlan {
        level: CompactionLevel::Memory,
        victims: candidates.iter().map(|segment| segment.id).collect(),
    })
}

/// The best-ranked victims (smallest first) whose compaction frees at least one full segment; or those
/// that hold nothing worth keeping; or small ones to be merged.
fn on_disk(
    view: &CompactionView<'_>,
    utilization_max: f64,
    victims_max: usize,
    rank: impl Fn(&SegmentStats) -> f64,
) -> Option<CompactionPlan> {
    let mut candidates: Vec<&SegmentStats> =
        view.segments.iter().filter(|segment| segment.disk_utilization() < utilization_max).collect();
    candidates.sort_by(|a, b| rank(a).total_cmp(&rank(b)).then(a.id.cmp(&b.id)));
    candidates.truncate(victims_max);

    let freed: u64 =
        candidates.iter().map(|segment| segment.disk_bytes.saturating_sub(segment.survivor_bytes())).sum();
    if freed < view.segment_bytes {
        candidates.retain(|segment| segment.survivor_bytes() == 0);
    }
    if candidates.is_empty() {
        candidates = mergeable(view, victims_max);
    }
    (!candidates.is_empty()).then(|| CompactionPlan {
        level: CompactionLevel::Disk,
        victims: candidates.iter().map(|segment| segment.id).collect(),
    })
}

/// How many segments a merge must make one of.
const MERGE_FACTOR: u64 = 4;

/// The smallest segments, if merging them leaves at most a quarter as many: what compaction and
/// crashes leave behind would otherwise grow in number for ever. Each record is copied a logarithmic
/// number of times by this.
fn mergeable<'a>(view: &CompactionView<'a>, victims_max: usize) -> Vec<&'a SegmentStats> {
    let mut small: Vec<&SegmentStats> = view
        .segments
        .iter()
        .filter(|segment| segment.disk_bytes <= view.segment_bytes / MERGE_FACTOR)
        .collect();
    small.sort_by_key(|segment| (segment.disk_bytes, segment.id));
    small.truncate(victims_max);
    let outputs =
        small.iter().map(|segment| segment.survivor_bytes()).sum::<u64>().div_ceil(view.segment_bytes).max(1);
    if small.len() as u64 >= MERGE_FACTOR * outputs { small } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = 1000;

    fn segment(id: u64, live: u64, age_s: u64) -> SegmentStats {
        SegmentStats {
            id: SegmentId::new(id),
            live_bytes: live,
            tombstone_bytes: 0,
            memory_bytes: FULL,
            disk_bytes: FULL,
            age: Duration::from_secs(age_s),
        }
    }

    fn plan(policy: &dyn CompactionPolicy, segments: &[SegmentStats]) -> Option<Vec<u64>> {
        levelled(policy, segments)
            .filter(|(level, _)| *level == CompactionLevel::Disk)
            .map(|(_, victims)| victims)
    }

    fn levelled(
        policy: &dyn CompactionPolicy,
        segments: &[SegmentStats],
    ) -> Option<(CompactionLevel, Vec<u64>)> {
        let view = CompactionView {
            segments,
            segment_bytes: FULL,
            memory: Usage::default(),
            disk: Usage::default(),
        };
        let plan = policy.plan(&view)?;
        Some((plan.level, plan.victims.iter().map(|id| id.get()).collect()))
    }

    #[test]
    fn never_plans_nothing() {
        assert_eq!(plan(&Never, &[segment(1, 0, 9)]), None);
    }

    #[test]
    fn greedy_takes_the_emptiest_and_needs_a_gain() {
        let greedy = Greedy { utilization_max: 0.75, victims_max: 2, ..Greedy::default() };
        assert_eq!(plan(&greedy, &[]), None);
        // 400 bytes would come free: not a segment's worth.
        assert_eq!(plan(&greedy, &[segment(1, 600, 0), segment(2, 900, 0)]), None);
        assert_eq!(plan(&greedy, &[segment(1, 600, 0), segment(2, 400, 0)]), Some(vec![2, 1]));
        assert_eq!(
            plan(&greedy, &[segment(1, 600, 0), segment(2, 400, 0), segment(3, 100, 0)]),
            Some(vec![3, 2])
        );
        // At the threshold is too full, whatever the gain.
        assert_eq!(plan(&greedy, &[segment(1, 750, 0), segment(2, 750, 0)]), None);
        // A dead segment goes even if it is small.
        let small = SegmentStats { disk_bytes: 10, memory_bytes: 10, ..segment(4, 0, 0) };
        assert_eq!(plan(&greedy, &[segment(1, 600, 0), small]), Some(vec![4]));
    }

    #[test]
    fn memory_is_compacted_where_the_disk_is_not_worth_it() {
        for policy in [&Greedy::default() as &dyn CompactionPolicy, &CostBenefit::default()] {
            // 340 bytes would come free on disk, less than a segment; in memory each is worth it.
            let segments = [segment(1, 840, 0), segment(2, 820, 0), segment(3, 860, 0)];
            assert_eq!(levelled(policy, &segments), Some((CompactionLevel::Memory, vec![2, 1])));
            // What has no image, a right-sized one, or one that would give next to nothing is left alone.
            let cold = SegmentStats { memory_bytes: 0, ..segment(1, 700, 0) };
            let fitting = SegmentStats { memory_bytes: 700, ..segment(2, 700, 0) };
            let small = SegmentStats { memory_bytes: 70, disk_bytes: 100, ..segment(3, 10, 0) };
            assert_eq!(levelled(policy, &[cold, fitting, small]), None);
            // Tombstones are kept in memory, too: they have to go to disk again.
            let tombstones = SegmentStats { tombstone_bytes: 100, ..segment(4, 800, 0) };
            assert_eq!(levelled(policy, &[tombstones]), None);
        }
    }

    #[test]
    fn small_segments_are_merged_four_to_one_or_not_at_all() {
        let small =
            |id, bytes| SegmentStats { disk_bytes: bytes, memory_bytes: bytes, ..segment(id, bytes, 0) };
        let three = [small(1, 10), small(2, 250), small(3, 20)];
        assert_eq!(plan(&Greedy::default(), &three), None);
        let with = |last| [three[0], three[1], three[2], last];
        assert_eq!(plan(&Greedy::default(), &with(small(4, 251))), None);
        assert_eq!(plan(&Greedy::default(), &with(small(4, 250))), Some(vec![1, 3, 2, 4]));
        let two_outputs: Vec<_> = (1..=5).map(|id| small(id, 250)).collect();
        assert_eq!(plan(&Greedy::default(), &two_outputs), None);
    }

    #[test]
    fn tombstones_count_as_survivors() {
        let held = SegmentStats { tombstone_bytes: 900, ..segment(1, 0, 0) };
        assert_eq!(plan(&Greedy::default(), &[held]), None);
        assert!((held.disk_utilization() - 0.9).abs() < 1e-9);
        assert!(held.memory_utilization().abs() < 1e-9);
    }

    #[test]
    fn cost_benefit_prefers_old_segments_over_slightly_emptier_young_ones() {
        let one = CostBenefit { victims_max: 2, ..CostBenefit::default() };
        let segments = [segment(1, 500, 1), segment(2, 600, 100), segment(3, 350, 1), segment(4, 950, 9999)];
        assert_eq!(plan(&one, &segments), Some(vec![2, 3]));
        // The same segment costs more when its survivors must be read from disk.
        let cold = SegmentStats { memory_bytes: 0, ..segment(5, 500, 10) };
        assert!(CostBenefit::rank(&cold) > CostBenefit::rank(&segment(5, 500, 10)));
    }
}
