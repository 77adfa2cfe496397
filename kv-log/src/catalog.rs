//! The catalog: which segments there are, in memory and in the manifest. It creates them, and makes
//! the manifest say so.

use kv_core::{Dir, DirExt, Env, Error, Lsn, OpenMode, Reserve, Result, SegmentId, StoreLock};
use kv_wal_format::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::counters::Counters;
use crate::directory;
use crate::leftovers::{Attempt, Leftovers, remove_file};
use crate::manifest::{Entry, Manifest};
use crate::orphans::{self, Known, Verdict};
use crate::progress::Progress;
use crate::reserve::{Need, Shares, with_metadata};
use crate::segment::{
    Image, SEGMENTS_MAX, SLOTS_FOR_COMPACTION, Segment, SegmentFile, SegmentFiles, SegmentTable, Via,
};
use crate::store::is_refusal;

#[derive(Debug)]
pub(crate) struct Catalog {
    parts: Parts,
    /// Guards the manifest's file, too. Before `segments`.
    stored: Mutex<Stored>,
    /// The segments that the manifest names.
    segments: Mutex<BTreeMap<SegmentId, Arc<Segment>>>,
    /// Files that the next manifest does not name. Once it is stored, they go.
    leftovers: Leftovers,
}

/// What a catalog works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) lock: Arc<StoreLock>,
    pub(crate) env: Env,
    pub(crate) files: Arc<SegmentFiles>,
    /// How new files are written.
    pub(crate) via: Via,
    /// Size of a full segment, bytes.
    pub(crate) segment_bytes: usize,
    /// Whether no reader looks into the file of a victim: all segments have their image in memory.
    pub(crate) closes_victims: bool,
    pub(crate) table: Arc<SegmentTable>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) counters: Arc<Counters>,
    /// For manifests, tombstones and compaction on a full disk.
    pub(crate) reserve: Reserve,
}

/// The manifest as it was stored last, and the ids that it reserved.
#[derive(Debug)]
struct Stored {
    manifest: Manifest,
    /// The next segment's; at most the manifest's first id that is not reserved.
    next_id: SegmentId,
    /// Ids of files that are not the store's.
    foreign_ids: BTreeSet<SegmentId>,
}

impl Catalog {
    /// Of a store that was recovered from `manifest` with these `segments`.
    pub(crate) fn new(parts: Parts, manifest: Manifest, segments: BTreeMap<SegmentId, Arc<Segment>>) -> Self {
        let next_id = manifest.next_segment;
        let stored = Mutex::new(Stored { manifest, next_id, foreign_ids: BTreeSet::new() });
        Catalog { parts, stored, segments: Mutex::new(segments), leftovers: Leftovers::default() }
    }

