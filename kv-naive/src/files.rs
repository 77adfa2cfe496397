use kv_core::fs::{Dir, DirExt};
use kv_core::parts::{Position, Reserve, StoreLock};
use kv_core::{Clock, Error, Lsn, Op, Point, Result, RetentionPolicy, Stats};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::identity::{self, Identity};
use crate::past::{self, Kept, Leftovers, POINTS, Taken};
use crate::snapshot::{self, Head, SNAPSHOT};
use crate::table::{Cut, Table};

/// The directory of an open store, and all that its files depend on.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) lock: StoreLock,
    /// Space for the next snapshot, and for identities.
    pub(crate) reserve: Reserve,
    /// In the header of each file.
    pub(crate) store_id: u32,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) retention: Arc<dyn RetentionPolicy>,
}

/// The files of an open store, in a directory that it has locked. One thread at a time writes them.
#[derive(Debug)]
pub(crate) struct Files {
    place: Place,
    /// Changes under the lock, and only by the thread that writes.
    kept: Mutex<Kept>,
    leftovers: Mutex<Leftovers>,
    points_bytes: AtomicU64,
    snapshots: AtomicU64,
    syncs: AtomicU64,
    bytes_written: AtomicU64,
}

/// Bytes of the reserve that are for identities only.
const IDENTITY_ROOM: u64 = 16 << 10;

impl Files {
    /// The files of a store with these snapshots, and a list of points of `points_bytes` bytes.
    pub(crate) fn new(place: Place, kept: Kept, leftovers: Leftovers, points_bytes: u64) -> Self {
        let (snapshots, syncs, bytes_written) = Default::default();
        let (kept, leftovers, points_bytes) = (Mutex::new(kept), Mutex::new(leftovers), points_bytes.into());
        Files { place, kept, leftovers, points_bytes, snapshots, syncs, bytes_written }
    }

    pub(crate) fn dir(&self) -> &Arc<dyn Dir> {
        &self.place.dir
    }

    pub(crate) fn store_id(&self) -> u32 {
        self.place.store_id
    }

    /// The snapshots and the points.
    pub(crate) fn kept(&self) -> Kept {
        self.kept.lock().clone()
    }

    /// Whether the old snapshot at `lsn` has not expired.
    pub(crate) fn keeps(&self, lsn: Lsn) -> bool {
        self.kept.lock().old.iter().any(|old| old.lsn == lsn)
    }

    /// The points that have not expired.
    ///
    /// # Errors
    /// The list of points could not be read.
    pub(crate) fn points(&self) -> Result<Vec<Point>> {
        let kept = self.kept();
        if kept.lacks_points {
            past::read_points(&**self.dir(), &self.dir().names()?, self.store_id())?;
            let fault = "it could not be read when the store was opened; open the store again";
            return Err(Error::corruption(&self.dir().path_of(POINTS), 0, fault));
        }
        Ok(kept.points_at(self.now_unix_ms()))
    }

    /// The present, milliseconds since the Unix epoch.
    pub(crate) fn now_unix_ms(&self) -> u64 {
        self.place.clock.unix_time_ms()
    }

    /// Writes the snapshot of an empty store.
    pub(crate) fn create_snapshot(&self, table: &Table) -> Result<()> {
        self.replace_snapshot_by(table.begin_cut())
    }

    /// Replaces the snapshot by the present state of `table`, durably. On a full disk, old
    /// snapshots go first, and then space from the reserve. Calls `before_cut` before each attempt.
    /// Returns the position that the snapshot holds.
    pub(crate) fn replace_snapshot(&self, table: &Table, before_cut: impl Fn()) -> Result<Position> {
        self.with_reserve(|| {
            loop {
                self.place.lock.check()?;
                before_cut();
                let cut = table.begin_cut();
                let position = cut.position;
                match self.replace_snapshot_by(cut) {
                    Err(Error::DiskFull { .. }) if self.give_up_oldest()? => {}
                    answer => return answer.map(|()| position),
                }
            }
        })
    }

    /// Writes the snapshot of an unchanged `table` again, durably. On a full disk old snapshots
    /// stay.
    pub(crate) fn rewrite_snapshot(&self, table: &Table) -> Result<()> {
        self.with_reserve(|| {
            self.place.lock.check()?;
            self.replace_snapshot_by(table.begin_cut())
        })
    }

    /// Writes a snapshot, on a full disk with space from the reserve.
    fn with_reserve<T>(&self, write: impl FnMut() -> Result<T>) -> Result<T> {
        let reserve = &self.place.reserve;
        let for_snapshots = reserve.len().saturating_sub(IDENTITY_ROOM);
        let written = reserve.lend(for_snapshots, IDENTITY_ROOM, write)?;
        self.snapshots.fetch_add(1, Ordering::Relaxed);
        Ok(written)
    }

