//! The reserve: disk space that a store holds so that a full disk has a way out (decision 13).
//! [`Shares`] divides it, and [`Room`] lends it.

use kv_core::fs::Dir;
use kv_core::parts::Reserve;
use kv_core::{Error, Result};
use std::io;
use std::sync::Arc;

use super::content::Manifest;

/// The purpose of a new segment. It decides how much of the reserve the segment may use on a full
/// disk, and whether it may take one of the last slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// New data: nothing of the reserve.
    Growth,
    /// Tombstones, or the seal of the active segment so that it can be compacted: the share for
    /// relief.
    Relief,
    /// Relief after a compaction that gave nothing back, or the active segment of a store that is
    /// opened: all but the share for manifests.
    LastRelief,
    /// Survivors of a compaction: all but the share for manifests.
    Compaction,
}

/// The shares of a reserve, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    manifests: u64,
    /// Bytes of two tombstone segments, each with `tombstones` bytes.
    relief: u64,
    tombstones: u64,
    /// One segment of survivors.
    survivors: u64,
}

/// The share for manifests of an empty store, bytes.
const MANIFESTS_MIN: u64 = 16 << 10;

/// The least bytes of a segment of tombstones, unless a full segment is smaller.
const TOMBSTONES_MIN: u64 = 32 << 10;

impl Shares {
    /// For `segments` segments with files of `file_bytes` bytes together, of which the largest has
    /// `segment_bytes`, and an archive that takes `archive_len` bytes of the manifest.
    pub(super) fn new(segments: usize, archive_len: usize, file_bytes: u64, segment_bytes: usize) -> Self {
        let segment_bytes = segment_bytes as u64;
        let largest = file_bytes.min(segment_bytes);
        let tombstones = TOMBSTONES_MIN.min(segment_bytes).max(file_bytes / 64).max(largest / 16);
        Shares {
            // For one that names twice as many segments.
            manifests: (Manifest::len_max_with(2 * segments) + 2 * archive_len) as u64 + MANIFESTS_MIN,
            relief: 2 * with_metadata(tombstones),
            tombstones,
            survivors: with_metadata(largest),
        }
    }

    fn sum(self) -> u64 {
        self.manifests + self.relief + self.survivors
    }

    /// Bytes of one segment of tombstones.
    pub(super) fn tombstones(self) -> u64 {
        self.tombstones
    }

    /// The bytes that must remain in the reserve when a segment is created. `None`: the segment may
    /// use nothing of it.
    fn left_by(self, need: Need) -> Option<u64> {
        match need {
            Need::Growth => None,
            Need::Relief => Some(self.manifests + self.survivors),
            Need::LastRelief | Need::Compaction => Some(self.manifests),
        }
    }
}

/// The reserve of an open store.
#[derive(Debug)]
pub(crate) struct Room {
    dir: Arc<dyn Dir>,
    reserve: Reserve,
}

impl Room {
    /// In `dir`. A store that is only read has none.
    pub(crate) fn new(dir: &Arc<dyn Dir>, read_only: bool) -> Self {
        let reserve = if read_only { Reserve::none(Arc::clone(dir)) } else { Reserve::open(Arc::clone(dir)) };
        Room { dir: Arc::clone(dir), reserve }
    }

    /// Bytes that the reserve takes on the disk.
    pub(super) fn len(&self) -> u64 {
        self.reserve.len()
    }

    /// Holds these shares, if the disk has room for them.
    pub(super) fn hold(&self, shares: Shares) -> bool {
        self.reserve.hold(shares.sum())
    }

    /// Holds these shares and no more, if the disk has room for them.
    pub(super) fn fit(&self, shares: Shares) {
        self.reserve.give(self.len(), shares.sum());
        self.hold(shares);
    }

    /// Holds these shares before the store grows. A store that could not be emptied again must not
    /// grow.
    ///
    /// # Errors
    /// The disk has no room for the shares.
    pub(super) fn hold_for_growth(&self, shares: Shares) -> Result<()> {
        if self.hold(shares) {
            return Ok(());
        }
        Err(Error::io("hold a reserve in", self.dir.path(), io::ErrorKind::StorageFull.into()))
    }

    /// Carries out `create`, which makes a file of `len` bytes for this need. On a full disk it is
    /// carried out again with space from the reserve, as far as the need allows.
    pub(super) fn create<T>(
        &self,
        len: usize,
        need: Need,
        shares: Shares,
        mut create: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        match shares.left_by(need) {
            None => create(),
            Some(left) => self.reserve.lend(with_metadata(len as u64), left, create),
        }
    }

    /// Carries out a write of `len` bytes. On a full disk it is carried out again with space from
    /// the reserve: some file systems do not keep the space that they reserved, or need a little
    /// more at the write. The second attempt writes the same bytes to the same place, and only a
    /// sync tells that they are on the disk.
    pub(crate) fn write<T>(&self, len: usize, write: impl FnMut() -> Result<T>) -> Result<T> {
        self.reserve.lend(with_metadata(len as u64), 0, write)
    }
}

/// The most bytes that a file of `len` bytes takes up on a disk: a file system also writes down
/// where the file's blocks are.
fn with_metadata(len: u64) -> u64 {
    len + len / 128 + (16 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: usize = 64 << 20;

    #[test]
    fn one_relief_leaves_room_for_another_and_for_a_compaction() {
        for file_bytes in [0, 4 << 10, 1 << 20, 64 << 20, 100 << 30] {
            let shares = Shares::new(7, 0, file_bytes, SEGMENT_BYTES);
            let left = shares.left_by(Need::Relief).unwrap_or(0);
            assert!(shares.sum() - left >= 2 * shares.tombstones());
            let survivors = shares.left_by(Need::Relief).zip(shares.left_by(Need::Compaction));
            let (before, after) = survivors.unwrap_or_default();
            assert!(before - after >= file_bytes.min(SEGMENT_BYTES as u64), "for {file_bytes} bytes");
            assert!(after >= Manifest::len_max_with(14) as u64);
        }
    }

    #[test]
    fn growth_uses_nothing_and_the_last_relief_as_much_as_a_compaction() {
        let shares = Shares::new(1, 0, 1 << 20, SEGMENT_BYTES);
        assert_eq!(shares.left_by(Need::Growth), None);
        assert_eq!(shares.left_by(Need::LastRelief), shares.left_by(Need::Compaction));
    }

    #[test]
    fn the_reserve_of_a_small_store_is_small_and_of_a_large_one_a_segment_and_a_thirty_second() {
        assert!(Shares::new(1, 0, 4 << 10, SEGMENT_BYTES).sum() < 256 << 10);
        let large = 100 << 30;
        let sum = Shares::new(1600, 0, large, SEGMENT_BYTES).sum();
        assert!((large / 32..large / 31).contains(&sum), "{sum} bytes");
    }

    #[test]
    fn small_segments_have_small_tombstone_segments() {
        assert_eq!(Shares::new(1, 0, 4096, 4096).tombstones(), 4096);
    }
}
