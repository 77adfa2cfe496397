//! The files of a directory that holds a store, and the manifest.

use kv_core::fs::{Dir, DirExt, DirLock, FsExt, LockKind, OpenMode};
use kv_core::{Env, Error, Result, SegmentId};
use kv_wal_format::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::origin::KnownLsns;
use crate::directory::{self, Content};
use crate::manifest::{Archived, Entry, Manifest, header_error};

/// A segment file to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) id: SegmentId,
    /// Its number among all segments, in the order of ids.
    pub(super) number: u32,
    /// The manifest's entry. `None` if there is no manifest, or it does not name the segment.
    pub(super) entry: Option<Entry>,
    /// Whether only past states need it.
    pub(super) is_archived: bool,
}

impl Source {
    /// Bytes of the file that belong to the segment.
    pub(super) fn len_max(&self) -> u64 {
        self.entry.filter(|entry| entry.sealed).map_or(u64::MAX, |entry| entry.durable_len)
    }
}

/// A directory that holds a store, whole or damaged. No writer changes it while this lives.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) dir: Arc<dyn Dir>,
    pub(super) names: Vec<String>,
    /// The manifest, or its damage.
    pub(crate) manifest: Result<Manifest>,
    _lock: Box<dyn DirLock>,
}

impl Survey {
    /// Of the store in `dir`. Takes the lock of a reader.
    ///
    /// # Errors
    /// There is no store; a writer has it open; another format version wrote it; the system
    /// refuses.
    pub(crate) fn open(env: &Env, dir: &Path) -> Result<Self> {
        let not_a_store = |detail| Err(Error::NotAStore { path: dir.to_path_buf(), detail });
        let missing = "there is no kv-log store here; correct the path";
        let Some(dir_handle) = env.fs.open_dir_if_exists(dir)? else {
            return not_a_store(missing.to_owned());
        };
        let names = dir_handle.names()?;
        match directory::classify(&names) {
            Content::Empty => return not_a_store(missing.to_owned()),
            Content::Foreign(name) => return not_a_store(directory::describe_foreign(&name)),
            Content::Store | Content::ManifestMissing => {}
        }
        let lock = dir_handle.lock_or_refuse(LockKind::Shared)?;
        let names = dir_handle.names()?;
        let manifest = match Manifest::load(&*dir_handle) {
            Err(error) if !is_damage(&error) => return Err(error),
            loaded => loaded,
        };
        let survey = Survey { dir: dir_handle, names, manifest, _lock: lock };
        survey.other_version().map_or(Ok(survey), Err)
    }

    /// The error for a store of another format version. `None` if any file is of this version: then
    /// a header that names another version is damaged.
    fn other_version(&self) -> Option<Error> {
        let manifest = self.manifest.as_ref().err()?;
        let mut versions = Vec::from_iter(version_of(manifest));
        let mut first = versions.first().map(|_| manifest.clone());
        for id in self.segment_ids() {
            let mut bytes = Vec::new();
            self.read(id, SEGMENT_HEADER_LEN as u64, &mut bytes).ok()?;
            let path = self.dir.path_of(&directory::segment_file_name(id));
            let error = header_error(&path, SegmentHeader::decode(&bytes).err()?);
            versions.push(version_of(&error)?);
            first = first.or(Some(error));
        }
        versions.dedup();
        first.filter(|_| versions.len() == 1)
    }

    /// The ids of all segment files, in order.
    pub(super) fn segment_ids(&self) -> Vec<SegmentId> {
        let mut ids: Vec<_> =
            self.names.iter().filter_map(|name| directory::parse_segment_file_name(name)).collect();
        ids.sort_unstable();
        ids
    }

    /// The segments of the store, and the other segment files, archived ones included. Each part is
    /// in the order of ids. Numbers go through both parts together.
    pub(super) fn sources(&self) -> (Vec<Source>, Vec<Source>) {
        let manifest = self.manifest.as_ref().ok();
        let mut ids: BTreeSet<SegmentId> = self.segment_ids().into_iter().collect();
        let names = |manifest: &Manifest| {
            manifest.segments.keys().chain(manifest.archive.segments.keys()).copied().collect::<Vec<_>>()
        };
        ids.extend(manifest.map(names).unwrap_or_default());
        let source = |(number, id): (u32, SegmentId)| {
            let live = manifest.and_then(|manifest| manifest.segments.get(&id)).copied();
            let archived = manifest.and_then(|manifest| manifest.archive.segments.get(&id));
            let entry = live.or_else(|| archived.map(Archived::entry));
            Source { id, number, entry, is_archived: archived.is_some() }
        };
        (0..).zip(ids).map(source).partition(|source| source.entry.is_some() && !source.is_archived)
    }

    /// The id of the store: as the manifest says, or else as most segments say.
    pub(super) fn store_id(&self) -> Option<u32> {
        if let Ok(manifest) = &self.manifest {
            return Some(manifest.store_id);
        }
        let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
        let mut bytes = Vec::new();
        for id in self.segment_ids() {
            let read = self.read(id, SEGMENT_HEADER_LEN as u64, &mut bytes);
            if let Some(header) = read.ok().and_then(|_| SegmentHeader::decode(&bytes).ok()) {
                *votes.entry(header.store_id).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(store_id, _)| store_id)
    }

    /// What the manifest tells of the LSNs in the segment `id`. `None` without a manifest.
    pub(super) fn known_lsns(&self, id: SegmentId) -> Option<KnownLsns> {
        let manifest = self.manifest.as_ref().ok()?;
        let is_newest = |entry: &Entry| entry.kind == SegmentKind::Log && !entry.sealed;
        let entry = manifest.segments.get(&id).filter(|entry| is_newest(entry));
        let last_min = entry.map_or(0, |_| manifest.durable_lsn.get());
        Some(KnownLsns { last_min, ceiling: manifest.lsn_ceiling.get() })
    }

    /// The length of a segment's file, bytes. 0 if it is missing.
    pub(super) fn file_len(&self, id: SegmentId) -> u64 {
        self.dir
            .open(&directory::segment_file_name(id), OpenMode::Read)
            .and_then(|file| file.len())
            .unwrap_or(0)
    }

    /// As [`directory::read_segment`].
    pub(crate) fn read(&self, id: SegmentId, len_max: u64, bytes: &mut Vec<u8>) -> Result<u64> {
        directory::read_segment(&*self.dir, id, len_max, bytes)
    }
}

/// The format version that a file names, if this release does not read it.
fn version_of(error: &Error) -> Option<u32> {
    match error {
        Error::UnsupportedVersion { found, .. } => Some(*found),
        _ => None,
    }
}

/// Whether `error` is of the file itself, and not of the process or its rights.
pub(crate) fn is_damage(error: &Error) -> bool {
    match error {
        Error::Corruption { .. } | Error::UnsupportedVersion { .. } => true,
        Error::Io { .. } => !error.is_permission_denied() && !error.is_refusal(),
        _ => false,
    }
}

/// The fault in an error of a damaged file, without the name of the file.
pub(super) fn fault_of(error: &Error) -> (u64, String) {
    match error {
        Error::Corruption { offset, detail, .. } => {
            let fault = detail.split_once("; restore").map_or(detail.as_str(), |(fault, _)| fault);
            (*offset, fault.to_owned())
        }
        Error::UnsupportedVersion { found, supported, .. } => (
            0,
            format!("the header names format version {found}, and this release reads version {supported}"),
        ),
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            (0, "the file is missing".to_owned())
        }
        Error::Io { source, .. } => (0, format!("the file cannot be read: {source}")),
        other => (0, other.to_string()),
    }
}
