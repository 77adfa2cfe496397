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

/// The resource that a compaction frees.
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
    /// Records in its file that a compaction on disk would leave out.
    pub dead_bytes: u64,
    /// Its image in memory; 0 when it has none.
    pub memory_bytes: u64,
    /// Its file.
    pub disk_bytes: u64,
    /// Time since it was written; for a compacted segment, since its records were.
    pub age: Duration,
}

impl SegmentStats {
    /// Share of the file that must survive, `(live + tombstones) / disk`, from 0.0 to 1.0.
    pub fn disk_utilization(&self) -> f64 {
        ratio(self.survivor_bytes(), self.disk_bytes)
    }

    /// Share of the image that must survive.
    pub fn memory_utilization(&self) -> f64 {
        ratio(self.survivor_bytes(), self.memory_bytes)
    }

    /// Bytes that a compaction would have to keep.
    pub fn survivor_bytes(&self) -> u64 {
        self.live_bytes + self.tombstone_bytes
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for a heuristic")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { (part as f64 / whole as f64).min(1.0) }
}

/// The used amount of a resource, and its limit.
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
    /// All files. At the limit, the disk is full: then any victim with dead records is worthwhile.
    pub disk: Usage,
    /// Segments, spare ones included, and the most there can be.
    pub slots: Usage,
    /// Why the engine asks now.
    pub occasion: Occasion,
}

/// Why an engine asks a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Occasion {
    /// Changes come, and need the disk themselves.
    #[default]
    Busy,
    /// The store is opened or closed, and a caller waits for that.
    OpenOrClose,
    /// No change came for a while, or a caller wants a compact store.
    Idle,
}

/// A policy's answer: compact these together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionPlan {
    /// The level of the compaction.
    pub level: CompactionLevel,
    /// The victims, the most worthwhile first: where memory is short, an engine may leave out the
    /// last. Not empty.
    pub victims: Vec<SegmentId>,
}

/// Decides which segments are compacted.
///
/// An engine asks when a segment was sealed and after each compaction, until the answer is `None`.
/// To come to an end, a policy must not name victims whose compaction neither frees bytes nor
/// leaves fewer segments.
pub trait CompactionPolicy: fmt::Debug + Send + Sync {
    /// The segments to compact now. `None` when there is nothing to do.
    ///
    /// The engine may hold its compaction lock during the call, so `plan` must not change, compact
    /// or close the store.
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

/// Compacts the emptiest segments first.
///
/// The target is for the whole store, not for a segment: if nine of ten segments are full, the
/// tenth may be nearly empty. While too little of all files is live, it compacts on disk. The dead
/// records of a small store are not worth the syncs of a compaction while changes come:
/// [`disk_slack_segments`](Self::disk_slack_segments) of them may stay until then.
/// Otherwise, while too little of all images is live, it compacts in memory: a byte freed there
/// costs no I/O, so its target is higher. Of uniformly overwritten segments the emptiest are about
/// half as full as the average, so a byte freed on disk costs about 0.5 bytes written at 0.6.
#[derive(Clone, Copy, Debug)]
pub struct Greedy {
    /// Share of all files that shall be live. Default 0.6: at most about two thirds more disk than
    /// live data. At 0 nothing is compacted on disk but to merge small segments.
    pub disk_utilization_min: f64,
    /// Full segments' worth of dead records that may stay on the disk while changes come, whatever
    /// share they are. Default 8.
    pub disk_slack_segments: u64,
    /// Share of all files that shall be live in an idle store. Default 0.75: at most a third more
    /// disk than live data. The higher of the two shares counts.
    pub idle_disk_utilization_min: f64,
    /// Share of all images that shall be live. Default 0.9: at most about a ninth more memory than
    /// live records.
    pub memory_utilization_min: f64,
    /// Share of all images that shall be live while changes come. Default 0.7: the nearer to 1, the
    /// more records are copied for each byte that comes free.
    pub busy_memory_utilization_min: f64,
    /// Most victims of one compaction. Default 8.
    pub victims_max: usize,
}

impl Default for Greedy {
    fn default() -> Self {
        Greedy {
            disk_utilization_min: 0.6,
            disk_slack_segments: 8,
            idle_disk_utilization_min: 0.75,
            memory_utilization_min: 0.9,
            busy_memory_utilization_min: 0.7,
            victims_max: 8,
        }
    }
}

impl Greedy {
    fn memory_target(&self, occasion: Occasion) -> f64 {
        match occasion {
            Occasion::Busy => self.busy_memory_utilization_min,
            Occasion::OpenOrClose | Occasion::Idle => self.memory_utilization_min,
        }
    }
}

impl CompactionPolicy for Greedy {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        let target = DiskTarget {
            utilization_min: self.disk_utilization_min,
            slack_segments: self.disk_slack_segments,
            idle_utilization_min: self.idle_disk_utilization_min,
        };
        on_disk(view, target, self.victims_max, SegmentStats::disk_utilization)
            .or_else(|| in_memory(view, self.memory_target(view.occasion), self.victims_max))
    }
}