    /// All segments, in the order of their ids.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.lock().values().cloned().collect()
    }

    /// Files that the manifest does not name, and that are still there: how many, and their bytes.
    pub(crate) fn leftovers(&self) -> (u64, u64) {
        self.leftovers.count()
    }

    /// Bytes of the files beside the segments' that the store keeps.
    pub(crate) fn overhead_bytes(&self) -> u64 {
        self.parts.reserve.len() + Manifest::len_with(self.segments.lock().len()) as u64
    }

    /// Begins the life of an opened store: LSNs above `floor` and segment ids are reserved, blank
    /// segments are dropped, orphans are removed. The newest change recovered has the LSN
    /// `last_lsn`.
    ///
    /// # Errors
    /// An orphan holds changes that the manifest does not know of; the manifest cannot be stored.
    pub(crate) fn begin(&self, last_lsn: Lsn, floor: Lsn) -> Result<()> {
        let mut stored = self.stored.lock();
        let mut next = stored.manifest.clone();
        for (id, verdict) in self.examine_orphans(&stored.manifest, last_lsn)? {
            match verdict {
                // It goes once the next manifest is durable: a power cut may bring back the one
                // before this one, which may name it.
                Verdict::Rubbish => self.leftovers.add(directory::segment_file_name(id), 0),
                _ => drop(stored.foreign_ids.insert(id)),
            }
        }
        let segments = self.segments.lock();
        for id in stored.manifest.segments.keys().filter(|id| !segments.contains_key(id)) {
            next.segments.remove(id);
            self.leftovers.add(directory::segment_file_name(*id), 0);
        }
        drop(segments);
        self.store(&mut stored, next, floor)
    }

    /// Checks that the manifest is as new as the segments, of a store that is only read.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    pub(crate) fn check_orphans(&self, last_lsn: Lsn) -> Result<()> {
        self.examine_orphans(&self.stored.lock().manifest, last_lsn).map(drop)
    }

    fn examine_orphans(&self, manifest: &Manifest, last_lsn: Lsn) -> Result<Vec<(SegmentId, Verdict)>> {
        let known = Known { store_id: manifest.store_id, ids_end: manifest.next_segment, last_lsn };
        let names = self.parts.dir.names()?;
        let ids = names.iter().filter_map(|name| directory::parse_segment_file_name(name));
        ids.filter(|id| !manifest.segments.contains_key(id))
            .map(|id| Ok((id, orphans::examine(&*self.parts.dir, id, known)?)))
            .collect()
    }

    /// New, blank head segments, in the order in which they are to be used: their files and their names in the manifest
    /// are durable on return. Several at once share the syncs of the directory and the manifest.
    ///
    /// After a power cut between any two steps there is: nothing; orphan files; or blank segments
    /// that the manifest names. Opening removes each of them.
    pub(crate) fn create_heads(
        &self,
        count: usize,
        capacity: usize,
        need: Need,
        last_lsn: Lsn,
    ) -> Result<Vec<Arc<Segment>>> {
        if need == Need::Growth {
            self.hold_reserve_for_growth((count * capacity) as u64)?;
        }
        let mut stored = self.stored.lock();
        let mut next = stored.manifest.clone();
        let mut created: Vec<Arc<Segment>> = Vec::with_capacity(count);
        let files = (0..count).try_for_each(|_| {
            let head = self.create_head(capacity, need, last_lsn, &mut stored)?;
            let entry =
                Entry { kind: SegmentKind::Log, sealed: false, durable_len: SEGMENT_HEADER_LEN as u64 };
            next.segments.insert(head.id, entry);
            created.push(head);
            Ok(())
        });
        // The files must be there before the manifest says so.
        let result = files
            .and_then(|()| self.parts.dir.sync_durably())
            .and_then(|()| self.store(&mut stored, next, last_lsn));
        if let Err(error) = result {
            for segment in &created {
                self.discard_unless_named(segment, &error);
                self.parts.table.return_slot(segment.slot);
            }
            return Err(error);
        }
        let mut segments = self.segments.lock();
        for segment in &created {
            self.parts.table.install(segment);
            segments.insert(segment.id, Arc::clone(segment));
        }
        Ok(created)
    }

    /// Creates a head's file.
    fn create_head(
        &self,
        capacity: usize,
        need: Need,
        last_lsn: Lsn,
        stored: &mut Stored,
    ) -> Result<Arc<Segment>> {
        let header = SegmentHeader {
            kind: SegmentKind::Log,
            segment_id: self.take_id(stored, last_lsn)?.get(),
            base_lsn: last_lsn.get(),
            store_id: stored.manifest.store_id,
        };
        let now = self.parts.env.clock.monotonic();
        self.create_segment(header, capacity, SEGMENT_HEADER_LEN, now, need, |_| ())
    }

    /// A segment without a file that stands for the active one where nothing is written.
    pub(crate) fn placeholder(&self) -> Result<Arc<Segment>> {
        let image = Image::new(SEGMENT_HEADER_LEN);
        let image = image.map_err(|error| Error::io("allocate memory for", self.parts.dir.path(), error))?;
        let slot = self.parts.table.reserve_slot(0).ok_or_else(|| self.too_many_segments())?;
        let id = SegmentId::new(u64::MAX);
        let file = Arc::new(SegmentFile::unopened(&self.parts.files, id));
        let now = self.parts.env.clock.monotonic();
        let segment = Segment::new(id, slot, SegmentKind::Log, image, file, now, SEGMENT_HEADER_LEN);
        Ok(Arc::new(segment))
    }

    fn too_many_segments(&self) -> Error {
        let limit = SEGMENTS_MAX - SLOTS_FOR_COMPACTION;
        Error::TooManySegments { path: self.parts.dir.path().to_path_buf(), limit }
    }

    /// The header of a segment that [`exchange`](Self::exchange) will name.
    pub(crate) fn compacted_header(&self, min_lsn: u64, last_lsn: Lsn) -> Result<SegmentHeader> {
        let mut stored = self.stored.lock();
        let segment_id = self.take_id(&mut stored, last_lsn)?.get();
        let store_id = stored.manifest.store_id;
        Ok(SegmentHeader { kind: SegmentKind::Compacted, segment_id, base_lsn: min_lsn, store_id })
    }

    /// An id that no file has. It was reserved by a durable manifest, so that its file is known to
    /// be the store's after a crash.
    fn take_id(&self, stored: &mut Stored, last_lsn: Lsn) -> Result<SegmentId> {
        if stored.next_id >= stored.manifest.next_segment {
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

    /// A segment with a file of `capacity` bytes of which `end` are used, filled by `fill_rest` behind its
    /// header, written and synced. Its records date from `created`. Neither the directory nor the manifest knows it yet.
    pub(crate) fn create_segment(
        &self,
        header: SegmentHeader,
        capacity: usize,
        end: usize,
        created: Duration,
        need: Need,
        fill_rest: impl FnOnce(&mut [u8]),
    ) -> Result<Arc<Segment>> {
        let id = SegmentId::new(header.segment_id);
        let image = self
            .parts
            .table
            .image(capacity)
            .map_err(|error| Error::io("allocate memory for", self.parts.dir.path(), error))?;
        // SAFETY: nobody else knows this image yet.
        let bytes = unsafe {
            image.fill(0, end, |out| {
                let (start, rest) = out.split_at_mut(SEGMENT_HEADER_LEN);
                start.copy_from_slice(&header.encode());
                fill_rest(rest);
            });
            image.published(0, end).unwrap_or_default()
        };
        let kept = if need == Need::Compaction { 0 } else { SLOTS_FOR_COMPACTION };
        let slot = self.parts.table.reserve_slot(kept).ok_or_else(|| self.too_many_segments())?;
        let create = || {
            SegmentFile::create(&self.parts.files, id, capacity, bytes, self.parts.via)
                .and_then(|file| file.sync().map(|()| file))
                .inspect_err(|_| self.discard(id, end))
        };
        let file = match self.shares(self.segment_file_bytes()).left_by(need) {
            None => create(),
            Some(left) => self.parts.reserve.lend(with_metadata(capacity as u64), left, create),
        };
        match file {
            Ok(file) => {
                self.parts.counters.syncs.fetch_add(1, Ordering::Relaxed);
                self.parts.counters.bytes_written.fetch_add(end as u64, Ordering::Relaxed);
                Ok(Arc::new(Segment::new(id, slot, header.kind, image, Arc::new(file), created, end)))
            }
            Err(error) => {
                self.parts.table.return_slot(slot);
                Err(error)
            }
        }
    }

    /// Bytes of all segments' files: of those that are not full, as long as they may get.
    pub(crate) fn segment_file_bytes(&self) -> u64 {
        let segments = self.segments.lock();
        let len = |segment: &Arc<Segment>| {
            if segment.is_durable() { segment.file_len() } else { segment.capacity }
        };
        segments.values().map(|segment| len(segment) as u64).sum()
    }

    /// The shares of the reserve of a store with segments' files of `file_bytes` bytes together.
    fn shares(&self, file_bytes: u64) -> Shares {
        Shares::new(self.segments.lock().len(), file_bytes, self.parts.segment_bytes)
    }

    /// The size of a segment with room for enough tombstones to give compaction something to gain.
    pub(crate) fn tombstone_segment_bytes(&self) -> u64 {
        self.shares(self.segment_file_bytes()).tombstones()
    }

    /// Holds as much of the disk in reserve as the store's size asks for, if there is room.
    pub(crate) fn hold_reserve(&self) {
        self.parts.reserve.hold(self.shares(self.segment_file_bytes()).sum());
    }

    /// Holds the reserve for a store that is about to grow by `bytes`. A store that could not be
    /// emptied again does not grow.
    ///
    /// # Errors
    /// There is no room for the reserve.
    fn hold_reserve_for_growth(&self, bytes: u64) -> Result<()> {
        let wanted = self.shares(self.segment_file_bytes() + bytes).sum();
        if self.parts.reserve.hold(wanted) {
            return Ok(());
        }
        Err(Error::io("hold a reserve in", self.parts.dir.path(), io::ErrorKind::StorageFull.into()))
    }

    /// Makes the manifest name the outputs of a compaction in place of its victims, whose files go; the outputs' do if there
    /// is no room for that.
    pub(crate) fn exchange(
        &self,
        victims: &[Arc<Segment>],
        outputs: &[Arc<Segment>],
        last_lsn: Lsn,
    ) -> Result<()> {
        let mut stored = self.stored.lock();
        let mut next = stored.manifest.clone();
        for victim in victims {
            next.segments.remove(&victim.id);
        }
        for output in outputs {
            let entry = Entry { kind: output.kind, sealed: true, durable_len: output.end() as u64 };
            next.segments.insert(output.id, entry);
        }
        let synced = if outputs.is_empty() { Ok(()) } else { self.parts.dir.sync_durably() };
        if let Err(error) = synced.and_then(|()| self.store(&mut stored, next, last_lsn)) {
            for output in outputs {
                self.discard_unless_named(output, &error);
            }
            return Err(error);
        }
        let mut segments = self.segments.lock();
        for victim in victims {
            segments.remove(&victim.id);
            if self.parts.closes_victims {
                // A file that is open keeps its space, and this one may be for a while.
                victim.file.close();
            }
            self.leave(victim);
        }
        segments.extend(outputs.iter().map(|output| (output.id, Arc::clone(output))));
        drop(segments);
        self.leftovers.remove(&*self.parts.dir, Attempt::Due);
        Ok(())
    }

    /// Gives back the space of a segment, if `error` says that the manifest that names it was not stored. Otherwise it may
    /// have been; then the store is poisoned, and opening it will tell.
    fn discard_unless_named(&self, segment: &Segment, error: &Error) {
        if is_refusal(error) {
            self.discard_segment(segment);
        }
    }

    /// Gives back the space of a segment that no manifest ever named.
    pub(crate) fn discard_segment(&self, segment: &Segment) {
        self.discard(segment.id, segment.end());
    }

    /// Stores a manifest if files wait for one to be removed.
    pub(crate) fn tidy(&self, last_lsn: Lsn) -> Result<()> {
        if !self.leftovers.any_untried() {
            return Ok(());
        }
        let mut stored = self.stored.lock();
        let next = stored.manifest.clone();
        self.store(&mut stored, next, last_lsn)
    }

    /// Tries once more to remove all files that are not needed.
    pub(crate) fn remove_leftovers(&self) {
        self.leftovers.remove(&*self.parts.dir, Attempt::All);
    }

    /// Gives back the space of a file that no manifest ever named, and of which `end` bytes were to
    /// be used. A power cut may bring it back; the id is reserved, so the next opening knows it for
    /// rubbish.
    fn discard(&self, id: SegmentId, end: usize) {
        let name = directory::segment_file_name(id);
        // Emptied first: the file may still be open, or refuse to go.
        let bytes = if self.empty(&name).is_ok() { 0 } else { end as u64 };
        if remove_file(&*self.parts.dir, &name).is_err() {
            self.leftovers.add(name, bytes);
        }
    }

    /// The file of `segment` goes once a manifest is stored that does not name it.
    fn leave(&self, segment: &Segment) {
        self.leftovers.add(directory::segment_file_name(segment.id), segment.file_len() as u64);
    }

    /// Carries out a write of `len` bytes, on a full disk with space from the reserve: not every
    /// file system keeps the space that it reserved, and some need a little more when it is
    /// written. The second attempt writes the same bytes to the same place, and only a sync tells
    /// that they are on the disk.
    pub(crate) fn write_with_reserve(&self, len: usize, write: impl FnMut() -> Result<()>) -> Result<()> {
        self.parts.reserve.lend(with_metadata(len as u64), 0, write)
    }

    /// Gives back the space of a file.
    fn empty(&self, name: &str) -> io::Result<()> {
        self.parts.dir.open(name, OpenMode::ReadWrite)?.set_len(0)
    }

    /// Takes `segment` for the one of the same id from now on: another image of the same file.
    pub(crate) fn replace_image(&self, segment: &Arc<Segment>) {
        self.segments.lock().insert(segment.id, Arc::clone(segment));
    }

    /// Stores the last manifest of a store that is closed in order. Everything is durable, and no
    /// LSN above `last_lsn` was given out. The files of `spares` go.
    pub(crate) fn end(&self, spares: &[Arc<Segment>], last_lsn: Lsn) -> Result<()> {
        let stored = self.stored.lock();
        let mut closing = stored.manifest.clone();
        for spare in spares {
            closing.segments.remove(&spare.id);
        }
        closing.durable_lsn = self.parts.progress.durable_lsn();
        closing.lsn_ceiling = last_lsn;
        closing.next_segment = stored.next_id;
        self.refresh(&mut closing);
        self.write_manifest(&closing)?;
        // Only now: the manifest before this one names them.
        for spare in spares {
            self.segments.lock().remove(&spare.id);
            self.leave(spare);
            // The table knows it until the store is dropped.
            spare.file.close();
        }
        self.leftovers.remove(&*self.parts.dir, Attempt::Due);
        let used = self.segments.lock().values().map(|segment| segment.file_len() as u64).sum();
        self.parts.reserve.hold(self.shares(used).sum());
        Ok(())
    }

    /// Stores `next` in place of the manifest, knowing what is durable, with ids and with LSNs
    /// above `last_lsn` reserved. Files that it does not name go.
    fn store(&self, stored: &mut Stored, mut next: Manifest, last_lsn: Lsn) -> Result<()> {
        next.durable_lsn = next.durable_lsn.max(self.parts.progress.durable_lsn());
        next.reserve_lsns(last_lsn);
        next.reserve_ids(stored.next_id);
        self.refresh(&mut next);
        self.write_manifest(&next)?;
        stored.manifest = next;
        self.leftovers.remove(&*self.parts.dir, Attempt::Due);
        self.hold_reserve();
        Ok(())
    }

    /// Writes the manifest's file, on a full disk with space from the reserve.
    fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let content = manifest.encode();
        self.parts.reserve.lend(with_metadata(content.len() as u64), 0, || {
            self.parts.lock.check()?;
            self.parts.dir.write_file_atomically(directory::MANIFEST, &content)
        })
    }

    /// Writes down in `manifest` how much of each segment is durable.
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

fn following(id: SegmentId) -> SegmentId {
    SegmentId::new(id.get().saturating_add(1))
}
