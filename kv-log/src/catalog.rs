//! The catalog: which segments there are, in memory and in the manifest. It creates them, and makes
//! the manifest say so.

use kv_core::{Dir, DirExt, Env, Error, Lsn, OpenMode, Result, SegmentId};
use kv_wal_format::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::counters::Counters;
use crate::directory;
use crate::manifest::{Entry, Manifest};
use crate::progress::Progress;
use crate::segment::{SEGMENTS_MAX, Segment, SegmentFile, SegmentFiles, SegmentTable, Via};
use crate::store::is_refusal;

#[derive(Debug)]
pub(crate) struct Catalog {
    dir: Arc<dyn Dir>,
    env: Env,
    files: Arc<SegmentFiles>,
    /// How new files are written.
    via: Via,
    table: Arc<SegmentTable>,
    progress: Arc<Progress>,
    counters: Arc<Counters>,
    /// As it was stored last, but for segment ids that were given out since.
    manifest: Mutex<Manifest>,
    /// The segments that the manifest names.
    segments: Mutex<BTreeMap<SegmentId, Arc<Segment>>>,
    /// Files that the next manifest does not name. Once it is stored, they go.
    leftovers: Mutex<Vec<Leftover>>,
}

#[derive(Debug)]
struct Leftover {
    name: String,
    bytes: u64,
}

impl Catalog {
    #[expect(clippy::too_many_arguments, reason = "its parts, put together in one place")]
    pub(crate) fn new(
        dir: Arc<dyn Dir>,
        env: Env,
        files: Arc<SegmentFiles>,
        via: Via,
        table: Arc<SegmentTable>,
        progress: Arc<Progress>,
        counters: Arc<Counters>,
        manifest: Manifest,
        segments: BTreeMap<SegmentId, Arc<Segment>>,
    ) -> Self {
        let (manifest, segments, leftovers) = (Mutex::new(manifest), Mutex::new(segments), Mutex::default());
        Catalog { dir, env, files, via, table, progress, counters, manifest, segments, leftovers }
    }

