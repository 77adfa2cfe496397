//! The catalog: the segments of the store, in memory and in the manifest.

use kv_core::fs::DirExt;
use kv_core::parts::{Progress, StoreLock};
use kv_core::{Error, Lsn, Op, Result, SegmentId};
use kv_wal_format::{Origin, SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::archive::{Archive, Archived};
use super::content::{Entry, Manifest};
use super::leftovers::{Leftovers, Which};
use super::maker::{Plan, SegmentMaker};
use super::reserve::{Need, Room, Shares};
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
    maker: SegmentMaker,
    room: Arc<Room>,
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
        let stored =
            Mutex::new(Stored { manifest, next_id, foreign_ids: BTreeSet::new(), checkpoint_bytes: 0 });
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

    /// Carries out `change` with the manifest locked, unless the store is poisoned. A failure
    /// poisons the store before the lock is free: after a failed sync of the directory, a later one
    /// proves nothing about the entries that the first should have covered.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Stored) -> Result<T>) -> Result<T> {
        let mut stored = self.stored.lock();
        // Dropped before the lock is.
        let _poison = self.context.health.poison_on_panic(self.context.path());
        if self.context.health.is_poisoned() {
            return Err(self.context.health.poisoned());
        }
        change(&mut stored).map_err(|error| self.context.poison_unless_refused(error))
    }

    /// New, blank log segments, in the order in which the log uses them. Their files and their
    /// names in the manifest are durable on return. Several segments share the syncs of the
    /// directory and the manifest.
    ///
    /// After a power cut between any two steps there is: nothing; orphan files; or blank segments
    /// that the manifest names. Opening goes on in the first blank segment if the log has no active
    /// one, and removes the rest.
    pub(crate) fn create_log_segments(
        &self,
        count: usize,
        capacity: usize,
        need: Need,
        last_lsn: Lsn,
    ) -> Result<Vec<Arc<Segment>>> {
        if need == Need::Growth {
            let file_bytes = self.segment_file_bytes() + (count * capacity) as u64;
            self.room.hold_for_growth(self.shares(file_bytes, capacity))?;
        }
        self.change(|stored| {
            let mut next = stored.manifest.clone();
            let mut created: Vec<Arc<Segment>> = Vec::with_capacity(count);
            let files = (0..count).try_for_each(|_| {
                let segment = self.create_log_segment(capacity, need, last_lsn, stored)?;
                let durable_len = SEGMENT_HEADER_LEN as u64;
                let entry = Entry { kind: SegmentKind::Log, sealed: false, durable_len };
                next.segments.insert(segment.id, entry);
                created.push(segment);
                Ok(())
            });
            // The files must be there before the manifest says so.
            // All are written before the first sync, which does most of the work of the others.
            let result = files
                .and_then(|()| created.iter().try_for_each(|segment| self.maker.sync(segment)))
                .and_then(|()| self.context.dir.sync_durably())
                .and_then(|()| self.store(stored, next, last_lsn));
            if let Err(error) = result {
                for segment in &created {
                    self.discard_unless_named(segment, &error);
                    self.maker.return_slot(segment);
                }
                return Err(error);
            }
            let mut segments = self.segments.lock();
            for segment in &created {
                self.maker.install(segment);
                segments.insert(segment.id, Arc::clone(segment));
            }
            Ok(created)
        })
    }

    fn create_log_segment(
        &self,
        capacity: usize,
        need: Need,
        last_lsn: Lsn,
        stored: &mut Stored,
    ) -> Result<Arc<Segment>> {
        let created = self.context.env.clock.monotonic();
        under_free_name(|| {
            let header = SegmentHeader {
                kind: SegmentKind::Log,
                segment_id: self.take_id(stored, last_lsn)?.get(),
                base_lsn: last_lsn.get(),
                store_id: stored.manifest.store_id,
            };
            let plan = Plan { header, capacity, end: SEGMENT_HEADER_LEN, created, need };
            self.maker.make(plan, self.current_shares(), |_| ())
        })
    }

    /// A segment without a file. It stands for the active one of a store that is only read.
    pub(crate) fn placeholder(&self) -> Result<Arc<Segment>> {
        self.maker.placeholder()
    }

    /// The header of a segment that [`exchange`](Self::exchange) will name.
    fn compacted_header(&self, min_lsn: u64, last_lsn: Lsn) -> Result<SegmentHeader> {
        self.change(|stored| {
            let segment_id = self.take_id(stored, last_lsn)?.get();
            let store_id = stored.manifest.store_id;
            Ok(SegmentHeader { kind: SegmentKind::Compacted, segment_id, base_lsn: min_lsn, store_id })
        })
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

    /// Creates the output of a compaction with `len` bytes. `fill_rest` gets the context of the
    /// record headers, and writes the bytes behind the segment header. The oldest record has the
    /// LSN `min_lsn`, and the records date from `created`. The file is synced. Neither the
    /// directory's entry is synced, nor does the manifest name it.
    pub(crate) fn create_output(
        &self,
        min_lsn: u64,
        last_lsn: Lsn,
        len: usize,
        created: Duration,
        fill_rest: impl Fn(Origin, &mut [u8]),
    ) -> Result<Arc<Segment>> {
        under_free_name(|| {
            let header = self.compacted_header(min_lsn, last_lsn)?;
            let plan = Plan { header, capacity: len, end: len, created, need: Need::Compaction };
            let made =
                self.maker.make(plan, self.current_shares(), |rest| fill_rest(header.origin(), rest))?;
            self.maker.sync(&made).inspect_err(|_| {
                self.discard_segment(&made);
                self.maker.return_slot(&made);
            })?;
            Ok(made)
        })
    }

    /// Bytes of all segments' files. A file that is not full counts with its capacity.
    pub(crate) fn segment_file_bytes(&self) -> u64 {
        self.sum(|segment| len_of_file(segment) as u64)
    }

    /// The shares of the reserve of a store whose segments' files have `file_bytes` bytes together,
    /// if the next one has `capacity` bytes.
    fn shares(&self, file_bytes: u64, capacity: usize) -> Shares {
        let segments = self.segments.lock();
        let largest = segments.values().map(|segment| len_of_file(segment)).max().unwrap_or(0);
        let options = &self.context.options;
        let largest = largest.max(capacity).clamp(options.least_segment_bytes(), options.segment_bytes);
        Shares::new(segments.len(), self.archived.encoded_len.load(Ordering::Relaxed), file_bytes, largest)
    }

    fn current_shares(&self) -> Shares {
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

    /// Makes the manifest name the outputs of a compaction in place of its victims. Archives the
    /// victims that past states need: states from `horizon` on do not need them. The files of the
    /// others are leftovers then. If there is no room for the manifest, it removes the outputs'
    /// files.
    pub(crate) fn exchange(
        &self,
        victims: &[Replaced],
        outputs: &[Arc<Segment>],
        horizon: Lsn,
        last_lsn: Lsn,
    ) -> Result<()> {
        self.change(|stored| {
            // The index may point at another image of the same file, of which the survivors know
            // nothing. A panic here poisons the store.
            let are_current = victims.iter().all(|victim| self.is_current(&victim.segment));
            assert!(are_current, "a victim was replaced during its compaction");
            let mut next = stored.manifest.clone();
            let replaced_unix_ms = self.context.env.clock.unix_time_ms();
            for Replaced { segment, is_needed_before } in victims {
                next.segments.remove(&segment.id);
                let (kind, len) = (segment.kind, segment.file_len() as u64);
                if *is_needed_before {
                    let archived = Archived { kind, len, replaced_lsn: horizon, replaced_unix_ms };
                    next.archive.segments.insert(segment.id, archived);
                }
            }
            for output in outputs {
                let entry = Entry { kind: output.kind, sealed: true, durable_len: output.end() as u64 };
                next.segments.insert(output.id, entry);
            }
            let synced = if outputs.is_empty() { Ok(()) } else { self.context.dir.sync_durably() };
            if let Err(error) = synced.and_then(|()| self.store(stored, next, last_lsn)) {
                for output in outputs {
                    self.discard_unless_named(output, &error);
                }
                return Err(error);
            }
            let mut segments = self.segments.lock();
            for Replaced { segment: victim, is_needed_before } in victims {
                segments.remove(&victim.id);
                if self.context.options.memory_budget.is_none() && !victim.is_from_checkpoint {
                    // All images are in memory, so no reader reads the file. Open, it would keep
                    // its space.
                    victim.file.close();
                }
                if !is_needed_before {
                    self.add_leftover(victim);
                }
            }
            segments.extend(outputs.iter().map(|output| (output.id, Arc::clone(output))));
            Ok(())
        })
    }

    /// Removes the files that the stored manifest does not name. Without a lock of the catalog: it
    /// takes long, and writers may wait for a segment.
    pub(crate) fn remove_victims(&self) {
        self.leftovers.remove(Which::Due);
    }

    /// Gives back the space of a segment if `error` says that the manifest that names it was not
    /// stored. Otherwise the manifest may be stored: the store is then poisoned, and the next
    /// opening decides.
    fn discard_unless_named(&self, segment: &Segment, error: &Error) {
        if error.is_refusal() {
            self.discard_segment(segment);
        }
    }

    /// Gives back the space of a segment that no manifest ever named.
    pub(crate) fn discard_segment(&self, segment: &Segment) {
        self.leftovers.discard(segment.id, segment.end());
    }

    /// Stores a manifest if leftovers wait for one.
    pub(crate) fn tidy(&self, last_lsn: Lsn) -> Result<()> {
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
    fn add_leftover(&self, segment: &Segment) {
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
            self.room.hold(self.shares(used, 0));
            Ok(())
        })
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

/// A segment that a compaction has replaced.
#[derive(Clone, Debug)]
pub(crate) struct Replaced {
    pub(crate) segment: Arc<Segment>,
    /// Whether states before the compaction need something of it that the outputs do not hold.
    pub(crate) is_needed_before: bool,
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

/// Carries out `create`, which creates a file under the name of the next id. Repeats it while a
/// file of another owner has that name.
pub(super) fn under_free_name<T>(mut create: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match create() {
            Err(Error::Io { op: Op::Create, source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
            answer => return answer,
        }
    }
}

fn following(id: SegmentId) -> SegmentId {
    SegmentId::new(id.get().saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::recovery::open;
    use kv_core::{Background, Env, ManualClock};
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
        for refused in [create().map(drop), store.catalog.exchange(&[], &[], Lsn::ZERO, Lsn::ZERO)] {
            assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
        }
        assert_eq!(disk.mutations(), before);
    }
}
