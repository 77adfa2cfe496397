//! The directory of a new store that a tool writes whole: a repair, or a restore.
//!
//! | after | the new directory holds | an opening |
//! |---|---|---|
//! | the mark | `LOCK`, and the mark | refuses it: the mark is not a file of a store |
//! | a segment | a segment as well, but no manifest | refuses it |
//! | the manifest | the whole store, and the mark | opens it |
//! | the end | the whole store | opens it |

use kv_core::fs::{Dir, DirExt, DirLock, FileExt, FsExt, LOCK_FILE, LockKind, OpenMode, is_system_file};
use kv_core::{Env, Error, Op, Result, SegmentId};
use kv_wal_format::{Encoder, Record, Seal, SegmentHeader, SegmentKind};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::directory;
use crate::manifest::{Entry, Manifest};

/// A new store begins only where no files are, or those of the operating system.
pub(crate) fn refuse_unless_empty(dst: &Path, names: &[String]) -> Result<()> {
    match names.iter().find(|name| *name != LOCK_FILE && !is_system_file(name)) {
        Some(name) => Err(Error::InvalidArgument(format!(
            "{} is not empty: it holds {name}; name a directory that is missing or empty",
            dst.display()
        ))),
        None => Ok(()),
    }
}

/// The directory of the new store.
#[derive(Debug)]
pub(crate) struct NewStore {
    pub(crate) dir: Arc<dyn Dir>,
    /// The name of the file that marks the directory while the store is not whole.
    mark: &'static str,
    _lock: Box<dyn DirLock>,
}

impl NewStore {
    /// Creates the directory, and marks it.
    pub(crate) fn begin(env: &Env, dst: &Path, mark: &'static str) -> Result<Self> {
        env.fs.create_dir_durably(dst)?;
        let dir = env.fs.open_dir(dst).map_err(|error| Error::io(Op::Open, dst, error))?;
        let lock = dir.lock_or_refuse(LockKind::Exclusive)?;
        refuse_unless_empty(dst, &dir.names()?)?;
        let target = NewStore { dir, mark, _lock: lock };
        let marked = target.write_file(mark, b"").and_then(|()| target.dir.sync_durably());
        target.undo_on_error(marked)?;
        Ok(target)
    }

    /// Writes and syncs a compacted segment of `records`. `out` is a buffer.
    pub(crate) fn write_segment(
        &self,
        id: SegmentId,
        store_id: u32,
        records: &[Record<'_>],
        out: &mut Vec<u8>,
    ) -> Result<Entry> {
        encode(id, store_id, records, out);
        self.write_file(&directory::segment_file_name(id), out)?;
        Ok(Entry { kind: SegmentKind::Compacted, sealed: true, durable_len: out.len() as u64 })
    }

    /// Makes the directory a store.
    pub(crate) fn finish(&self, manifest: &Manifest) -> Result<()> {
        // The segments must be there before the manifest names them.
        self.dir.sync_durably()?;
        manifest.store(&*self.dir)?;
        let path = self.dir.path_of(self.mark);
        self.dir.remove_file(self.mark).map_err(|error| Error::io(Op::Remove, &path, error))?;
        self.dir.sync_durably()
    }

    fn write_file(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.dir.path_of(name);
        let file =
            self.dir.open(name, OpenMode::CreateNew).map_err(|error| Error::io(Op::Create, &path, error))?;
        file.write_all_at(content, 0).map_err(|error| Error::io(Op::Write, &path, error))?;
        file.sync_all().map_err(|error| Error::sync(&path, error))
    }

    /// Removes the files after an error, as far as the system allows. The manifest goes first, so
    /// that no part passes for a store.
    pub(crate) fn undo_on_error<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            let _ = self.dir.remove_file(directory::MANIFEST);
            let names = self.dir.list().unwrap_or_default();
            let is_own = |name: &&String| *name != LOCK_FILE && *name != self.mark && !is_system_file(name);
            for name in names.iter().filter(is_own) {
                let _ = self.dir.remove_file(name);
            }
            let _ = self.dir.remove_file(self.mark);
        }
        result
    }
}

/// A whole compacted segment of `records`, as bytes in `out`.
fn encode(id: SegmentId, store_id: u32, records: &[Record<'_>], out: &mut Vec<u8>) {
    let lsns: BTreeSet<u64> = records.iter().map(|record| record.lsn).collect();
    let base_lsn = lsns.first().copied().unwrap_or(0);
    let header = SegmentHeader { kind: SegmentKind::Compacted, segment_id: id.get(), base_lsn, store_id };
    out.clear();
    out.extend_from_slice(&header.encode());
    let encoder = Encoder::new(header.origin());
    let max_lsn = lsns.last().copied().unwrap_or(0);
    let seal = Seal { records: records.len() as u64, max_lsn }.encode_body();
    let changes = records.iter().map(|record| Record { more: false, ..*record });
    for record in changes.chain([Record::seal(max_lsn, &seal)]) {
        encoder.append(&record, out).expect("a record that was decoded can be encoded");
    }
}
