//! The catalog's side of checkpoints: the manifest names the newest one.

use kv_core::fs::{DirExt, File, OpenMode};
use kv_core::{Error, Lsn, Op, Result, SegmentId};

use super::catalog::Catalog;
use super::content::CheckpointName;
use super::creation::under_free_name;
use super::leftovers::Which;
use crate::directory;

impl Catalog {
    /// The id in the header of every file of the store.
    pub(crate) fn store_id(&self) -> u32 {
        self.stored.lock().manifest.store_id
    }

    /// Bytes of the newest checkpoint. 0 if there is none.
    pub(crate) fn checkpoint_bytes(&self) -> u64 {
        self.stored.lock().checkpoint_bytes
    }

    /// The checkpoint that the manifest names was loaded, and has `bytes` bytes. 0: it cannot be
    /// used, and the next manifest does not name it.
    pub(crate) fn loaded_checkpoint(&self, bytes: u64) {
        let mut stored = self.stored.lock();
        stored.checkpoint_bytes = bytes;
        if bytes == 0
            && let Some(CheckpointName { id, .. }) = stored.manifest.checkpoint.take()
        {
            self.leftovers.add_checkpoint(id, 0);
        }
    }

    /// Creates the file of a new checkpoint. A durable manifest has reserved its id, so that the
    /// file is known to be the store's after a crash.
    pub(crate) fn create_checkpoint(&self, last_lsn: Lsn) -> Result<(SegmentId, Box<dyn File>)> {
        under_free_name(|| {
            let id = self.change(|stored| self.take_id(stored, last_lsn))?;
            let (dir, name) = (&self.context.dir, directory::checkpoint_file_name(id));
            let file = dir.open(&name, OpenMode::CreateNew);
            Ok((id, file.map_err(|error| Error::io(Op::Create, &dir.path_of(&name), error))?))
        })
    }

    /// Makes the manifest name a checkpoint of `bytes` bytes, whose file is synced. Then removes
    /// the one before.
    pub(crate) fn name_checkpoint(&self, name: CheckpointName, bytes: u64, last_lsn: Lsn) -> Result<()> {
        self.change(|stored| {
            let mut next = stored.manifest.clone();
            let before = next.checkpoint.replace(name);
            self.context.dir.sync_durably().and_then(|()| self.store(stored, next, last_lsn))?;
            let bytes_before = std::mem::replace(&mut stored.checkpoint_bytes, bytes);
            if let Some(CheckpointName { id, .. }) = before {
                self.leftovers.add_checkpoint(id, bytes_before);
                self.leftovers.remove(Which::Due);
            }
            Ok(())
        })
        .inspect_err(|error| {
            if error.is_refusal() {
                self.discard_checkpoint(name.id);
            }
        })
    }

    /// Gives back the space of a checkpoint that no manifest names.
    pub(crate) fn discard_checkpoint(&self, id: SegmentId) {
        self.leftovers.discard_checkpoint(id);
    }

    /// Gives back the space of the newest checkpoint. Returns its bytes. The manifest may go on to
    /// name it: an open without its checkpoint replays the log. After a close, the checkpoint
    /// stays: the directory may be another opening's.
    pub(crate) fn drop_checkpoint(&self) -> u64 {
        let mut stored = self.stored.lock();
        if stored.is_closed {
            return 0;
        }
        let Some(CheckpointName { id, .. }) = stored.manifest.checkpoint.take() else { return 0 };
        self.leftovers.discard_checkpoint(id);
        std::mem::take(&mut stored.checkpoint_bytes)
    }
}
