use kv_core::{
    AfterLogBytes, CheckpointPolicy, CompactionPolicy, Error, Greedy, KeepNothing, Limits, OpenOptions,
    PersistencePolicy, Result, RetentionPolicy, Scale,
};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::segments::Via;

/// Settings of a [`LogEngine`](crate::LogEngine): plain data, checked at open.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent settings, each set by its own name")]
pub struct Options {
    /// Create the store when its directory is missing or empty. Default true.
    pub create_if_missing: bool,
    /// Open the store for reading only. The engine replays the log in memory and changes nothing on
    /// the disk, so the medium may be read-only. Other readers may have the store open, but no
    /// writer. Default false.
    pub read_only: bool,
    /// When the log is dumped to disk. Default [`kv_core::default_persistence`]: every 100 ms or
    /// 8 MiB.
    pub persistence: Arc<dyn PersistencePolicy>,
    /// Which segments are compacted. Default [`Greedy::default`].
    pub compaction: Arc<dyn CompactionPolicy>,
    /// How far back past states are kept: see [`kv_core::PointInTime`]. Each compaction on disk
    /// then leaves the files of its victims, until their states expire. A store keeps at most 8,192
    /// of these files: beyond that it gives up the oldest states, also those of points. Default
    /// [`KeepNothing`](kv_core::KeepNothing).
    pub retention: Arc<dyn RetentionPolicy>,
    /// When checkpoints are written. An open loads the newest one, and replays only the log behind
    /// it. Default [`AfterLogBytes::default`]: after 64 MiB of log, and after at least eight times
    /// the bytes of a checkpoint. A checkpoint has about 8 bytes a key. An orderly close writes
    /// one, too. A store with less than 1 MiB in sealed segments gets one only on request.
    pub checkpoint: Arc<dyn CheckpointPolicy>,
    /// Whether an open from a checkpoint waits until the records are in memory. Otherwise it
    /// answers at once, readers read from the files, and background threads bring the records into
    /// memory. Default false.
    pub warm_up: bool,
    /// Longest key, value and batch. Default [`Limits::default`]. kv-log stores a batch in one
    /// segment, so `batch_bytes_max` is at most 133,169,152 (127 MiB). A put at its limits has to
    /// fit a batch, so `value_len_max` is at most 133,169,152 less `key_len_max` and
    /// [`Limits::CHANGE_OVERHEAD`].
    pub limits: Limits,
    /// Size of the largest segment in memory and on disk, bytes: a multiple of 8, from 1 KiB to 64
    /// MiB. Default 16 MiB. Larger segments mean fewer files, fewer syncs at roll-over, and coarser
    /// compaction. The segments of a small store are smaller. A larger batch gets a segment of its
    /// own size. A store has at most 7,936 segments, so this bounds the bytes of its files: 124 GiB
    /// by default.
    pub segment_bytes: usize,
    /// Bytes of changes that may be unwritten. Above it, writers wait for a flush. Default 64 MiB.
    pub unflushed_bytes_max: u64,
    /// Memory that may hold no live record, as a share of the live keys and values: dead records,
    /// free space in segments, and images that wait for readers or for reuse. The ceiling is this
    /// share and `slack_bytes` together. Where it is reached, writers wait until a segment was
    /// flushed and compacted in memory. A large batch, a slow reader or a slow disk can exceed it;
    /// `Stats::slack_excesses` counts how often. Default 0.3.
    pub slack_share: f64,
    /// The constant part of that ceiling, bytes. A small store uses smaller segments, so that
    /// several fit. At least 16 KiB. Default 12 MiB.
    pub slack_bytes: u64,
    /// Memory for records and the index, bytes. Above it, the oldest segments leave memory, and
    /// readers read their records from the files. The index always stays in memory, at 9 to 15
    /// bytes a key. If the system has no memory for a larger index, a put of a new key is refused
    /// with an I/O error of the kind `OutOfMemory`, and the store goes on. The least budget is
    /// `unflushed_bytes_max` and five segments: see
    /// [`with_memory_budget`](Self::with_memory_budget). Default none: everything stays in memory.
    pub memory_budget: Option<u64>,
    /// Whether a write that is synced at once bypasses the page cache, on systems with direct I/O.
    /// This takes a fraction of the time and memory, and leaves the cache to other programs. A
    /// later recovery then reads from the disk. With a memory budget, all writes go through the
    /// cache, because readers read the files. Default true.
    pub direct_io: bool,
    /// The most open files of durable segments. The engine opens other files when it reads them.
    /// The files of other segments stay open in addition: of the active one and its spares, of
    /// those that are sealed and not durable yet, and of the victims of a compaction. With the
    /// default policy these are about ten, and under `Manual` several times as many. At least 1.
    /// Default 256: many systems allow a process 1,024 open files.
    pub open_files_max: usize,
    /// Whether changes survive the death of the process from the moment their calls return. Default
    /// [`ProcessSafe::Auto`].
    pub process_safe: ProcessSafe,
    /// A callback for the progress of recovery. Default none.
    pub on_recovery: Option<OnRecovery>,
    /// Shards of the index: a power of two up to 65,536. Default 256. Each has its own lock.
    pub index_shards: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            create_if_missing: true,
            read_only: false,
            persistence: Arc::new(kv_core::default_persistence()),
            compaction: Arc::new(Greedy::default()),
            retention: Arc::new(KeepNothing),
            checkpoint: Arc::new(AfterLogBytes::default()),
            warm_up: false,
            limits: Limits::default(),
            segment_bytes: 16 << 20,
            unflushed_bytes_max: 64 << 20,
            slack_share: 0.3,
            slack_bytes: 12 << 20,
            memory_budget: None,
            direct_io: true,
            open_files_max: 256,
            process_safe: ProcessSafe::Auto,
            on_recovery: None,
            index_shards: 256,
        }
    }
}