    /// All segments, in the order of their ids.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.lock().values().cloned().collect()
    }

    /// Bytes of files that the manifest does not name, and that are still there.
    pub(crate) fn leftover_bytes(&self) -> u64 {
        self.leftovers.lock().iter().map(|leftover| leftover.bytes).sum()
    }

    /// Begins the life of an opened store: LSNs above `floor` are reserved, blank segments are dropped,
    /// files that the manifest does not name are removed.
    pub(crate) fn begin(&self, floor: Lsn) -> Result<()> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        let segments = self.segments.lock();
        next.segments.retain(|id, _| segments.contains_key(id));
        drop(segments);
        for (name, id) in self
            .dir
            .names()?
            .into_iter()
            .filter_map(|name| Some((directory::parse_segment_file_name(&name)?, name)))
            .map(|(id, name)| (name, id))
        {
            // An orphan's id is used up, though no manifest knew it: its bytes may show up again where it lay.
            next.next_segment = next.next_segment.max(following(id));
            if !next.segments.contains_key(&id) {
                // What no manifest ever named, this one or one before, makes room for the next one. All else stays until that
                // is durable: a power cut may yet bring back the one before.
                if id >= manifest.next_segment {
                    self.empty(&name).map_err(|error| Error::io("trim", &self.dir.path_of(&name), error))?;
                }
                self.leftovers.lock().push(Leftover { name, bytes: 0 });
            }
        }
        self.store(&mut manifest, next, floor)
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
        last_lsn: Lsn,
    ) -> Result<Vec<Arc<Segment>>> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        let mut created: Vec<Arc<Segment>> = Vec::with_capacity(count);
        let files = (0..count).try_for_each(|_| {
            created.push(self.create_head(capacity, last_lsn, &mut next)?);
            Ok(())
        });
        // Whatever comes of it, their ids are used up.
        manifest.next_segment = next.next_segment;
        // The files must be there before the manifest says so.
        let stored = files
            .and_then(|()| self.dir.sync_durably())
            .and_then(|()| self.store(&mut manifest, next, last_lsn));
        if let Err(error) = stored {
            for segment in &created {
                self.discard_unless_named(segment, &error);
                self.table.return_slot(segment.slot);
            }
            return Err(error);
        }
        let mut segments = self.segments.lock();
        for segment in &created {
            self.table.install(segment);
            segments.insert(segment.id, Arc::clone(segment));
        }
        Ok(created)
    }

    /// Creates a head's file, and enters it in `manifest`.
    fn create_head(&self, capacity: usize, last_lsn: Lsn, manifest: &mut Manifest) -> Result<Arc<Segment>> {
        let id = take_id(manifest);
        let header = SegmentHeader {
            kind: SegmentKind::Log,
            segment_id: id.get(),
            base_lsn: last_lsn.get(),
            store_id: manifest.store_id,
        };
        let now = self.env.clock.monotonic();
        let head = self.create_segment(header, capacity, SEGMENT_HEADER_LEN, now, |_| ())?;
        let entry = Entry { kind: SegmentKind::Log, sealed: false, durable_len: SEGMENT_HEADER_LEN as u64 };
        manifest.segments.insert(id, entry);
        Ok(head)
    }

    /// The header of a segment that [`exchange`](Self::exchange) will name.
    pub(crate) fn compacted_header(&self, min_lsn: u64) -> SegmentHeader {
        let mut manifest = self.manifest.lock();
        let segment_id = take_id(&mut manifest).get();
        let store_id = manifest.store_id;
        SegmentHeader { kind: SegmentKind::Compacted, segment_id, base_lsn: min_lsn, store_id }
    }

    /// A segment with a file of `capacity` bytes of which `end` are used, filled by `fill_rest` behind its
    /// header, written and synced. Its records date from `created`. Neither the directory nor the manifest knows it yet.
    pub(crate) fn create_segment(
        &self,
        header: SegmentHeader,
        capacity: usize,
        end: usize,
        created: Duration,
        fill_rest: impl FnOnce(&mut [u8]),
    ) -> Result<Arc<Segment>> {
        let id = SegmentId::new(header.segment_id);
        let image = self
            .table
            .image(capacity)
            .map_err(|error| Error::io("allocate memory for", self.dir.path(), error))?;
        // SAFETY: nobody else knows this image yet.
        let bytes = unsafe {
            image.fill(0, end, |out| {
                let (start, rest) = out.split_at_mut(SEGMENT_HEADER_LEN);
                start.copy_from_slice(&header.encode());
                fill_rest(rest);
            });
            image.published(0, end).unwrap_or_default()
        };
        let slot = self.table.reserve_slot().ok_or_else(|| {
            Error::InvalidArgument(format!(
                "the store has {SEGMENTS_MAX} segments, the most there can be; reopen it with larger segment_bytes"
            ))
        })?;
        let file = SegmentFile::create(&self.files, id, capacity, bytes, self.via)
            .and_then(|file| file.sync().map(|()| file));
        match file {
            Ok(file) => {
                self.counters.syncs.fetch_add(1, Ordering::Relaxed);
                self.counters.bytes_written.fetch_add(end as u64, Ordering::Relaxed);
                Ok(Arc::new(Segment::new(id, slot, header.kind, image, Arc::new(file), created, end)))
            }
            Err(error) => {
                self.table.return_slot(slot);
                self.discard(id, end);
                Err(error)
            }
        }
    }

    /// Makes the manifest name the outputs of a compaction in place of its victims, whose files go; the outputs' do if there
    /// is no room for that.
    pub(crate) fn exchange(
        &self,
        victims: &[Arc<Segment>],
        outputs: &[Arc<Segment>],
        last_lsn: Lsn,
    ) -> Result<()> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        for victim in victims {
            next.segments.remove(&victim.id);
        }
        for output in outputs {
            let entry = Entry { kind: output.kind, sealed: true, durable_len: output.end() as u64 };
            next.segments.insert(output.id, entry);
        }
        let synced = if outputs.is_empty() { Ok(()) } else { self.dir.sync_durably() };
        if let Err(error) = synced.and_then(|()| self.store(&mut manifest, next, last_lsn)) {
            for output in outputs {
                self.discard_unless_named(output, &error);
            }
            return Err(error);
        }
        let mut segments = self.segments.lock();
        for victim in victims {
            segments.remove(&victim.id);
            self.leave(victim);
        }
        segments.extend(outputs.iter().map(|output| (output.id, Arc::clone(output))));
        drop(segments);
        self.remove_leftovers();
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

    /// Has the files go that the manifest does not name any more, where that takes a new one.
    pub(crate) fn tidy(&self, last_lsn: Lsn) -> Result<()> {
        if self.leftovers.lock().is_empty() {
            return Ok(());
        }
        let mut manifest = self.manifest.lock();
        let next = manifest.clone();
        self.store(&mut manifest, next, last_lsn)
    }

    /// Gives back the space of a file that no manifest ever named, and of which `end` bytes were to be used. If those are
    /// records, the file itself stays until a manifest tells that its id is used up: its bytes may show up again where
    /// it lay.
    fn discard(&self, id: SegmentId, end: usize) {
        let name = directory::segment_file_name(id);
        let bytes = if self.empty(&name).is_ok() { 0 } else { end as u64 };
        if end > SEGMENT_HEADER_LEN || self.remove(&name).is_err() {
            self.leftovers.lock().push(Leftover { name, bytes });
        }
    }

    /// The file of `segment` goes once a manifest is stored that does not name it.
    fn leave(&self, segment: &Segment) {
        let (name, bytes) = (directory::segment_file_name(segment.id), segment.file_len() as u64);
        self.leftovers.lock().push(Leftover { name, bytes });
    }

    /// What cannot be removed now is tried again with the next manifest, or when the store is opened.
    fn remove_leftovers(&self) {
        self.leftovers.lock().retain(|leftover| self.remove(&leftover.name).is_err());
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self.dir.remove_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            answer => answer,
        }
    }

    /// Gives back the space of a file.
    fn empty(&self, name: &str) -> io::Result<()> {
        self.dir.open(name, OpenMode::ReadWrite)?.set_len(0)
    }

    /// Takes `segment` for the one of the same id from now on: another image of the same file.
    pub(crate) fn replace_image(&self, segment: &Arc<Segment>) {
        self.segments.lock().insert(segment.id, Arc::clone(segment));
    }

    /// The last manifest of a store that is closed in order, with everything durable: no LSN above
    /// `last_lsn` was given out, and all bytes of the head are known to be durable.
    pub(crate) fn end(&self, last_lsn: Lsn) -> Result<()> {
        let manifest = self.manifest.lock();
        let mut closing = manifest.clone();
        closing.durable_lsn = self.progress.durable_lsn();
        closing.lsn_ceiling = last_lsn;
        self.refresh(&mut closing);
        closing.store(&*self.dir)
    }

    /// Stores `next` in place of `manifest`, knowing what is durable, and with LSNs above `last_lsn` reserved. What it does
    /// not name goes.
    fn store(&self, manifest: &mut Manifest, mut next: Manifest, last_lsn: Lsn) -> Result<()> {
        next.durable_lsn = next.durable_lsn.max(self.progress.durable_lsn());
        next.reserve_lsns(last_lsn);
        self.refresh(&mut next);
        next.store(&*self.dir)?;
        *manifest = next;
        self.remove_leftovers();
        Ok(())
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

fn take_id(manifest: &mut Manifest) -> SegmentId {
    let id = manifest.next_segment;
    manifest.next_segment = following(id);
    id
}

fn following(id: SegmentId) -> SegmentId {
    SegmentId::new(id.get().saturating_add(1))
}
