use kv_core::{CompactionPolicy, Error, Greedy, Limits, OpenOptions, PersistencePolicy, Result, Scale};
use kv_wal_format::{RECORD_HEADER_LEN, SEGMENT_HEADER_LEN};
use std::sync::Arc;

use crate::segment::SEGMENT_BYTES_MAX;

/// Settings of a [`LogEngine`](crate::LogEngine): plain data, checked at open.
#[derive(Clone, Debug)]
pub struct Options {
    /// Create the store when its directory is missing or empty. Default true.
    pub create_if_missing: bool,
    /// When the log is dumped to disk. Default [`kv_core::default_persistence`]: every 100 ms or
    /// 8 MiB.
    pub persistence: Arc<dyn PersistencePolicy>,
    /// Which segments are compacted. Default [`Greedy::default`].
    pub compaction: Arc<dyn CompactionPolicy>,
    /// Longest key, value and batch. Default [`Limits::default`].
    pub limits: Limits,
    /// Size of a segment, in memory and on disk, bytes; a multiple of 8, from 1 KiB to 64 MiB. Default
    /// 16 MiB. Larger segments mean fewer files and syncs at roll-over, and coarser compaction. A
    /// batch that is larger gets a segment of its own size.
    pub segment_bytes: usize,
    /// Bytes of changes that may wait to be written; beyond, writers wait. Default 64 MiB.
    pub unflushed_bytes_max: u64,
    /// Shards of the index; a power of two up to 65,536. Default 256. Each has its own lock.
    pub index_shards: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            create_if_missing: true,
            persistence: Arc::new(kv_core::default_persistence()),
            compaction: Arc::new(Greedy::default()),
            limits: Limits::default(),
            segment_bytes: 16 << 20,
            unflushed_bytes_max: 64 << 20,
            index_shards: 256,
        }
    }
}

impl From<&OpenOptions> for Options {
    fn from(open: &OpenOptions) -> Self {
        let options = Options {
            create_if_missing: open.create_if_missing,
            persistence: Arc::clone(&open.persistence),
            limits: open.limits,
            ..Options::default()
        };
        match open.scale {
            Scale::Normal => options,
            Scale::Tiny => {
                Options { segment_bytes: 2048, unflushed_bytes_max: 4096, index_shards: 4, ..options }
            }
        }
    }
}

impl Options {
    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the setting, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.limits.validate()?;
        let refuse = |text: String| Err(Error::InvalidArgument(text));
        if !(1024..=64 << 20).contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(8) {
            return refuse(format!(
                "segment_bytes is {}, it must be a multiple of 8 from 1,024 to 67,108,864",
                self.segment_bytes
            ));
        }
        // The worst batch: every byte of its budget spent on one-byte keys would be larger still, so
        // the head room is checked again for the batch at hand.
        if self.limits.batch_bytes_max + RECORD_HEADER_LEN + SEGMENT_HEADER_LEN > SEGMENT_BYTES_MAX / 2 {
            return refuse(format!(
                "batch_bytes_max is {}, kv-log holds batches of at most {} bytes",
                self.limits.batch_bytes_max,
                SEGMENT_BYTES_MAX / 2 - RECORD_HEADER_LEN - SEGMENT_HEADER_LEN
            ));
        }
        if self.unflushed_bytes_max == 0 {
            return refuse("unflushed_bytes_max is 0, no change could ever be made".to_owned());
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
        assert_eq!(options.index_shards, 256);
        assert!(options.create_if_missing);
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
        refused(Options { index_shards: 0, ..base() }, "index_shards");
        refused(Options { index_shards: 3, ..base() }, "index_shards");
        let limits = Limits { batch_bytes_max: 64 << 20, ..Limits::default() };
        refused(Options { limits, ..base() }, "batch_bytes_max");
    }
}
