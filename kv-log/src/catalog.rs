//! The catalog: which segments there are, in memory and in the manifest. It creates them, and makes
//! the manifest say so.

use kv_core::{Env, Error, FsExt, Lsn, Result, SegmentId};
use kv_wal_format::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::counters::Counters;
use crate::directory;
use crate::manifest::{Entry, Manifest};
use crate::progress::Progress;
use crate::segment::{SEGMENTS_MAX, Segment, SegmentFile, SegmentTable, Via};

#[derive(Debug)]
pub(crate) struct Catalog {
    dir: PathBuf,
    env: Env,
    /// How new files are written.
    via: Via,
    table: Arc<SegmentTable>,
    progress: Arc<Progress>,
    counters: Arc<Counters>,
    /// As it was stored last, but for segment ids that were given out since.
    manifest: Mutex<Manifest>,
    /// The segments that the manifest names.
    segments: Mutex<BTreeMap<SegmentId, Arc<Segment>>>,
}

impl Catalog {
    #[expect(clippy::too_many_arguments, reason = "its parts, put together in one place")]
    pub(crate) fn new(
        dir: PathBuf,
        env: Env,
        via: Via,
        table: Arc<SegmentTable>,
        progress: Arc<Progress>,
        counters: Arc<Counters>,
        manifest: Manifest,
        segments: BTreeMap<SegmentId, Arc<Segment>>,
    ) -> Self {
        let (manifest, segments) = (Mutex::new(manifest), Mutex::new(segments));
        Catalog { dir, env, via, table, progress, counters, manifest, segments }
    }

    /// All segments, in the order of their ids.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.lock().values().cloned().collect()
    }

    /// Begins the life of an opened store: LSNs above `floor` are reserved, blank segments are dropped,
    /// files that the manifest does not name are removed.
    pub(crate) fn begin(&self, floor: Lsn) -> Result<()> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        let segments = self.segments.lock();
        next.segments.retain(|id, _| segments.contains_key(id));
        drop(segments);
        let mut orphans = self.env.fs.list_if_exists(&self.dir)?.unwrap_or_default();
        orphans.retain(|name| {
            let id = directory::parse_segment_file_name(name);
            // An orphan's id is used up, though no manifest knew it: its bytes may show up again where it lay.
            next.next_segment = next.next_segment.max(id.map_or(SegmentId::new(0), following));
            id.is_some_and(|id| !next.segments.contains_key(&id))
        });
        self.store(&mut next, floor)?;
        for name in orphans {
            let path = self.dir.join(name);
            self.env.fs.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        *manifest = next;
        Ok(())
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
        let result = self.create_named_heads(count, capacity, last_lsn, &mut next, &mut created);
        if let Err(error) = result {
            // The files stay, since the manifest on disk may name them already; so their ids are used up.
            manifest.next_segment = next.next_segment;
            for segment in &created {
                self.table.return_slot(segment.slot);
            }
            return Err(error);
        }
        *manifest = next;
        let mut segments = self.segments.lock();
        for segment in &created {
            self.table.install(segment);
            segments.insert(segment.id, Arc::clone(segment));
        }
        Ok(created)
    }

    fn create_named_heads(
        &self,
        count: usize,
        capacity: usize,
        last_lsn: Lsn,
        manifest: &mut Manifest,
        created: &mut Vec<Arc<Segment>>,
    ) -> Result<()> {
        for _ in 0..count {
            let id = take_id(manifest);
            let header = SegmentHeader {
                kind: SegmentKind::Log,
                segment_id: id.get(),
                base_lsn: last_lsn.get(),
                store_id: manifest.store_id,
            };
            let now = self.env.clock.monotonic();
            created.push(self.create_segment(header, capacity, SEGMENT_HEADER_LEN, now, |_| ())?);
            let entry =
                Entry { kind: SegmentKind::Log, sealed: false, durable_len: SEGMENT_HEADER_LEN as u64 };
            manifest.segments.insert(id, entry);
        }
        // The files must be there before the manifest says so.
        self.sync_dir()?;
        self.store(manifest, last_lsn)
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
        let image =
            self.table.image(capacity).map_err(|error| Error::io("allocate memory for", &self.dir, error))?;
        // SAFETY: nobody else knows this image yet.
        let bytes = unsafe {
            image.fill(0, end, |out| {
                let (start, rest) = out.split_at_mut(SEGMENT_HEADER_LEN);
                start.copy_from_slice(&header.encode());
                fill_rest(rest);
            });
            image.published(0, end).unwrap_or_default()
        };
        let file = SegmentFile::create(&*self.env.fs, &self.dir, id, capacity, bytes, self.via)?;
        file.sync()?;
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_written.fetch_add(end as u64, Ordering::Relaxed);
        let slot = self.table.reserve_slot().ok_or_else(|| {
            Error::InvalidArgument(format!(
                "the store has {SEGMENTS_MAX} segments, the most there can be; reopen it with larger segment_bytes"
            ))
        })?;
        Ok(Arc::new(Segment::new(id, slot, header.kind, image, Arc::new(file), created, end)))
    }

    /// Makes the manifest name the outputs of a compaction in place of its victims.
    pub(crate) fn exchange(&self, victims: &[Arc<Segment>], outputs: &[Arc<Segment>]) -> Result<()> {
        if !outputs.is_empty() {
            self.sync_dir()?;
        }
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        for victim in victims {
            next.segments.remove(&victim.id);
        }
        for output in outputs {
            let entry = Entry { kind: output.kind, sealed: true, durable_len: output.end() as u64 };
            next.segments.insert(output.id, entry);
        }
        self.store(&mut next, self.progress.last_lsn())?;
        *manifest = next;
        let mut segments = self.segments.lock();
        for victim in victims {
            segments.remove(&victim.id);
        }
        segments.extend(outputs.iter().map(|output| (output.id, Arc::clone(output))));
        Ok(())
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
        closing.store(&*self.env.fs, &self.dir)
    }

    /// Stores a manifest that knows what is durable, with LSNs above `last_lsn` reserved.
    fn store(&self, manifest: &mut Manifest, last_lsn: Lsn) -> Result<()> {
        manifest.durable_lsn = manifest.durable_lsn.max(self.progress.durable_lsn());
        manifest.reserve_lsns(last_lsn);
        self.refresh(manifest);
        manifest.store(&*self.env.fs, &self.dir)
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

    fn sync_dir(&self) -> Result<()> {
        self.env.fs.sync_dir(&self.dir).map_err(|error| Error::io("sync directory", &self.dir, error))
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
