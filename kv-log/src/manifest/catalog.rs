//! The catalog: the segments of the store, in memory and in the manifest.

use kv_core::fs::DirExt;
use kv_core::parts::{Progress, StoreLock};
use kv_core::{Error, Lsn, Result, SegmentId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::archive::Archive;
use super::content::Manifest;
use super::leftovers::{Leftovers, Which};
use super::maker::SegmentMaker;
use super::reserve::{Room, Shares};
use crate::context::Context;
use crate::directory;
use crate::segments::Segment;
use crate::tail::Unwritten;

/// Names the segments of a store, creates them, and replaces them.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(super) context: Arc<Context>,
    lock: Arc<StoreLock>,
    pub(super) progress: Arc<Progress>,
    pub(super) maker: SegmentMaker,
    pub(super) room: Arc<Room>,
    /// Files that the next manifest does not name. They are removed once it is stored.
    pub(super) leftovers: Arc<Leftovers>,
    /// Guards the manifest's file, too. Taken before `segments`.
    pub(super) stored: Mutex<Stored>,
    pub(super) archived: ArchiveFigures,
    /// Whether the disk is full, so that the window goes if its policy says so.
    pub(super) is_disk_full: AtomicBool,
    /// The segments that the manifest names.
    pub(super) segments: Mutex<BTreeMap<SegmentId, Arc<Segment>>>,
    /// The bytes that the files lack, if the store is open for reading only.
    pub(super) unwritten: Arc<Unwritten>,
}

/// The manifest as it was stored last, and the ids that it reserved.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) manifest: Manifest,
    /// Id of the next segment. At most the first id that the manifest does not reserve.
    next_id: SegmentId,
    /// Ids of files of other owners.
    foreign_ids: BTreeSet<SegmentId>,
    /// Bytes of the checkpoint that the manifest names.
    pub(super) checkpoint_bytes: u64,
    /// Whether no manifest of this opening may follow: it would name spares whose files are gone.
    pub(super) is_closed: bool,
}

/// Files with segment names that the manifest does not name.
#[derive(Debug, Default)]
pub(crate) struct Unnamed {
    /// Orphans of this store, which a crash left.
    pub(crate) orphans: Vec<SegmentId>,
    /// Files of other owners.
    pub(crate) foreign: BTreeSet<SegmentId>,
    /// Checkpoints of this store.
    pub(crate) checkpoints: Vec<SegmentId>,
}

impl Catalog {
    /// Of a store that was recovered from `manifest` with these `segments`. If it is open for
    /// reading only, their files lack the bytes in `unwritten`.
    pub(crate) fn new(
        context: Arc<Context>,
        lock: Arc<StoreLock>,
        progress: Arc<Progress>,
        maker: SegmentMaker,
        manifest: Manifest,
        segments: BTreeMap<SegmentId, Arc<Segment>>,
        unwritten: Unwritten,
    ) -> Self {
        let next_id = manifest.ids_end;
        let stored = Mutex::new(Stored {
            manifest,
            next_id,
            foreign_ids: BTreeSet::new(),
            checkpoint_bytes: 0,
            is_closed: false,
        });
        let segments = Mutex::new(segments);
        let (room, leftovers) = (Arc::clone(&maker.room), Arc::clone(&maker.leftovers));
        let archived = ArchiveFigures::default();
        archived.set(&stored.lock().manifest.archive);
        let is_disk_full = AtomicBool::new(false);
        Catalog {
            context,
            lock,
            progress,
            maker,
            room,
            leftovers,
            stored,
            archived,
            is_disk_full,
            segments,
            unwritten: Arc::new(unwritten),
        }
    }

