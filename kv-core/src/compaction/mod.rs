//! Which segments are compacted, and at which level. A policy decides, the engine executes.

mod policies;

pub use policies::{CostBenefit, Greedy, MANY_SEGMENTS, MERGED_SEGMENT_BYTES};

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
    /// The longest output of a compaction on disk, bytes, unless there are [many
    /// segments](MANY_SEGMENTS). A merge of segments that are hardly shorter would make as many
    /// again.
    pub output_bytes: u64,
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
