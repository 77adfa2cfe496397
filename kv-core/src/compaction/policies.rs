//! The policies that choose victims for the whole store.

use super::{
    CompactionLevel, CompactionPlan, CompactionPolicy, CompactionView, Occasion, SegmentId, SegmentStats,
    Usage,
};

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
    /// Dead records that may stay on the disk while changes come, in full segments. A small store
    /// may so have more dead records than live ones. Default 16.
    pub disk_slack_segments: u64,
    /// Share of all files that shall be live in an idle store. Default 0.9: at most a ninth more
    /// disk than live data. The higher of the two shares counts.
    pub idle_disk_utilization_min: f64,
    /// Share of all images that shall be live in an idle store. Default 0.95: at most about a
    /// nineteenth more memory than live records.
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
            disk_slack_segments: 16,
            idle_disk_utilization_min: 0.9,
            memory_utilization_min: 0.95,
            busy_memory_utilization_min: 0.7,
            victims_max: 8,
        }
    }
}

impl Greedy {
    /// The victims that bring the whole store nearer to these targets, smallest `rank` first.
    fn plan_by(
        &self,
        view: &CompactionView<'_>,
        rank: impl Fn(&SegmentStats) -> f64,
    ) -> Option<CompactionPlan> {
        on_disk(view, self, rank).or_else(|| in_memory(view, self))
    }

    /// The live share that the files shall have now.
    fn disk_utilization_min(&self, view: &CompactionView<'_>) -> f64 {
        if view.occasion == Occasion::Idle && self.disk_utilization_min > 0.0 {
            self.disk_utilization_min.max(self.idle_disk_utilization_min)
        } else {
            self.disk_utilization_min
        }
    }

    /// Bytes of dead records that may stay on the disk now.
    fn disk_slack(&self, view: &CompactionView<'_>) -> u64 {
        let is_busy = view.occasion == Occasion::Busy;
        if is_busy { self.disk_slack_segments.saturating_mul(view.segment_bytes) } else { 0 }
    }

    /// The live share that the images shall have now.
    fn memory_utilization_min(&self, view: &CompactionView<'_>) -> f64 {
        let is_busy = view.occasion == Occasion::Busy;
        if is_busy { self.busy_memory_utilization_min } else { self.memory_utilization_min }
    }
}

impl CompactionPolicy for Greedy {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        self.plan_by(view, SegmentStats::disk_utilization)
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
#[derive(Clone, Copy, Debug, Default)]
pub struct CostBenefit {
    /// The shares that shall be live, and the most victims.
    pub targets: Greedy,
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

impl CompactionPolicy for CostBenefit {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        self.targets.plan_by(view, Self::rank)
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

/// The least that a compaction of an image in an idle store frees, bytes: two pages of most
/// systems, since images have whole pages.
const FREED_MIN: u64 = 8 << 10;

/// If too little of all images is live: the images with the least live share. While changes come,
/// each frees at least a sixteenth of a full segment, or half of a small image: the rest dies soon,
/// too. Otherwise each frees at least a 32nd of itself.
fn in_memory(view: &CompactionView<'_>, targets: &Greedy) -> Option<CompactionPlan> {
    let resident = || view.segments.iter().filter(|segment| segment.memory_bytes > 0);
    let excess = excess(
        resident().map(SegmentStats::survivor_bytes).sum(),
        resident().map(|segment| segment.memory_bytes).sum(),
        targets.memory_utilization_min(view),
    );
    if excess == 0 {
        return None;
    }
    let freed = |segment: &SegmentStats| segment.memory_bytes.saturating_sub(segment.survivor_bytes());
    let least = |segment: &SegmentStats| match view.occasion {
        Occasion::Busy => (view.segment_bytes / 16).min(segment.memory_bytes / 2).max(1),
        _ => (segment.memory_bytes / 32).max(FREED_MIN.min(view.segment_bytes / 16)),
    };
    let candidates = resident().filter(|segment| freed(segment) >= least(segment)).collect();
    plan(
        CompactionLevel::Memory,
        &best(candidates, SegmentStats::memory_utilization, freed, excess, targets.victims_max),
    )
}

/// The most segments without a live record that stay while changes come.
const EMPTY_MAX: usize = 32;

/// The first of these choices that names a segment. The first two need more dead records than the
/// slack.
///
/// 1. Segments without a live record. Many of them go in any case: they cost no copy.
/// 2. If too little of the disk is live, the smallest by `rank` with dead records.
/// 3. Small segments to merge.
///
/// Tombstones count as dead. They become useless once the dead puts that they hide are dropped, and
/// many tombstones are a reason to do that.
fn on_disk(
    view: &CompactionView<'_>,
    targets: &Greedy,
    rank: impl Fn(&SegmentStats) -> f64,
) -> Option<CompactionPlan> {
    let live: u64 = view.segments.iter().map(|segment| segment.live_bytes).sum();
    let disk: u64 = view.segments.iter().map(|segment| segment.disk_bytes).sum();
    let utilization_min = targets.disk_utilization_min(view);
    let is_worthwhile = disk.saturating_sub(live) > targets.disk_slack(view);
    let is_empty = |segment: &&SegmentStats| utilization_min > 0.0 && segment.survivor_bytes() == 0;
    let empty: Vec<&SegmentStats> = view.segments.iter().filter(is_empty).collect();
    let are_many = empty.len() >= EMPTY_MAX;
    if !empty.is_empty() && (is_worthwhile || are_many || is_reached(view.disk)) {
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
    let mut victims = best(candidates, rank, |segment| segment.dead_bytes, missing, targets.victims_max);
    if victims.is_empty() {
        victims = mergeable(view, view.output_bytes, targets.victims_max);
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
mod tests;
