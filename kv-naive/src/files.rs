use kv_core::fs::Dir;
use kv_core::parts::{Position, Reserve, StoreLock};
use kv_core::{Lsn, Result, Stats};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::identity::{self, Identity};
use crate::snapshot;
use crate::table::Table;

/// The files of an open store, in a directory that it has locked. One thread at a time writes them.
#[derive(Debug)]
pub(crate) struct Files {
    dir: Arc<dyn Dir>,
    lock: StoreLock,
    /// Space for the next snapshot, and for identities.
    reserve: Reserve,
    /// In the header of each file.
    store_id: u32,
    /// Length of the present snapshot, bytes.
    snapshot_bytes: AtomicU64,
    snapshots: AtomicU64,
    syncs: AtomicU64,
    bytes_written: AtomicU64,
}

/// Bytes of the reserve that are for identities only.
const IDENTITY_ROOM: u64 = 16 << 10;

impl Files {
    /// The files of the store with this id, whose snapshot has `snapshot_bytes` bytes.
    pub(crate) fn new(
        dir: Arc<dyn Dir>,
        lock: StoreLock,
        reserve: Reserve,
        store_id: u32,
        snapshot_bytes: u64,
    ) -> Self {
        let snapshot_bytes = snapshot_bytes.into();
        let (snapshots, syncs, bytes_written) = Default::default();
        Files { dir, lock, reserve, store_id, snapshot_bytes, snapshots, syncs, bytes_written }
    }

    pub(crate) fn dir(&self) -> &Arc<dyn Dir> {
        &self.dir
    }

    /// Writes the snapshot of an empty store.
    pub(crate) fn create_snapshot(&self, table: &Table) -> Result<()> {
        let bytes = snapshot::write(&*self.dir, self.store_id, table.begin_cut())?;
        self.snapshot_replaced(bytes);
        Ok(())
    }

    /// Replaces the snapshot by the present state of `table`, durably, on a full disk with space
    /// from the reserve. Calls `before_cut` before each attempt. Returns the position that the
    /// snapshot holds.
    pub(crate) fn replace_snapshot(&self, table: &Table, before_cut: impl Fn()) -> Result<Position> {
        let for_snapshots = self.reserve.len().saturating_sub(IDENTITY_ROOM);
        let (position, bytes) = self.reserve.lend(for_snapshots, IDENTITY_ROOM, || {
            self.lock.check()?;
            before_cut();
            let cut = table.begin_cut();
            let position = cut.position;
            Ok((position, snapshot::write(&*self.dir, self.store_id, cut)?))
        })?;
        // A snapshot in a directory that was removed is not durable.
        self.lock.check()?;
        self.snapshot_replaced(bytes);
        self.snapshots.fetch_add(1, Ordering::Relaxed);
        Ok(position)
    }

    fn snapshot_replaced(&self, bytes: u64) {
        self.file_replaced(bytes);
        self.snapshot_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Replaces the identity by one with this LSN ceiling, durably.
    pub(crate) fn replace_identity(&self, lsn_ceiling: Lsn) -> Result<()> {
        self.lock.check()?;
        identity::write(&self.reserve, Identity { store_id: self.store_id, lsn_ceiling })?;
        self.file_replaced(identity::FILE_LEN);
        Ok(())
    }

    /// Holds space for an identity, and for a snapshot as large as the present one beside that.
    pub(crate) fn hold_reserve(&self) {
        self.reserve.hold(self.snapshot_bytes.load(Ordering::Relaxed) + IDENTITY_ROOM);
    }

    /// Gives the directory back.
    pub(crate) fn release(&self) {
        self.lock.release();
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.disk_bytes = read(&self.snapshot_bytes) + identity::FILE_LEN + self.reserve.len();
        stats.dumps = read(&self.snapshots);
        stats.syncs = read(&self.syncs);
        stats.bytes_written = read(&self.bytes_written);
    }

    /// Counts a file of `bytes` that was replaced: the file and its directory were synced.
    fn file_replaced(&self, bytes: u64) {
        self.syncs.fetch_add(2, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }
}