    /// All segments, in the order of their ids.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.lock().values().cloned().collect()
    }

    /// The sum of a figure of all segments.
    pub(crate) fn sum(&self, figure: impl Fn(&Segment) -> u64) -> u64 {
        self.segments.lock().values().map(|segment| figure(segment)).sum()
    }

    /// Whether all sealed segments with lower ids than `newest` are durable.
    pub(crate) fn are_durable_before(&self, newest: SegmentId) -> bool {
        let segments = self.segments.lock();
        segments.range(..newest).all(|(_, segment)| segment.is_durable() || !segment.is_sealed())
    }

    /// Number and bytes of the files that the manifest does not name, and that are still there.
    pub(crate) fn leftovers(&self) -> (u64, u64) {
        self.leftovers.count()
    }

    /// Bytes of the store's files other than segments.
    pub(crate) fn overhead_bytes(&self) -> u64 {
        let stored = self.stored.lock();
        self.room.len() + stored.manifest.encoded_len() as u64 + stored.checkpoint_bytes
    }

    /// Begins the life of an opened store: reserves LSNs above `floor` and segment ids, drops blank
    /// segments, and removes orphans.
    ///
    /// # Errors
    /// The manifest cannot be stored.
    pub(crate) fn begin(&self, unnamed: Unnamed, floor: Lsn) -> Result<()> {
        self.change(|stored| {
            let mut next = stored.manifest.clone();
            stored.foreign_ids = unnamed.foreign;
            // They are removed once the next manifest is durable: a power cut may bring back the
            // manifest before this one, which may name them.
            unnamed.orphans.into_iter().for_each(|id| self.leftovers.add(id, 0));
            unnamed.checkpoints.into_iter().for_each(|id| self.leftovers.add_checkpoint(id, 0));
            let segments = self.segments.lock();
            for id in stored.manifest.segments.keys().filter(|id| !segments.contains_key(id)) {
                next.segments.remove(id);
                self.leftovers.add(*id, 0);
            }
            drop(segments);
            self.store(stored, next, floor)
        })
    }

    /// Carries out `change` with the manifest locked, unless the store is poisoned or closed. A
    /// failure poisons the store before the lock is free: after a failed sync of the directory, a
    /// later one proves nothing about the entries that the first should have covered.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Stored) -> Result<T>) -> Result<T> {
        let mut stored = self.stored.lock();
        // Dropped before the lock is.
        let _poison = self.context.health.poison_on_panic(self.context.path());
        if self.context.health.is_poisoned() {
            return Err(self.context.health.poisoned());
        }
        if stored.is_closed {
            return Err(Error::Closed);
        }
        change(&mut stored).map_err(|error| self.context.poison_unless_refused(error))
    }

    /// An id that no file had when the store was opened. It was reserved by a durable manifest, so
    /// that its file is known to be the store's after a crash.
    pub(super) fn take_id(&self, stored: &mut Stored, last_lsn: Lsn) -> Result<SegmentId> {
        if stored.next_id >= stored.manifest.ids_end {
            let next = stored.manifest.clone();
            self.store(stored, next, last_lsn)?;
        }
        loop {
            let id = stored.next_id;
            stored.next_id = following(id);
            if !stored.foreign_ids.contains(&id) {
                return Ok(id);
            }
        }
    }

    /// Bytes of all segments' files. A file that is not full counts with its capacity.
    pub(crate) fn segment_file_bytes(&self) -> u64 {
        self.sum(|segment| len_of_file(segment) as u64)
    }

    /// The shares of the reserve of a store whose segments' files have `file_bytes` bytes together,
    /// if the next one has `capacity` bytes.
    pub(super) fn shares(&self, file_bytes: u64, capacity: usize) -> Shares {
        let segments = self.segments.lock();
        let largest = segments.values().map(|segment| len_of_file(segment)).max().unwrap_or(0);
        let options = &self.context.options;
        let largest = largest.max(capacity).clamp(options.least_segment_bytes(), options.segment_bytes);
        Shares::new(segments.len(), self.archived.encoded_len.load(Ordering::Relaxed), file_bytes, largest)
    }

    pub(super) fn current_shares(&self) -> Shares {
        self.shares(self.segment_file_bytes(), 0)
    }

    /// Size of a segment with room for enough tombstones to give compaction a gain, bytes.
    pub(crate) fn tombstone_segment_bytes(&self) -> u64 {
        self.current_shares().tombstones()
    }

    /// Holds as much of the disk in reserve as the store's size asks for, if there is room.
    pub(crate) fn hold_reserve(&self) {
        self.room.hold(self.current_shares());
    }

    /// As [`hold_reserve`](Self::hold_reserve), and gives back the rest.
    pub(crate) fn fit_reserve(&self) {
        self.room.fit(self.current_shares());
    }

    /// Gives back the space of a segment if `error` says that the manifest that names it was not
    /// stored. Otherwise the manifest may be stored: the store is then poisoned, and the next
    /// opening decides.
    pub(super) fn discard_unless_named(&self, segment: &Segment, error: &Error) {
        if error.is_refusal() {
            self.discard_segment(segment);
        }
    }

    /// Gives back the space of a segment that no manifest ever named.
    pub(crate) fn discard_segment(&self, segment: &Segment) {
        self.leftovers.discard(segment.id, segment.end());
    }

    /// Stores a manifest if leftovers wait for one.
    pub(crate) fn store_if_leftovers_wait(&self, last_lsn: Lsn) -> Result<()> {
        if !self.leftovers.any_untried() {
            return Ok(());
        }
        self.change(|stored| {
            let next = stored.manifest.clone();
            self.store(stored, next, last_lsn)
        })
    }

    /// Tries again to remove all leftovers.
    pub(crate) fn remove_leftovers(&self) {
        self.leftovers.remove(Which::All);
    }

    /// Adds the file of `segment` to the leftovers. The stored manifest does not name it any more.
    pub(super) fn add_leftover(&self, segment: &Segment) {
        self.leftovers.add(segment.id, segment.file_len() as u64);
    }

    /// Whether `segment` is the one of its id, and not an earlier image of the same file.
    pub(crate) fn is_current(&self, segment: &Arc<Segment>) -> bool {
        self.current(segment.id).is_some_and(|current| Arc::ptr_eq(&current, segment))
    }

    /// The segment of this id.
    pub(crate) fn current(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.segments.lock().get(&id).cloned()
    }

    /// Replaces the segment of the same id by `segment`, which is another image of the same file.
    pub(crate) fn replace_image(&self, segment: &Arc<Segment>) {
        self.segments.lock().insert(segment.id, Arc::clone(segment));
    }

    /// Removes `spares`, which the log will not use. No segment with a higher id holds a record.
    pub(crate) fn remove_spares(&self, spares: &[Arc<Segment>], last_lsn: Lsn) -> Result<()> {
        self.change(|stored| {
            let mut next = stored.manifest.clone();
            for spare in spares {
                next.segments.remove(&spare.id);
            }
            self.store(stored, next, last_lsn)?;
            self.drop_spares(spares);
            Ok(())
        })
    }

    /// Removes the files of `spares`, which the stored manifest does not name any more.
    fn drop_spares(&self, spares: &[Arc<Segment>]) {
        for spare in spares {
            self.segments.lock().remove(&spare.id);
            self.add_leftover(spare);
            // The segment table keeps the segment, and its open file, for its readers.
            spare.file.close();
        }
        self.leftovers.remove(Which::Due);
    }

    /// Stores the last manifest of a store that is closed in order, and removes the files of
    /// `spares`. Everything is durable, and no change has an LSN above `last_lsn`.
    pub(crate) fn close(&self, spares: &[Arc<Segment>], last_lsn: Lsn) -> Result<()> {
        self.change(|stored| {
            stored.is_closed = true;
            let mut closing = stored.manifest.clone();
            for spare in spares {
                closing.segments.remove(&spare.id);
            }
            closing.durable_lsn = self.progress.durable_lsn();
            closing.lsn_ceiling = last_lsn;
            closing.ids_end = stored.next_id;
            self.replace_manifest(&mut closing)?;
            // Only now: the previous manifest names them.
            self.drop_spares(spares);
            let used = self.sum(|segment| segment.file_len() as u64);
            self.room.fit(self.shares(used, 0));
            Ok(())
        })
    }

    /// Waits for a thread that stores a manifest, and lets none begin. For a store that is closed
    /// after a failure, too: another process may store its own manifest soon.
    pub(crate) fn refuse_changes(&self) {
        self.stored.lock().is_closed = true;
    }

    /// Stores `next` in place of the manifest, with the durable lengths, and with ids and LSNs
    /// above `last_lsn` reserved. Then removes the files that it does not name.
    pub(super) fn store(&self, stored: &mut Stored, mut next: Manifest, last_lsn: Lsn) -> Result<()> {
        next.durable_lsn = next.durable_lsn.max(self.progress.durable_lsn());
        next.reserve_lsns(last_lsn);
        next.reserve_ids(stored.next_id);
        self.replace_manifest(&mut next)?;
        stored.manifest = next;
        self.leftovers.remove(Which::Due);
        self.hold_reserve();
        Ok(())
    }

    /// Brings `next` up to date, and writes it in place of the manifest's file. The files that have
    /// expired are leftovers then.
    fn replace_manifest(&self, next: &mut Manifest) -> Result<()> {
        self.refresh(next);
        let expired = self.expire(&mut next.archive);
        self.write_manifest(next)?;
        self.archived.set(&next.archive);
        self.leftovers.add_all(expired);
        Ok(())
    }

    /// Drops from `archive` the segments and the points that have expired. Returns the segments,
    /// with the bytes of their files.
    pub(super) fn expire(&self, archive: &mut Archive) -> Vec<(SegmentId, u64)> {
        let is_disk_full = self.is_disk_full.load(Ordering::Relaxed)
            && archive.segments.keys().any(|id| self.holds_space_alone(*id));
        let now = self.context.env.clock.unix_time_ms();
        archive.expire(&*self.context.options.retention, now, is_disk_full)
    }

    /// Writes the manifest's file, on a full disk with space from the reserve.
    fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let content = manifest.encode();
        self.room.write(content.len(), || {
            self.lock.check()?;
            self.context.dir.write_file_atomically(directory::MANIFEST, &content)
        })
    }

    /// Updates the durable length of each segment in `manifest`.
    fn refresh(&self, manifest: &mut Manifest) {
        let segments = self.segments.lock();
        for (id, entry) in &mut manifest.segments {
            if let Some(segment) = segments.get(id) {
                entry.sealed = segment.is_durable();
                entry.durable_len = segment.synced() as u64;
            }
        }
    }
}