/// Compacts where the space freed, weighed by how long it will stay free, is worth the copying. As
/// [`Greedy`] otherwise.
///
/// Ranks by `(1-u)*sqrt(age)/u` where survivors come from memory and by `(1-u)*sqrt(age)/(1+u)`
/// where they must be read from disk. The second form is the rule of Rosenblum and Ousterhout ("The
/// Design and Implementation of a Log-Structured File System", 1992, section 3.5), the first that
/// of Rumble et al. ("Log-structured Memory for DRAM-based Storage", FAST 2014, section 4). The
/// root is our own. Under zipfian overwriting, age by itself makes too much of segments that are
/// cold and full, and a fifth more is copied.
#[derive(Clone, Copy, Debug)]
pub struct CostBenefit {
    /// Share of all files that shall be live. Default 0.6.
    pub disk_utilization_min: f64,
    /// As [`Greedy::disk_slack_segments`]. Default 8.
    pub disk_slack_segments: u64,
    /// As [`Greedy::idle_disk_utilization_min`]. Default 0.75.
    pub idle_disk_utilization_min: f64,
    /// Share of all images that shall be live. Default 0.9.
    pub memory_utilization_min: f64,
    /// As [`Greedy::busy_memory_utilization_min`]. Default 0.7.
    pub busy_memory_utilization_min: f64,
    /// Most victims of one compaction. Default 8.
    pub victims_max: usize,
}

impl Default for CostBenefit {
    fn default() -> Self {
        let Greedy {
            disk_utilization_min,
            disk_slack_segments,
            idle_disk_utilization_min,
            memory_utilization_min,
            busy_memory_utilization_min,
            victims_max,
        } = Greedy::default();
        CostBenefit {
            disk_utilization_min,
            disk_slack_segments,
            idle_disk_utilization_min,
            memory_utilization_min,
            busy_memory_utilization_min,
            victims_max,
        }
    }
}

impl CostBenefit {
    /// Cost by benefit: smaller is better.
    fn rank(segment: &SegmentStats) -> f64 {
        let utilization = segment.disk_utilization();
        // A segment without age still has a benefit.
        let age = (segment.age.as_secs_f64() + 1e-3).sqrt();
        let cost = if segment.memory_bytes > 0 { utilization } else { 1.0 + utilization };
        cost / ((1.0 - utilization) * age)
    }
}

impl CostBenefit {
    fn memory_target(&self, occasion: Occasion) -> f64 {
        match occasion {
            Occasion::Busy => self.busy_memory_utilization_min,
            Occasion::OpenOrClose | Occasion::Idle => self.memory_utilization_min,
        }
    }
}

impl CompactionPolicy for CostBenefit {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        let target = DiskTarget {
            utilization_min: self.disk_utilization_min,
            slack_segments: self.disk_slack_segments,
            idle_utilization_min: self.idle_disk_utilization_min,
        };
        on_disk(view, target, self.victims_max, Self::rank)
            .or_else(|| in_memory(view, self.memory_target(view.occasion), self.victims_max))
    }
}

