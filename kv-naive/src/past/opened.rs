use kv_core::fs::{Dir, DirExt, File, FileExt, OpenMode};
use kv_core::{Error, Lsn, Op, Result};
use kv_wal_format::Record;
use std::path::{Path, PathBuf};

use crate::files::Files;
use crate::snapshot::{self, Loaded, kept_name};
use crate::snapshotter::Snapshotter;

/// Bytes copied at a time.
const CHUNK_LEN: usize = 1 << 20;

/// An open snapshot. It can still be read once the store has removed or replaced it.
pub(super) struct Opened {
    file: Box<dyn File>,
    path: PathBuf,
    lsn: Lsn,
    store_id: u32,
}

impl Opened {
    /// Opens the snapshot at `lsn` of a store, by its name.
    pub(super) fn open(files: &Files, name: &str, lsn: Lsn) -> Result<Self> {
        let (path, store_id) = (files.dir().path_of(name), files.store_id());
        Ok(Opened { file: snapshot::open(&**files.dir(), name)?, path, lsn, store_id })
    }

    /// Gives each entry to `visit`.
    pub(super) fn visit(&self, mut visit: impl FnMut(&Record<'_>)) -> Result<()> {
        let loaded = snapshot::read_open(&*self.file, &self.path, |record| {
            visit(record);
            true
        })?;
        self.check(&self.path, loaded)
    }

    /// Copies it, syncs the copy, reads that back, and gives it its name.
    pub(super) fn copy_to(&self, dir: &dyn Dir, name: &str) -> Result<()> {
        let temporary = format!("{name}.tmp");
        let copied = self.copy_bytes(dir, &temporary).and_then(|()| {
            let loaded = snapshot::read(dir, &temporary, |_| true)?;
            self.check(&dir.path_of(&temporary), loaded)
        });
        copied.inspect_err(|_| {
            let _ = dir.remove_file(&temporary);
        })?;
        dir.replace_durably(&temporary, name)
    }

    fn copy_bytes(&self, dir: &dyn Dir, name: &str) -> Result<()> {
        let path = dir.path_of(name);
        let into = dir
            .open(name, OpenMode::CreateOrTruncate)
            .map_err(|error| Error::io(Op::Create, &path, error))?;
        let (mut buffer, mut offset) = (vec![0; CHUNK_LEN], 0);
        loop {
            let read = self
                .file
                .read_full_at(&mut buffer, offset)
                .map_err(|error| Error::io(Op::Read, &self.path, error))?;
            let bytes = buffer.get(..read).unwrap_or_default();
            into.write_all_at(bytes, offset).map_err(|error| Error::io(Op::Write, &path, error))?;
            offset += read as u64;
            if read < CHUNK_LEN {
                return into.sync_all().map_err(|error| Error::sync(&path, error));
            }
        }
    }

    /// Checks that the file at `path`, with these facts, is this snapshot.
    fn check(&self, path: &Path, loaded: Loaded) -> Result<()> {
        if (loaded.lsn, loaded.store_id) == (self.lsn, self.store_id) {
            return Ok(());
        }
        let fault = format!("this is not the snapshot of LSN {} of the store", self.lsn);
        Err(Error::corruption(path, 0, fault))
    }
}

/// Opens the old snapshot at `lsn`, without the lead. `None`: it has expired meanwhile.
pub(super) fn open_old(snapshotter: &Snapshotter, lsn: Lsn) -> Result<Option<Opened>> {
    match Opened::open(snapshotter.files(), &kept_name(lsn), lsn) {
        // It expires before its file goes.
        Err(_) if !snapshotter.files().keeps(lsn) => Ok(None),
        // Another process may have the store since a close.
        Err(error) => snapshotter.check_readable().and(Err(error)),
        Ok(opened) => Ok(Some(opened)),
    }
}
