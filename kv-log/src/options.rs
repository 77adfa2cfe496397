use kv_core::{CompactionPolicy, Error, Greedy, Limits, OpenOptions, PersistencePolicy, Result, Scale};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::segments::Via;

/// Settings of a [`LogEngine`](crate::LogEngine): plain data, checked at open.
#[derive(Clone, Debug)]
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
    /// Longest key, value and batch. Default [`Limits::default`]. kv-log stores a batch in one
    /// segment, so `batch_bytes_max` is at most 133,169,152 (127 MiB). A put at its limits has to
    /// fit a batch, so `value_len_max` is at most 133,169,152 less `key_len_max` and
    /// [`Limits::CHANGE_OVERHEAD`].
    pub limits: Limits,
    /// Size of a segment in memory and on disk, bytes: a multiple of 8, from 1 KiB to 64 MiB.
    /// Default 16 MiB. Larger segments mean fewer files, fewer syncs at roll-over, and coarser
    /// compaction. A larger batch gets a segment of its own size.
    pub segment_bytes: usize,
    /// Bytes of changes that may be unwritten. Above it, writers wait for a flush. Default 64 MiB.
    pub unflushed_bytes_max: u64,
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
    /// The most segment files that are open at a time, in addition to up to eight that are still
    /// written. The engine opens other files when it reads them. At least 1. Default 256: many
    /// systems allow a process 1,024 open files.
    pub open_files_max: usize,
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
            limits: Limits::default(),
            segment_bytes: 16 << 20,
            unflushed_bytes_max: 64 << 20,
            memory_budget: None,
            direct_io: true,
            open_files_max: 256,
            on_recovery: None,
            index_shards: 256,
        }
    }
}

/// The progress of recovery. Figures never decrease.
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

impl From<&OpenOptions> for Options {
    fn from(open: &OpenOptions) -> Self {
        let options = Options {
            create_if_missing: open.create_if_missing,
            read_only: open.read_only,
            persistence: Arc::clone(&open.persistence),
            limits: open.limits,
            ..Options::default()
        };
        match open.scale {
            Scale::Normal => options,
            Scale::Tiny => Options {
                segment_bytes: 2048,
                unflushed_bytes_max: 4096,
                index_shards: 4,
                // With these targets, few records provoke both levels of compaction.
                compaction: Arc::new(Greedy {
                    disk_utilization_min: 0.17,
                    memory_utilization_min: 0.95,
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
        let recycled = (self.recycled_images_max() * self.segment_bytes) as u64;
        Some(self.memory_budget?.saturating_sub(2 * self.loaded_bytes_max() + recycled))
    }

    /// Bytes of cold segments that compaction loads at a time.
    pub(crate) fn loaded_bytes_max(&self) -> u64 {
        self.memory_budget.map_or(u64::MAX, |budget| (budget / 16).max(self.segment_bytes as u64))
    }

    /// Images of freed segments that are kept for new segments: as many as a compaction has victims
    /// by default, or one with a memory budget.
    pub(crate) fn recycled_images_max(&self) -> usize {
        if self.memory_budget.is_none() { 8 } else { 1 }
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
        assert!(!options.read_only);
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