/// The smallest by `rank`, until they free `missing` bytes together.
fn best(
    mut candidates: Vec<&SegmentStats>,
    rank: impl Fn(&SegmentStats) -> f64,
    freed: impl Fn(&SegmentStats) -> u64,
    missing: u64,
    victims_max: usize,
) -> Vec<&SegmentStats> {
    candidates.sort_by(|a, b| rank(a).total_cmp(&rank(b)).then(a.id.cmp(&b.id)));
    let mut sum = 0;
    let enough = candidates.iter().position(|segment| {
        sum += freed(segment);
        sum >= missing
    });
    candidates.truncate(enough.map_or(victims_max, |last| (last + 1).min(victims_max)));
    candidates
}

/// Bytes to free so that `kept` is the given share of the rest of `all`.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate"
)]
fn excess(kept: u64, all: u64, share: f64) -> u64 {
    all.saturating_sub((kept as f64 / share.max(f64::EPSILON)) as u64)
}

fn plan(level: CompactionLevel, victims: &[&SegmentStats]) -> Option<CompactionPlan> {
    let victims: Vec<SegmentId> = victims.iter().map(|segment| segment.id).collect();
    (!victims.is_empty()).then_some(CompactionPlan { level, victims })
}

/// If too little of all images is live: the images with the least live share. Each frees at least a
/// sixteenth of a segment.
fn in_memory(view: &CompactionView<'_>, utilization_min: f64, victims_max: usize) -> Option<CompactionPlan> {
    let resident = || view.segments.iter().filter(|segment| segment.memory_bytes > 0);
    let excess = excess(
        resident().map(SegmentStats::survivor_bytes).sum(),
        resident().map(|segment| segment.memory_bytes).sum(),
        utilization_min,
    );
    if excess == 0 {
        return None;
    }
    let freed = |segment: &SegmentStats| segment.memory_bytes.saturating_sub(segment.survivor_bytes());
    let candidates = resident().filter(|segment| freed(segment) >= view.segment_bytes / 16).collect();
    plan(
        CompactionLevel::Memory,
        &best(candidates, SegmentStats::memory_utilization, freed, excess, victims_max),
    )
}

/// How full the files shall be.
#[derive(Clone, Copy, Debug)]
struct DiskTarget {
    /// 0: nothing is compacted but to merge small segments.
    utilization_min: f64,
    slack_segments: u64,
    idle_utilization_min: f64,
}

impl DiskTarget {
    /// The live share that the files shall have now.
    fn utilization_min(self, view: &CompactionView<'_>) -> f64 {
        if view.occasion == Occasion::Idle && self.utilization_min > 0.0 {
            self.utilization_min.max(self.idle_utilization_min)
        } else {
            self.utilization_min
        }
    }

    /// Bytes of dead records that may stay now.
    fn slack(self, view: &CompactionView<'_>) -> u64 {
        let is_busy = view.occasion == Occasion::Busy;
        if is_busy { self.slack_segments.saturating_mul(view.segment_bytes) } else { 0 }
    }
}