/// Figures of the archive, which are read without the lock of the manifest.
#[derive(Debug, Default)]
pub(super) struct ArchiveFigures {
    pub(super) bytes: AtomicU64,
    encoded_len: AtomicUsize,
}

impl ArchiveFigures {
    fn set(&self, archive: &Archive) {
        self.bytes.store(archive.bytes(), Ordering::Relaxed);
        self.encoded_len.store(archive.encoded_len(), Ordering::Relaxed);
    }
}

/// Bytes of a segment's file. One that is not full counts with its capacity.
fn len_of_file(segment: &Segment) -> usize {
    if segment.is_durable() { segment.file_len() } else { segment.capacity }
}

fn following(id: SegmentId) -> SegmentId {
    SegmentId::new(id.get().saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::manifest::Need;
    use crate::recovery::open;
    use crate::working::Working;
    use kv_core::{Background, Env, ManualClock, Op};
    use kv_tests::sim::{Fault, FaultKind, Repeat, SimFs};
    use std::path::Path;

    /// Another thread may wait for the lock of the manifest meanwhile.
    #[test]
    fn a_failed_sync_of_the_directory_poisons_before_the_lock_is_free() {
        let (disk, clock) = (SimFs::new(), Arc::new(ManualClock::new(0)));
        let env = Env { fs: Arc::new(disk.clone()), clock, background: Background::Inline };
        let options = Options { segment_bytes: 4096, ..Options::default() };
        let store = open(Path::new("/store"), &env, options).unwrap();
        let create = || store.catalog.create_log_segments(1, 4096, Need::Growth, Lsn::ZERO);
        // The sync of the new file succeeds.
        disk.inject(Fault { kind: FaultKind::Sync, nth: 1, repeat: Repeat::Once });
        let failed = create();
        assert!(matches!(failed, Err(Error::Io { op: Op::Sync, .. })), "{failed:?}");
        let before = disk.mutations();
        let mut left = Working::begin(&store.context.counters.promised_bytes);
        let exchange = store.catalog.exchange(&[], &[], Lsn::ZERO, Lsn::ZERO, &mut left);
        for refused in [create().map(drop), exchange] {
            assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
        }
        assert_eq!(disk.mutations(), before);
    }

    /// A pin may wait for the lock of the manifest while another thread closes the store. Its
    /// manifest would name the spares that are gone.
    #[test]
    fn no_manifest_follows_the_last_one() {
        let (disk, clock) = (SimFs::new(), Arc::new(ManualClock::new(0)));
        let env = Env { fs: Arc::new(disk.clone()), clock, background: Background::Inline };
        let store = open(Path::new("/store"), &env, Options::default()).unwrap();
        let spares = store.catalog.create_log_segments(1, 4096, Need::Growth, Lsn::ZERO).unwrap();
        store.catalog.close(&spares, Lsn::ZERO).unwrap();
        let pinned = store.catalog.change_points(Lsn::ZERO, |_| Ok(()));
        assert!(matches!(pinned, Err(Error::Closed)), "{pinned:?}");
        drop(store);
        open(Path::new("/store"), &env, Options::default()).unwrap();
    }
}