/// Whether the engine keeps the changes that it has not dumped in shared memory, which outlives the
/// process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessSafe {
    /// Where the system has shared memory, and room in it. Elsewhere changes go to ordinary memory,
    /// and `Stats::process_safety` says why.
    #[default]
    Auto,
    /// Always. An open, or a change that needs a new segment, is refused with
    /// [`Error::NotProcessSafe`] while there is no shared memory for it.
    Required,
    /// Never. Changes that a dead process left in shared memory are recovered nevertheless.
    Off,
}

/// The progress of recovery. `bytes_left` never grows, and the other figures never decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryProgress {
    /// Segment files replayed.
    pub files: u64,
    /// Segment files in total.
    pub files_total: u64,
    /// Bytes replayed.
    pub bytes: u64,
    /// Puts and deletes replayed.
    pub records: u64,
    /// An estimate of the bytes that are still to be replayed, 0 after the last file: those that
    /// the manifest knows to be durable.
    pub bytes_left: u64,
}

/// A callback for recovery. A recovering thread calls it after each file, one thread at a time. It
/// must not open the same store.
///
/// ```
/// use kv_log::{LogEngine, OnRecovery, Options};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let told = OnRecovery::new(|progress| eprintln!("{} of {} files", progress.files, progress.files_total));
/// let store = LogEngine::open(dir.path(), Options { on_recovery: Some(told), ..Options::default() })?;
/// # drop(store);
/// # Ok::<(), kv_core::Error>(())
/// ```
#[derive(Clone)]
pub struct OnRecovery(Arc<dyn Fn(RecoveryProgress) + Send + Sync>);

impl OnRecovery {
    /// Calls `call`. If `call` panics, opening the store panics.
    pub fn new(call: impl Fn(RecoveryProgress) + Send + Sync + 'static) -> Self {
        OnRecovery(Arc::new(call))
    }

    pub(crate) fn call(&self, progress: RecoveryProgress) {
        (self.0)(progress);
    }
}

impl fmt::Debug for OnRecovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnRecovery").finish_non_exhaustive()
    }
}

/// Largest batch that fits a segment, bytes as [`Limits::batch_bytes_max`] counts them: 127 MiB.
pub(crate) const BATCH_BYTES_MAX: usize = 127 << 20;

