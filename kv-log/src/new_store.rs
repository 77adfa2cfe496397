//! The directory of a new store that a tool writes whole: a repair, or a restore.
//!
//! | after | the new directory holds | an opening |
//! |---|---|---|
//! | the mark | `LOCK`, and the mark | refuses it: the mark is not a file of a store |
//! | a segment | a segment as well, but no manifest | refuses it |
//! | the manifest | the whole store, and the mark | opens it |
//! | the end | the whole store | opens it |

use kv_core::fs::{Dir, DirExt, LOCK_FILE, OpenMode, is_system_file};
use kv_core::parts::Destination;
use kv_core::{Env, Error, Op, Result, SegmentId};
use kv_wal_format::{Encoder, Record, SEGMENT_HEADER_LEN, Seal, SegmentHeader, SegmentKind};
use std::path::Path;
use std::sync::Arc;

use crate::directory;
use crate::manifest::{Entry, Manifest};
use crate::segments::{SegmentFile, SegmentFiles, Via};

/// Bytes of a page. Direct I/O transfers from whole ones.
const PAGE_BYTES: usize = 4096;

/// The directory of the new store.
#[derive(Debug)]
pub(crate) struct NewStore {
    pub(crate) dir: Arc<dyn Dir>,
    files: Arc<SegmentFiles>,
    /// The name of the file that marks the directory while the store is not whole.
    mark: &'static str,
    _destination: Destination,
}

impl NewStore {
    /// Creates the directory, and marks it.
    pub(crate) fn begin(env: &Env, dst: &Path, mark: &'static str) -> Result<Self> {
        let destination = Destination::for_store(&*env.fs, dst)?;
        let dir = Arc::clone(&destination.dir);
        let files = SegmentFiles::new(Arc::clone(&dir), 0);
        let target = NewStore { dir, files, mark, _destination: destination };
        let marked = target.write_mark().and_then(|()| target.dir.sync_durably());
        target.undo_on_error(marked)?;
        Ok(target)
    }

    /// Writes and syncs a compacted segment of `records`. `out` is a buffer. No reader needs the
    /// bytes soon, so they pass by the system's cache.
    pub(crate) fn write_segment(
        &self,
        id: SegmentId,
        store_id: u32,
        records: &[Record<'_>],
        out: &mut Vec<u8>,
    ) -> Result<Entry> {
        let contents = encode(id, store_id, records, out);
        let mut file = SegmentFile::create(&self.files, id, contents.len())?;
        file.begin(contents, Via::Direct)?;
        file.sync()?;
        Ok(Entry { kind: SegmentKind::Compacted, sealed: true, durable_len: contents.len() as u64 })
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

    fn write_mark(&self) -> Result<()> {
        let (name, path) = (self.mark, self.dir.path_of(self.mark));
        let file =
            self.dir.open(name, OpenMode::CreateNew).map_err(|error| Error::io(Op::Create, &path, error))?;
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

/// A whole compacted segment of `records`, as bytes in `out`. They begin at a page of memory, as
/// direct I/O demands.
fn encode<'a>(id: SegmentId, store_id: u32, records: &[Record<'_>], out: &'a mut Vec<u8>) -> &'a [u8] {
    let lsns = || records.iter().map(|record| record.lsn);
    let (base_lsn, max_lsn) = (lsns().min().unwrap_or(0), lsns().max().unwrap_or(0));
    let header = SegmentHeader { kind: SegmentKind::Compacted, segment_id: id.get(), base_lsn, store_id };
    let encoder = Encoder::new(header.origin());
    let seal = Seal { records: records.len() as u64, max_lsn }.encode_body();
    let changes = records.iter().map(|record| Record { more: false, ..*record });
    let all = || changes.clone().chain([Record::seal(max_lsn, &seal)]);
    let len: usize = all().map(|record| encoder.encoded_len(&record)).sum();
    out.clear();
    // Within the reserved memory, the bytes stay where they are.
    out.reserve(PAGE_BYTES + SEGMENT_HEADER_LEN + len);
    let start = out.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
    out.resize(start, 0);
    out.extend_from_slice(&header.encode());
    for record in all() {
        encoder.append(&record, out).expect("a record that was decoded can be encoded");
    }
    out.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_wal_format::{Scanner, StopReason};

    #[test]
    fn a_segment_is_whole_and_begins_at_a_page() {
        let (value, mut out) = (vec![7; 3000], Vec::new());
        for count in [1, 0, 200, 3] {
            let records: Vec<Record<'_>> =
                (0..count).rev().map(|lsn| Record::put(1000 + lsn, b"key", &value).with_more()).collect();
            let bytes = encode(SegmentId::new(9), 5, &records, &mut out);
            assert_eq!(bytes.as_ptr().align_offset(PAGE_BYTES), 0);
            let (header, mut scanner) = Scanner::open(bytes).unwrap();
            assert_eq!((header.segment_id, header.store_id), (9, 5));
            let found: Vec<u64> = scanner.by_ref().map(|(_, record)| record.lsn).collect();
            let lsns = records.iter().map(|record| record.lsn);
            let seal_lsn = lsns.clone().max().unwrap_or(0);
            assert_eq!(found, lsns.chain([seal_lsn]).collect::<Vec<_>>());
            let stop = scanner.stop();
            assert_eq!((stop.reason, stop.offset), (StopReason::Sealed, bytes.len()));
        }
    }
}