    /// Replaces the snapshot by `cut`, durably. The table of the module `snapshot` has the steps.
    pub(crate) fn replace_snapshot_by(&self, cut: Cut<'_>) -> Result<()> {
        let Place { dir, lock, store_id, retention, .. } = &self.place;
        let (before, lsn, mut unix_ms) = (self.kept(), cut.position.lsn, self.now_unix_ms());
        let is_new = lsn > before.newest.lsn;
        if !is_new {
            // The same state again. Its changes had been made by the earlier time.
            unix_ms = before.newest.unix_ms;
        }
        let tells = before.may_keep(&**retention, unix_ms);
        let head = Head { store_id: *store_id, lsn, unix_ms: tells.then_some(unix_ms) };
        let bytes = snapshot::write_temporary(&**dir, head, cut)?;
        let (after, mut expired) = before.after(Taken { lsn, unix_ms, bytes }, &**retention);
        if is_new && after.old.last() == Some(&before.newest) {
            past::keep(&**dir, before.newest).inspect_err(|_| {
                let _ = dir.remove_file(snapshot::TEMPORARY);
            })?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        dir.replace_durably(snapshot::TEMPORARY, SNAPSHOT)?;
        // A snapshot in a directory that was removed is not durable.
        lock.check()?;
        self.file_replaced(bytes);
        *self.kept.lock() = after;
        // The previous one has no name of its own, unless it stays.
        expired.retain(|old| old.lsn != before.newest.lsn);
        self.remove(expired)
    }

    /// Removes the oldest snapshots, as many as make room for a new one. `false` when there is none
    /// that may go.
    fn give_up_oldest(&self) -> Result<bool> {
        if !self.place.retention.yields_to_full_disk() {
            return Ok(false);
        }
        let given_up = {
            let mut kept = self.kept.lock();
            let bytes = kept.newest.bytes.max(1);
            kept.give_up(bytes, self.now_unix_ms())
        };
        let is_any = !given_up.is_empty();
        self.remove(given_up)?;
        Ok(is_any)
    }

    /// Removes the snapshots that have expired.
    pub(crate) fn expire(&self) -> Result<()> {
        let expired = self.kept.lock().expire(&*self.place.retention, self.now_unix_ms());
        self.remove(expired)
    }

    /// Removes snapshots that are not kept any more, durably, so that no crash brings one back. If
    /// one cannot be removed, the list of points names it, so that no opening brings it back.
    fn remove(&self, expired: Vec<Taken>) -> Result<()> {
        if self.leftovers.lock().remove(&**self.dir(), expired) {
            self.dir().sync_durably()?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        if self.leftovers.lock().are_listed() {
            return Ok(());
        }
        let points = self.kept().points;
        match self.write_points(&points) {
            // What a sync has not reached may be lost.
            Err(error @ Error::Io { op: Op::Sync, .. }) => Err(error),
            // A directory that forbids removals may forbid this as well. The next removal tries
            // again.
            Err(error) if error.is_refusal() || error.is_permission_denied() => Ok(()),
            written => written,
        }
    }

    /// Replaces the list of points, durably.
    fn write_points(&self, points: &[Point]) -> Result<()> {
        self.place.lock.check()?;
        let expired = self.leftovers.lock().lsns();
        let bytes = past::encode_points(self.store_id(), points, &expired);
        self.place.reserve.write_file_atomically(POINTS, &bytes)?;
        self.place.lock.check()?;
        self.file_replaced(bytes.len() as u64);
        self.points_bytes.store(bytes.len() as u64, Ordering::Relaxed);
        self.leftovers.lock().set_listed(expired);
        Ok(())
    }

    /// Changes the points, durably, and removes the snapshots that expire with that.
    pub(crate) fn change_points<R>(&self, change: impl FnOnce(&mut Kept) -> Result<R>) -> Result<R> {
        let mut kept = self.kept();
        let answer = change(&mut kept)?;
        kept.points = kept.points_at(self.now_unix_ms());
        kept.points.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        self.write_points(&kept.points)?;
        *self.kept.lock() = kept;
        self.expire()?;
        Ok(answer)
    }

    /// Replaces the identity by one with this LSN ceiling, durably.
    pub(crate) fn replace_identity(&self, lsn_ceiling: Lsn) -> Result<()> {
        let Place { lock, reserve, store_id, .. } = &self.place;
        lock.check()?;
        identity::write(reserve, Identity { store_id: *store_id, lsn_ceiling })?;
        self.file_replaced(identity::FILE_LEN);
        Ok(())
    }

    /// Holds space for an identity, and for a snapshot as large as the present one beside that.
    pub(crate) fn hold_reserve(&self) {
        let bytes = self.kept.lock().newest.bytes;
        self.place.reserve.hold(bytes + IDENTITY_ROOM);
    }

    /// Gives the directory back.
    pub(crate) fn release(&self) {
        self.place.lock.release();
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let leftovers = self.leftovers.lock();
        let kept = self.kept.lock();
        stats.leftover_files = leftovers.count();
        stats.past_bytes = kept.past_bytes();
        stats.disk_bytes = kept.newest.bytes
            + kept.past_bytes()
            + leftovers.bytes()
            + read(&self.points_bytes)
            + identity::FILE_LEN
            + self.place.reserve.len();
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