/// The smallest and the largest segment, bytes.
const SEGMENT_BYTES: RangeInclusive<usize> = 1024..=64 << 20;

/// Segments that a memory budget must have room for, in addition to the unflushed bytes: the active
/// one, its spare, a recycled image, and one that compaction reads and one that it writes.
const SEGMENTS_IN_BUDGET_MIN: u64 = 5;

/// Size of a small segment, bytes.
const SMALL_SEGMENT_BYTES: usize = 32 << 10;

/// The constant part of the ceiling has room for this many of the smallest segments.
const LEAST_SEGMENTS_IN_SLACK: u64 = 64;

/// The least `slack_bytes`: sixteen segments of the smallest size.
const SLACK_BYTES_MIN: u64 = 16 << 10;

impl From<&OpenOptions> for Options {
    fn from(open: &OpenOptions) -> Self {
        let options = Options {
            create_if_missing: open.create_if_missing,
            read_only: open.read_only,
            persistence: Arc::clone(&open.persistence),
            retention: Arc::clone(&open.retention),
            limits: open.limits,
            ..Options::default()
        };
        match open.scale {
            Scale::Normal => options,
            Scale::Tiny => Options {
                segment_bytes: 2048,
                unflushed_bytes_max: 4096,
                index_shards: 4,
                checkpoint: Arc::new(AfterLogBytes { least: 8 << 10, per_checkpoint_byte: 4 }),
                // With these targets, few records provoke both levels of compaction.
                compaction: Arc::new(Greedy {
                    disk_utilization_min: 0.17,
                    disk_slack_segments: 0,
                    idle_disk_utilization_min: 0.17,
                    memory_utilization_min: 0.95,
                    busy_memory_utilization_min: 0.95,
                    ..Greedy::default()
                }),
                ..options
            },
        }
    }
}

impl Options {
    /// Sets the [`memory_budget`](Self::memory_budget). Lowers `segment_bytes` to at most a
    /// sixteenth of it, and `unflushed_bytes_max` to at most a quarter.
    #[must_use]
    pub fn with_memory_budget(mut self, bytes: u64) -> Self {
        let share = usize::try_from(bytes / 16).unwrap_or(usize::MAX) / 8 * 8;
        self.segment_bytes = self.segment_bytes.min(share).max(*SEGMENT_BYTES.start());
        self.unflushed_bytes_max = self.unflushed_bytes_max.min(bytes / 4);
        self.memory_budget = Some(bytes);
        self
    }

    /// Lowers the memory budget, if there is one, to the least that the other options allow.
    pub(crate) fn with_least_memory_budget(mut self) -> Self {
        let least = self.memory_budget_min();
        self.memory_budget = self.memory_budget.map(|budget| budget.min(least));
        self
    }

    /// The least memory budget.
    fn memory_budget_min(&self) -> u64 {
        self.unflushed_bytes_max.saturating_add(SEGMENTS_IN_BUDGET_MIN * self.segment_bytes as u64)
    }

    /// Bytes of images and index above which the evictor evicts. The rest of the budget is for the
    /// images that compaction loads and writes, and for recycled images.
    pub(crate) fn resident_bytes_max(&self) -> Option<u64> {
        let recycled = (Self::RECYCLED_IMAGES_MAX * self.segment_bytes) as u64;
        Some(self.memory_budget?.saturating_sub(2 * self.loaded_bytes_max() + recycled))
    }

    /// Bytes of cold segments that compaction loads at a time.
    pub(crate) fn loaded_bytes_max(&self) -> u64 {
        self.memory_budget.map_or(u64::MAX, |budget| (budget / 16).max(self.segment_bytes as u64))
    }

    /// The most images of freed segments that are kept for new segments.
    pub(crate) const RECYCLED_IMAGES_MAX: usize = 1;

