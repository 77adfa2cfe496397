//! Passes over the files that hold past states.

use kv_core::fs::DirExt;
use kv_core::{Background, Error, Lsn, Result, Value};
use kv_wal_format::{
    Decoder, Mark, Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, SegmentHeader, SegmentKind, Step,
    StopReason,
};
use std::collections::BTreeMap;

use crate::directory;
use crate::manifest::{PastFile, PastFiles, header_of};
use crate::processors::each_on_all_processors;
use crate::segments::SEGMENT_BYTES_MAX;

impl PastFiles {
    /// The files that the state at `lsn` needs.
    pub(super) fn needed_at(&self, lsn: Lsn) -> impl Iterator<Item = &PastFile> {
        self.files.iter().filter(move |file| file.replaced_lsn.is_none_or(|replaced| replaced > lsn))
    }

    /// The times in the marks of all files that can be read. A damaged file tells those before its
    /// damage.
    pub(super) fn marks(&self, background: Background) -> Vec<(Lsn, u64)> {
        let archived = self.manifest.archive.segments.values();
        let mut marks: Vec<(Lsn, u64)> =
            archived.map(|one| (one.replaced_lsn, one.replaced_unix_ms)).collect();
        let logs: Vec<&PastFile> = self.files.iter().filter(|file| file.kind == SegmentKind::Log).collect();
        let of_file = |file: &&PastFile, bytes: &mut Vec<u8>| {
            // A target that needs a file that cannot be read fails there.
            Ok(self.read(file, bytes).map_or_else(|_| Vec::new(), |()| marks_of(bytes)))
        };
        let of_files = each_on_all_processors(background, &logs, of_file).unwrap_or_default();
        marks.extend(of_files.into_iter().flatten());
        marks
    }

    /// The versions of `key` in `files` up to `lsn` by their LSNs.
    ///
    /// # Errors
    /// One of the files is missing or damaged.
    pub(super) fn versions(
        &self,
        files: &[&PastFile],
        key: &[u8],
        lsn: Lsn,
        background: Background,
    ) -> Result<BTreeMap<u64, Option<Value>>> {
        let of_files = each_on_all_processors(background, files, |file, bytes| {
            let mut versions = Vec::new();
            self.read(file, bytes)?;
            self.check(file, bytes, lsn, |record| {
                if record.key == key {
                    let value = (record.kind == RecordKind::Put).then(|| Value::from(record.value));
                    versions.push((record.lsn, value));
                }
            })?;
            Ok(versions)
        })?;
        // Several files may hold copies of a record.
        Ok(of_files.into_iter().flatten().collect())
    }

    /// Checks `bytes`, those of `file`, and calls `visit` with each change up to `lsn`.
    pub(super) fn check<'a>(
        &self,
        file: &PastFile,
        bytes: &'a [u8],
        lsn: Lsn,
        mut visit: impl FnMut(Record<'a>),
    ) -> Result<()> {
        let path = self.dir.path_of(&directory::segment_file_name(file.id));
        let header = header_of(&path, bytes, file.kind, file.id, self.manifest.store_id)?;
        if header.kind == SegmentKind::Log && header.base_lsn >= lsn.get() {
            // Its changes are newer, and its damage does not matter.
            return Ok(());
        }
        let mut scanner = Scanner::new(header.origin(), bytes, SEGMENT_HEADER_LEN);
        for (_, record) in scanner.by_ref() {
            if record.kind.is_change() && record.lsn <= lsn.get() {
                visit(record);
            }
        }
        let stop = scanner.stop();
        if stop.offset != bytes.len() || file.is_sealed && stop.reason != StopReason::Sealed {
            return Err(Error::corruption(&path, stop.fault as u64, stop.reason));
        }
        Ok(())
    }

    /// Reads the records of `file`, those included that only the tail holds.
    pub(super) fn read(&self, file: &PastFile, bytes: &mut Vec<u8>) -> Result<()> {
        let path = self.dir.path_of(&directory::segment_file_name(file.id));
        if file.len > SEGMENT_BYTES_MAX as u64 {
            let fault = format!("the manifest says that it has {} bytes, more than a segment has", file.len);
            return Err(Error::corruption(&path, 0, fault));
        }
        directory::read_segment(&*self.dir, file.id, file.len, bytes)?;
        if let Some(rest) = self.unwritten.get(&file.id) {
            rest.complete(bytes);
        }
        let read = bytes.len() as u64;
        if read < file.len {
            let fault = format!("the file ends here, and was {} bytes long", file.len);
            return Err(Error::corruption(&path, read, fault));
        }
        Ok(())
    }
}

/// The times in the marks of a log segment, up to damage.
fn marks_of(bytes: &[u8]) -> Vec<(Lsn, u64)> {
    let mut marks = Vec::new();
    let Ok(header) = SegmentHeader::decode(bytes) else { return marks };
    let (decoder, mut at) = (Decoder::new(header.origin()), SEGMENT_HEADER_LEN);
    while let Some(info) = decoder.check_header(bytes.get(at..).unwrap_or_default()) {
        if info.kind == RecordKind::Mark
            && let Step::Record { record, .. } = decoder.step(bytes.get(at..).unwrap_or_default())
            && let Some(mark) = Mark::from_record(&record)
        {
            marks.push((Lsn::new(record.lsn), mark.unix_time_ms));
        }
        at = at.saturating_add(info.encoded_len());
    }
    marks
}