/// The first of these choices that names a segment. The first two need more dead records than the
/// slack.
///
/// 1. Segments without a live record.
/// 2. If too little of the disk is live, the smallest by `rank` with dead records.
/// 3. Small segments to merge.
///
/// Tombstones count as dead. They become useless once the dead puts that they hide are dropped, and
/// many tombstones are a reason to do that.
fn on_disk(
    view: &CompactionView<'_>,
    target: DiskTarget,
    victims_max: usize,
    rank: impl Fn(&SegmentStats) -> f64,
) -> Option<CompactionPlan> {
    let live: u64 = view.segments.iter().map(|segment| segment.live_bytes).sum();
    let disk: u64 = view.segments.iter().map(|segment| segment.disk_bytes).sum();
    let utilization_min = target.utilization_min(view);
    let is_worthwhile = disk.saturating_sub(live) > target.slack(view);
    let is_empty = |segment: &&SegmentStats| utilization_min > 0.0 && segment.survivor_bytes() == 0;
    let empty: Vec<&SegmentStats> = view.segments.iter().filter(is_empty).collect();
    if !empty.is_empty() && (is_worthwhile || is_reached(view.disk)) {
        return plan(CompactionLevel::Disk, &empty);
    }
    if is_reached(view.disk) {
        let candidates = view.segments.iter().filter(|segment| segment.dead_bytes > 0).collect();
        return plan(CompactionLevel::Disk, &best(candidates, rank, |segment| segment.dead_bytes, 1, 1));
    }
    if view.slots.used > MANY_SEGMENTS {
        let output_bytes = MERGED_SEGMENT_BYTES.max(view.segment_bytes);
        let mut victims = mergeable(view, output_bytes, MERGED_MAX);
        // One output at a time.
        let mut sum = 0;
        victims.retain(|segment| {
            sum += segment.survivor_bytes();
            sum <= output_bytes
        });
        if victims.len() as u64 >= MERGE_FACTOR {
            return plan(CompactionLevel::Disk, &victims);
        }
    }
    let excess = if is_worthwhile { excess(live, disk, utilization_min) } else { 0 };
    let candidates = view.segments.iter().filter(|segment| excess > 0 && segment.dead_bytes > 0).collect();
    // A segment's worth at least, so that not every new segment calls for a compaction.
    let missing = excess.max(view.segment_bytes);
    let mut victims = best(candidates, rank, |segment| segment.dead_bytes, missing, victims_max);
    if victims.is_empty() {
        victims = mergeable(view, view.segment_bytes, victims_max);
    }
    plan(CompactionLevel::Disk, &victims)
}

fn is_reached(usage: Usage) -> bool {
    usage.limit.is_some_and(|limit| usage.used >= limit)
}

/// How many segments a merge must make one of.
const MERGE_FACTOR: u64 = 4;

/// More segments than this are many: the manifest gets long, and slots may run out. Then the
/// policies of this crate merge the small ones into segments of [`MERGED_SEGMENT_BYTES`], and an
/// engine makes outputs that long.
pub const MANY_SEGMENTS: u64 = 1024;

/// Length of the outputs where there are [many segments](MANY_SEGMENTS), bytes, if a segment is
/// shorter.
pub const MERGED_SEGMENT_BYTES: u64 = 16 << 20;

/// Most segments that are merged at a time where there are many.
const MERGED_MAX: usize = 1024;

