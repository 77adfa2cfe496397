//! The catalog's side of past states: their files, their points, and their end.

use kv_core::fs::Dir;
use kv_core::{Lsn, Result, SegmentId};
use kv_wal_format::{SEGMENT_HEADER_LEN, SegmentKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::archive::{Archive, Archived};
use super::catalog::Catalog;
use super::content::{Entry, Manifest};
use super::leftovers::Held;
use crate::directory;
use crate::tail::Unwritten;

/// The files of a store at one moment.
#[derive(Debug)]
pub(crate) struct PastFiles {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) manifest: Manifest,
    /// Those of the store, and archived ones.
    pub(crate) files: Vec<PastFile>,
    /// The bytes that they lack: a tail that no opening for writing has adopted yet.
    pub(crate) unwritten: Arc<Unwritten>,
}

/// A file that holds records of past states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PastFile {
    pub(crate) id: SegmentId,
    pub(crate) kind: SegmentKind,
    /// Its bytes from the start that hold records, those included that the file lacks.
    pub(crate) len: u64,
    /// Whether they end with a seal.
    pub(crate) is_sealed: bool,
    /// States from this LSN on do not need it.
    pub(crate) replaced_lsn: Option<Lsn>,
}

impl PastFile {
    /// The file of a sealed segment that the manifest names by this entry.
    pub(crate) fn sealed(id: SegmentId, entry: Entry) -> Self {
        let Entry { kind, durable_len: len, .. } = entry;
        PastFile { id, kind, len, is_sealed: true, replaced_lsn: None }
    }
}

impl Catalog {
    /// The files that hold the records of every state in the window, up to the synced changes. Of a
    /// store that is only read, up to the recovered ones. They stay until `Held` is dropped.
    pub(crate) fn hold_past(&self) -> (PastFiles, Held) {
        let stored = self.stored.lock();
        let manifest = stored.manifest.clone();
        let mut files = manifest.archive.past_files();
        for segment in self.segments.lock().values() {
            let is_sealed = segment.is_durable();
            let len = if is_sealed {
                segment.file_len()
            } else if self.context.options.read_only {
                segment.end()
            } else {
                segment.synced()
            };
            if len > SEGMENT_HEADER_LEN {
                let (id, kind, len) = (segment.id, segment.kind, len as u64);
                files.push(PastFile { id, kind, len, is_sealed, replaced_lsn: None });
            }
        }
        let held = self.leftovers.hold(files.iter().map(|file| file.id));
        let (dir, unwritten) = (Arc::clone(&self.context.dir), Arc::clone(&self.unwritten));
        (PastFiles { dir, manifest, files, unwritten }, held)
    }

    /// The beginning of the window, and the points.
    pub(crate) fn archive(&self) -> Archive {
        self.stored.lock().manifest.archive.clone()
    }

    /// Changes the points by `edit`, and stores them. A failure of `edit` changes nothing.
    ///
    /// # Errors
    /// That of `edit`. The manifest cannot be stored.
    pub(crate) fn change_points<T>(
        &self,
        last_lsn: Lsn,
        edit: impl FnOnce(&mut Archive) -> Result<T>,
    ) -> Result<T> {
        self.change(|stored| {
            let mut next = stored.manifest.clone();
            match edit(&mut next.archive) {
                Ok(done) => self.store(stored, next, last_lsn).map(|()| Ok(done)),
                Err(error) => Ok(Err(error)),
            }
        })?
    }

    /// Stores a manifest if archived segments or points have expired.
    pub(crate) fn expire_past(&self, last_lsn: Lsn) -> Result<()> {
        self.change(|stored| {
            let mut archive = stored.manifest.archive.clone();
            self.expire(&mut archive);
            if archive == stored.manifest.archive {
                return Ok(());
            }
            // `store` drops them from the manifest itself, and removes their files.
            let next = stored.manifest.clone();
            self.store(stored, next, last_lsn)
        })
    }

    /// Notes whether the disk is full. While it is, each manifest drops the archived segments that
    /// the policy gives up for that. If a backup has links of all of them, they stay: their removal
    /// would free no space.
    pub(crate) fn set_disk_full(&self, is_full: bool) {
        self.is_disk_full.store(is_full, Ordering::Relaxed);
    }

    /// Drops the archived segments that have expired. Returns the bytes that come free.
    pub(crate) fn give_up_past(&self, last_lsn: Lsn) -> Result<u64> {
        let before = self.freed_bytes();
        if self.past_bytes() > 0 {
            self.expire_past(last_lsn)?;
        }
        Ok(self.freed_bytes() - before)
    }

    /// Whether a compaction now would free space: the next manifest then drops an archived segment,
    /// perhaps the victim itself.
    pub(crate) fn lets_victims_go(&self, last_lsn: Lsn) -> bool {
        let len = self.segments.lock().values().map(|segment| segment.file_len() as u64).max();
        let mut archive = self.archive();
        let (len, replaced_unix_ms) = (len.unwrap_or_default(), self.context.env.clock.unix_time_ms());
        let victim = Archived { kind: SegmentKind::Log, len, replaced_lsn: last_lsn, replaced_unix_ms };
        archive.segments.insert(SegmentId::new(u64::MAX), victim);
        !self.expire(&mut archive).is_empty()
    }

    /// Whether the space of a segment comes free once nothing needs it. A link in a backup would
    /// hold it, and so would a reader of past states.
    pub(crate) fn holds_space_alone(&self, id: SegmentId) -> bool {
        self.leftovers.holds_space_alone(&directory::segment_file_name(id))
    }

    /// Bytes that have come free with removed files so far.
    pub(crate) fn freed_bytes(&self) -> u64 {
        self.leftovers.freed_bytes()
    }

    /// Bytes of the archived files.
    pub(crate) fn past_bytes(&self) -> u64 {
        self.archived.bytes.load(Ordering::Relaxed)
    }
}

impl Archive {
    /// The archived files that a state of the window needs.
    pub(crate) fn past_files(&self) -> Vec<PastFile> {
        let needed = self.segments.iter().filter(|(_, one)| one.replaced_lsn > self.first_lsn);
        let file = |(id, one): (&SegmentId, &Archived)| {
            let replaced_lsn = Some(one.replaced_lsn);
            PastFile { replaced_lsn, ..PastFile::sealed(*id, one.entry()) }
        };
        needed.map(file).collect()
    }
}