    /// The ceiling of a store with these bytes of keys and values, bytes.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share, which is not negative"
    )]
    pub(crate) fn slack_ceiling(&self, live_bytes: u64) -> u64 {
        self.slack_bytes.saturating_add((live_bytes as f64 * self.slack_share) as u64)
    }

    /// The largest size up to `wanted` that a segment may have, bytes. There are few sizes, so that
    /// images can be recycled: two and three times the powers of two.
    pub(crate) fn fitted_segment_bytes(&self, wanted: u64) -> usize {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let half = 1 << wanted.max(2).ilog2().saturating_sub(1);
        let fitted = if wanted / half >= 3 { 3 * half } else { 2 * half };
        fitted.max(self.least_segment_bytes()).min(self.segment_bytes)
    }

    /// Size of the smallest segment, bytes: 32 KiB, or less with a low ceiling.
    pub(crate) fn least_segment_bytes(&self) -> usize {
        let share = usize::try_from(self.slack_bytes / LEAST_SEGMENTS_IN_SLACK).unwrap_or(usize::MAX);
        let share = 1 << share.max(1).ilog2();
        share.clamp(*SEGMENT_BYTES.start(), SMALL_SEGMENT_BYTES).min(self.segment_bytes)
    }

    /// The most spares.
    pub(crate) fn spares_max(&self) -> usize {
        if self.memory_budget.is_none() { 6 } else { 1 }
    }

    /// How the engine writes bytes that it syncs at once.
    pub(crate) fn via(&self) -> Via {
        if self.direct_io && self.memory_budget.is_none() { Via::Direct } else { Via::Cache }
    }

    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the setting, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.limits.validate()?;
        let refuse = |text: String| Err(Error::InvalidArgument(text));
        if !SEGMENT_BYTES.contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(8) {
            return refuse(format!(
                "segment_bytes is {}, it must be a multiple of 8 from 1,024 to 67,108,864",
                self.segment_bytes
            ));
        }
        if self.limits.batch_bytes_max > BATCH_BYTES_MAX {
            return refuse(format!(
                "batch_bytes_max is {}, it must be at most {BATCH_BYTES_MAX}: kv-log stores a batch in one segment",
                self.limits.batch_bytes_max
            ));
        }
        if self.unflushed_bytes_max == 0 {
            return refuse(
                "unflushed_bytes_max is 0, it must be at least 1: no change could ever be made".to_owned(),
            );
        }
        if !self.slack_share.is_finite() || self.slack_share < 0.0 {
            return refuse(format!("slack_share is {}, it must be a number from 0.0 up", self.slack_share));
        }
        if self.slack_bytes < SLACK_BYTES_MIN {
            return refuse(format!(
                "slack_bytes is {}, it must be at least {SLACK_BYTES_MIN}: segments have to fit that are filled, flushed \
                 and compacted",
                self.slack_bytes
            ));
        }
        if self.open_files_max == 0 {
            return refuse(
                "open_files_max is 0, it must be at least 1: no segment could ever be read".to_owned(),
            );
        }
        let least = self.memory_budget_min();
        if let Some(budget) = self.memory_budget.filter(|budget| *budget < least) {
            return refuse(format!(
                "memory_budget is {budget}, it must be at least {least}: unflushed_bytes_max and {SEGMENTS_IN_BUDGET_MIN} \
                 times segment_bytes; lower those, for example by Options::with_memory_budget"
            ));
        }
        if !self.index_shards.is_power_of_two() || self.index_shards > 1 << 16 {
            return refuse(format!(
                "index_shards is {}, it must be a power of two up to 65,536",
                self.index_shards
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_defaults_are_the_real_ones() {
        let options = Options::default();
        options.validate().unwrap();
        assert_eq!(options.segment_bytes, 16 * 1024 * 1024);
        assert_eq!(options.unflushed_bytes_max, 64 * 1024 * 1024);
        assert_eq!((options.memory_budget, options.index_shards, options.open_files_max), (None, 256, 256));
        assert!(options.create_if_missing && options.direct_io && options.on_recovery.is_none());
        assert!(!options.read_only && !options.warm_up && options.process_safe == ProcessSafe::Auto);
        let checkpoint = AfterLogBytes { least: 64 << 20, per_checkpoint_byte: 8 };
        assert_eq!(format!("{:?}", options.checkpoint), format!("{checkpoint:?}"));
        Options::from(&OpenOptions { scale: Scale::Tiny, ..OpenOptions::default() }).validate().unwrap();
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let refused = |options: Options, name: &str| {
            let error = options.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        };
        let base = Options::default;
        refused(Options { segment_bytes: 1016, ..base() }, "segment_bytes");
        refused(Options { segment_bytes: 4097, ..base() }, "segment_bytes");
        refused(Options { segment_bytes: 128 << 20, ..base() }, "segment_bytes");
        refused(Options { unflushed_bytes_max: 0, ..base() }, "unflushed_bytes_max");
        refused(Options { open_files_max: 0, ..base() }, "open_files_max");
        refused(Options { slack_share: -0.1, ..base() }, "slack_share");
        refused(Options { slack_share: f64::NAN, ..base() }, "slack_share");
        refused(Options { slack_bytes: (16 << 10) - 1, ..base() }, "at least 16384");
        Options { slack_share: 0.0, slack_bytes: 16 << 10, ..base() }.validate().unwrap();
        refused(Options { memory_budget: Some((144 << 20) - 1), ..base() }, "memory_budget");
        refused(base().with_memory_budget(1000), "memory_budget");
        refused(Options { index_shards: 0, ..base() }, "index_shards");
        refused(Options { index_shards: 3, ..base() }, "index_shards");
        let limits = |batch_bytes_max| Limits { batch_bytes_max, ..Limits::default() };
        refused(Options { limits: limits(133_169_153), ..base() }, "at most 133169152");
        Options { limits: limits(133_169_152), ..base() }.validate().unwrap();
        let value_len_max = 133_169_152 - 64 - Limits::CHANGE_OVERHEAD;
        let largest = |value_len_max| Limits { value_len_max, ..limits(133_169_152) };
        Options { limits: largest(value_len_max), ..base() }.validate().unwrap();
        refused(Options { limits: largest(value_len_max + 1), ..base() }, "batch_bytes_max");
    }

    #[test]
    fn segments_have_few_sizes_from_the_smallest_to_the_largest() {
        let options = Options::default();
        for (wanted, fitted) in
            [(0, 32 << 10), ((64 << 10) - 1, 48 << 10), (64 << 10, 64 << 10), (u64::MAX, 16 << 20)]
        {
            assert_eq!(options.fitted_segment_bytes(wanted), fitted, "{wanted}");
        }
        let low = Options { slack_bytes: 100 << 10, segment_bytes: 5000, ..Options::default() };
        assert_eq!((low.least_segment_bytes(), low.fitted_segment_bytes(4096)), (1024, 4096));
        assert_eq!(low.fitted_segment_bytes(1 << 20), 5000);
    }

    #[test]
    fn the_ceiling_is_a_share_and_a_constant() {
        let options = Options { slack_share: 0.5, slack_bytes: 16 << 10, ..Options::default() };
        assert_eq!((options.slack_ceiling(0), options.slack_ceiling(1001)), (16 << 10, (16 << 10) + 500));
        assert_eq!(Options { slack_bytes: u64::MAX, ..options }.slack_ceiling(1 << 40), u64::MAX);
    }

    #[test]
    fn a_memory_budget_can_be_had_with_all_that_goes_with_it() {
        for budget in [8 << 10, 1 << 20, (100 << 20) + 12_345, 10 << 30] {
            let options = Options::default().with_memory_budget(budget);
            options.validate().unwrap();
            assert_eq!(options.memory_budget, Some(budget));
        }
        let roomy = Options::default().with_memory_budget(10 << 30);
        assert_eq!((roomy.segment_bytes, roomy.unflushed_bytes_max), (16 << 20, 64 << 20));
        let tight = Options::default().with_memory_budget(32 << 20);
        assert_eq!((tight.segment_bytes, tight.unflushed_bytes_max), (2 << 20, 8 << 20));
    }
}
