use kv_core::fs::{DirExt, File};
use kv_core::{Error, Lsn, Result};
use kv_wal_format::Record;
use std::path::PathBuf;

use crate::files::Files;
use crate::snapshot::{self, kept_name};
use crate::snapshotter::Snapshotter;

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
        if (loaded.lsn, loaded.store_id) != (self.lsn, self.store_id) {
            let fault = format!("this is not the snapshot of LSN {} of this store", self.lsn);
            return Err(Error::corruption(&self.path, 0, fault));
        }
        Ok(())
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