/// The smallest segments, if a merge leaves at most a quarter as many. Without merges, the small
/// outputs of compactions and crashes would grow in number forever. A record is merged a
/// logarithmic number of times.
fn mergeable<'a>(view: &CompactionView<'a>, output_bytes: u64, victims_max: usize) -> Vec<&'a SegmentStats> {
    let mut small: Vec<&SegmentStats> =
        view.segments.iter().filter(|segment| segment.disk_bytes <= output_bytes / MERGE_FACTOR).collect();
    small.sort_by_key(|segment| (segment.disk_bytes, segment.id));
    small.truncate(victims_max);
    let outputs =
        small.iter().map(|segment| segment.survivor_bytes()).sum::<u64>().div_ceil(output_bytes).max(1);
    if small.len() as u64 >= MERGE_FACTOR * outputs { small } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = 1000;

    /// Without slack.
    const GREEDY: Greedy = Greedy {
        disk_utilization_min: 0.6,
        disk_slack_segments: 0,
        idle_disk_utilization_min: 0.75,
        memory_utilization_min: 0.9,
        busy_memory_utilization_min: 0.9,
        victims_max: 8,
    };
    const COST_BENEFIT: CostBenefit = CostBenefit {
        disk_utilization_min: 0.6,
        disk_slack_segments: 0,
        idle_disk_utilization_min: 0.75,
        memory_utilization_min: 0.9,
        busy_memory_utilization_min: 0.9,
        victims_max: 8,
    };

    fn segment(id: u64, live: u64, age_s: u64) -> SegmentStats {
        SegmentStats {
            id: SegmentId::new(id),
            live_bytes: live,
            tombstone_bytes: 0,
            dead_bytes: FULL - live,
            memory_bytes: FULL,
            disk_bytes: FULL,
            age: Duration::from_secs(age_s),
        }
    }

    /// With so many of the live bytes in tombstones instead.
    fn with_tombstones(segment: SegmentStats, bytes: u64) -> SegmentStats {
        SegmentStats { tombstone_bytes: bytes, live_bytes: segment.live_bytes - bytes, ..segment }
    }

    fn levelled(
        policy: &dyn CompactionPolicy,
        segments: &[SegmentStats],
    ) -> Option<(CompactionLevel, Vec<u64>)> {
        levelled_on(Occasion::Busy, policy, segments)
    }

    fn levelled_on(
        occasion: Occasion,
        policy: &dyn CompactionPolicy,
        segments: &[SegmentStats],
    ) -> Option<(CompactionLevel, Vec<u64>)> {
        let view = CompactionView {
            segments,
            segment_bytes: FULL,
            memory: Usage::default(),
            disk: Usage::default(),
            slots: Usage { used: segments.len() as u64, limit: Some(1 << 16) },
            occasion,
        };
        let plan = policy.plan(&view)?;
        Some((plan.level, plan.victims.iter().map(|id| id.get()).collect()))
    }

    fn plan(policy: &dyn CompactionPolicy, segments: &[SegmentStats]) -> Option<Vec<u64>> {
        levelled(policy, segments)
            .filter(|(level, _)| *level == CompactionLevel::Disk)
            .map(|(_, victims)| victims)
    }

    #[test]
    fn a_few_dead_segments_stay_until_the_store_is_idle() {
        let greedy = Greedy::default();
        assert_eq!((greedy.disk_slack_segments, greedy.victims_max), (8, 8));
        let segments: Vec<SegmentStats> = (1..=9).map(|id| segment(id, 0, 0)).collect();
        for policy in [&greedy as &dyn CompactionPolicy, &CostBenefit::default()] {
            let eight = &segments[..8];
            let (level, victims) = levelled(policy, eight).unwrap();
            assert_eq!((level, victims.len()), (CompactionLevel::Memory, 8));
            assert_eq!(plan(policy, &segments).unwrap().len(), 9);
            for occasion in [Occasion::OpenOrClose, Occasion::Idle] {
                let (level, victims) = levelled_on(occasion, policy, eight).unwrap();
                assert_eq!((level, victims.len()), (CompactionLevel::Disk, 8));
            }
        }
    }

    #[test]
    fn an_idle_store_is_compacted_further() {
        for policy in [&GREEDY as &dyn CompactionPolicy, &COST_BENEFIT] {
            let full = [segment(1, 700, 0), segment(2, 750, 0)];
            for occasion in [Occasion::Busy, Occasion::OpenOrClose] {
                let (level, _) = levelled_on(occasion, policy, &full).unwrap();
                assert_eq!(level, CompactionLevel::Memory);
            }
            let idle = levelled_on(Occasion::Idle, policy, &full);
            assert_eq!(idle, Some((CompactionLevel::Disk, vec![1, 2])));
            let fuller = [segment(1, 750, 0), segment(2, 751, 0)];
            let idle = levelled_on(Occasion::Idle, policy, &fuller);
            assert_eq!(idle.map(|(level, _)| level), Some(CompactionLevel::Memory));
        }
        // A policy that leaves the disk alone does so in an idle store, too.
        let never_on_disk = Greedy { disk_utilization_min: 0.0, ..GREEDY };
        let idle = levelled_on(Occasion::Idle, &never_on_disk, &[segment(1, 10, 0)]);
        assert_eq!(idle.map(|(level, _)| level), Some(CompactionLevel::Memory));
    }

    #[test]
    fn fewer_records_are_copied_in_memory_while_changes_come() {
        for policy in [&Greedy::default() as &dyn CompactionPolicy, &CostBenefit::default()] {
            for (live, on_busy, on_idle) in [(699, true, true), (701, false, true), (901, false, false)] {
                let segments = [segment(1, live, 0)];
                let in_memory = |occasion| {
                    let plan = levelled_on(occasion, policy, &segments);
                    plan.is_some_and(|(level, _)| level == CompactionLevel::Memory)
                };
                assert_eq!(in_memory(Occasion::Busy), on_busy, "{live}");
                // On disk, first.
                let is_full = live >= 750;
                assert_eq!(in_memory(Occasion::Idle), on_idle && is_full, "{live}");
            }
        }
    }

    #[test]
    fn never_plans_nothing() {
        assert_eq!(plan(&Never, &[segment(1, 0, 9)]), None);
    }

    #[test]
    fn greedy_takes_the_emptiest_while_the_whole_is_too_empty() {
        let greedy = Greedy { disk_utilization_min: 0.75, victims_max: 3, ..GREEDY };
        assert_eq!(plan(&greedy, &[]), None);
        // 0.75 of the whole is enough, with any distribution over segments.
        assert_eq!(plan(&greedy, &[segment(1, 1000, 0), segment(2, 500, 0)]), None);
        assert_eq!(plan(&greedy, &[segment(1, 999, 0), segment(2, 500, 0)]), Some(vec![2, 1]));
        // As many as make up for the missing bytes, and free a segment.
        let segments = [segment(1, 900, 0), segment(2, 450, 0), segment(3, 400, 0), segment(4, 1000, 0)];
        assert_eq!(plan(&greedy, &segments), Some(vec![3, 2]));
        let emptier = [segment(1, 900, 0), segment(2, 450, 0), segment(3, 400, 0), segment(4, 600, 0)];
        assert_eq!(plan(&greedy, &emptier), Some(vec![3, 2]));
        let greedier = Greedy { disk_utilization_min: 0.99, ..greedy };
        assert_eq!(plan(&greedier, &emptier), Some(vec![3, 2, 4]));
        // A segment without dead records is no victim, even if its file is longer than its records.
        let padded = SegmentStats { dead_bytes: 0, ..segment(5, 300, 0) };
        assert_eq!(plan(&greedy, &[padded]), None);
    }

    #[test]
    fn what_is_dead_altogether_goes_at_once() {
        let small = SegmentStats { disk_bytes: 10, memory_bytes: 10, dead_bytes: 10, ..segment(4, 0, 0) };
        let segments = [segment(1, 1000, 0), segment(2, 900, 0), small];
        assert_eq!(plan(&GREEDY, &segments), Some(vec![4]));
        let never_on_disk = Greedy { disk_utilization_min: 0.0, ..GREEDY };
        assert_eq!(plan(&never_on_disk, &segments), None);
    }

    #[test]
    fn tombstones_are_kept_and_still_ask_for_the_dead_to_go() {
        // Nothing is live, and each segment is nearly full of tombstones that the dead in the other
        // keep.
        let held = |id| with_tombstones(segment(id, 950, 0), 950);
        assert_eq!(plan(&GREEDY, &[held(1), held(2)]), Some(vec![1, 2]));
        assert!((held(1).disk_utilization() - 0.95).abs() < 1e-9);
        assert!((held(1).memory_utilization() - 0.95).abs() < 1e-9);
        // Where the dead are gone, there is nothing left to do for those that hold tombstones only.
        let pure = with_tombstones(segment(3, 1000, 0), 1000);
        assert_eq!(plan(&GREEDY, &[pure, held(1)]), Some(vec![1]));
        assert_eq!(plan(&GREEDY, &[pure]), None);
    }

    #[test]
    fn memory_is_compacted_where_the_disk_is_well() {
        for policy in [&GREEDY as &dyn CompactionPolicy, &COST_BENEFIT] {
            let segments = [segment(1, 890, 0), segment(2, 850, 0), segment(3, 910, 0)];
            assert_eq!(levelled(policy, &segments), Some((CompactionLevel::Memory, vec![2])));
            assert_eq!(levelled(policy, &[segment(1, 800, 0), segment(2, 1000, 0)]), None);
            // A segment without an image, with a right-sized one, or with little to gain is left
            // out.
            let cold = SegmentStats { memory_bytes: 0, ..segment(1, 700, 0) };
            let fitting = SegmentStats { memory_bytes: 700, ..segment(2, 700, 0) };
            let small =
                SegmentStats { memory_bytes: 70, disk_bytes: 20, dead_bytes: 10, ..segment(3, 10, 0) };
            assert_eq!(levelled(policy, &[cold, fitting, small]), None);
            // Tombstones are kept in memory, too: they have to go to disk again.
            assert_eq!(levelled(policy, &[with_tombstones(segment(4, 950, 0), 100)]), None);
        }
    }

    #[test]
    fn policies_come_to_an_end() {
        let mut rng = 1_u64;
        let mut next = |max: u64| {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (rng >> 33) % max
        };
        for policy in [&GREEDY as &dyn CompactionPolicy, &COST_BENEFIT] {
            for _ in 0..200 {
                let mut segments: Vec<SegmentStats> = (0..next(40))
                    .map(|id| {
                        let survivors = next(FULL + 1);
                        let tombstones = next(survivors + 1);
                        with_tombstones(segment(id, survivors, next(100)), tombstones)
                    })
                    .collect();
                let mut rounds = 0;
                while let Some((level, victims)) = levelled(policy, &segments) {
                    rounds += 1;
                    assert!(rounds < 200, "{segments:?}");
                    let (gone, mut left): (Vec<SegmentStats>, Vec<SegmentStats>) =
                        segments.iter().partition(|segment| victims.contains(&segment.id.get()));
                    if level == CompactionLevel::Memory {
                        left.extend(gone.iter().map(|segment| SegmentStats {
                            memory_bytes: segment.survivor_bytes(),
                            ..*segment
                        }));
                    } else {
                        let live: u64 = gone.iter().map(|segment| segment.live_bytes).sum();
                        let all: u64 = gone.iter().map(SegmentStats::survivor_bytes).sum();
                        let id = 1000 * (rounds + 1);
                        left.extend((0..all.div_ceil(FULL)).map(|at| {
                            let bytes = (all - at * FULL).min(FULL);
                            let live = live.saturating_sub(at * FULL).min(bytes);
                            let output = segment(id + at, bytes, 0);
                            let whole = SegmentStats { disk_bytes: bytes, memory_bytes: bytes, ..output };
                            with_tombstones(SegmentStats { dead_bytes: 0, ..whole }, bytes - live)
                        }));
                    }
                    segments = left;
                }
            }
        }
    }

    #[test]
    fn small_segments_are_merged_four_to_one_or_not_at_all() {
        let small = |id, bytes| SegmentStats {
            disk_bytes: bytes,
            memory_bytes: bytes,
            dead_bytes: 0,
            ..segment(id, bytes, 0)
        };
        let three = [small(1, 10), small(2, 250), small(3, 20)];
        assert_eq!(plan(&GREEDY, &three), None);
        let with = |last| [three[0], three[1], three[2], last];
        assert_eq!(plan(&GREEDY, &with(small(4, 251))), None);
        assert_eq!(plan(&GREEDY, &with(small(4, 250))), Some(vec![1, 3, 2, 4]));
        let two_outputs: Vec<_> = (1..=5).map(|id| small(id, 250)).collect();
        assert_eq!(plan(&GREEDY, &two_outputs), None);
    }

    #[test]
    fn cost_benefit_prefers_old_segments_over_slightly_emptier_young_ones() {
        let one = CostBenefit { victims_max: 1, disk_utilization_min: 0.9, ..COST_BENEFIT };
        let segments = [segment(1, 500, 1), segment(2, 700, 100), segment(3, 350, 1), segment(4, 950, 400)];
        assert_eq!(plan(&one, &segments), Some(vec![2]));
        let younger = SegmentStats { age: Duration::from_secs(1), ..segments[1] };
        assert_eq!(plan(&one, &[segments[0], younger, segments[2], segments[3]]), Some(vec![3]));
        // The same segment costs more when its survivors must be read from disk.
        let cold = SegmentStats { memory_bytes: 0, ..segment(5, 500, 10) };
        assert!(CostBenefit::rank(&cold) > CostBenefit::rank(&segment(5, 500, 10)));
    }
}
