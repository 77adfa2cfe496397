//! Passes over the files that hold past states.

use kv_core::fs::DirExt;
use kv_core::{Error, Lsn, Result, Value};
use kv_wal_format::{
    Decoder, Mark, Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, SegmentHeader, SegmentKind, Step,
    StopReason,
};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::directory;
use crate::manifest::{PastFile, PastFiles, header_error, misfit};
use crate::segments::SEGMENT_BYTES_MAX;

/// A version of a key: the LSN of its change, and its value. `None`: it was deleted.
pub(super) type Found = (u64, Option<Value>);

/// The newest version of each key.
pub(super) type State = BTreeMap<Vec<u8>, Found>;

impl PastFiles {
    /// The files that the state at `lsn` needs.
    pub(super) fn needed_at(&self, lsn: Lsn) -> impl Iterator<Item = &PastFile> {
        self.files.iter().filter(move |file| file.replaced_lsn.is_none_or(|replaced| replaced > lsn))
    }

    /// The times in the marks of all files that can be read. A damaged file tells those before its
    /// damage.
    pub(super) fn marks(&self) -> Vec<(Lsn, u64)> {
        let archived = self.manifest.archive.segments.values();
        let mut marks: Vec<(Lsn, u64)> =
            archived.map(|one| (one.replaced_lsn, one.replaced_unix_ms)).collect();
        let mut bytes = Vec::new();
        for file in self.files.iter().filter(|file| file.kind == SegmentKind::Log) {
            // A target that needs this file fails there.
            let Ok(()) = self.read(file, &mut bytes) else { continue };
            let Ok(header) = SegmentHeader::decode(&bytes) else { continue };
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
        }
        marks
    }

    /// The state at `lsn`, with the keys that were deleted.
    ///
    /// # Errors
    /// A file that the state needs is missing or damaged.
    pub(super) fn state_at(&self, lsn: Lsn) -> Result<State> {
        let mut state = State::new();
        let mut bytes = Vec::new();
        for file in self.needed_at(lsn) {
            self.scan(file, &mut bytes, lsn, |record| {
                let value = || (record.kind == RecordKind::Put).then(|| Value::from(record.value));
                match state.get_mut(record.key) {
                    Some(known) if known.0 >= record.lsn => {}
                    Some(known) => *known = (record.lsn, value()),
                    None => drop(state.insert(record.key.to_vec(), (record.lsn, value()))),
                }
            })?;
        }
        Ok(state)
    }

    /// The versions of `key` up to `lsn` by their LSNs.
    ///
    /// # Errors
    /// As for [`state_at`](Self::state_at), for any state of the window.
    pub(super) fn versions(&self, key: &[u8], lsn: Lsn) -> Result<BTreeMap<u64, Option<Value>>> {
        let mut versions = BTreeMap::new();
        let mut bytes = Vec::new();
        for file in &self.files {
            self.scan(file, &mut bytes, lsn, |record| {
                if record.key == key
                    && let Entry::Vacant(free) = versions.entry(record.lsn)
                {
                    free.insert((record.kind == RecordKind::Put).then(|| Value::from(record.value)));
                }
            })?;
        }
        Ok(versions)
    }

    /// Calls `visit` with each change of `file` up to `lsn`, and checks all of the file.
    fn scan(
        &self,
        file: &PastFile,
        bytes: &mut Vec<u8>,
        lsn: Lsn,
        visit: impl FnMut(&Record<'_>),
    ) -> Result<()> {
        self.read(file, bytes)?;
        self.check(file, bytes, lsn, visit)
    }

    /// Checks `bytes`, those of `file`, and calls `visit` with each change up to `lsn`.
    pub(super) fn check(
        &self,
        file: &PastFile,
        bytes: &[u8],
        lsn: Lsn,
        mut visit: impl FnMut(&Record<'_>),
    ) -> Result<()> {
        let path = self.dir.path_of(&directory::segment_file_name(file.id));
        let header = SegmentHeader::decode(bytes).map_err(|error| header_error(&path, error))?;
        if let Some(fault) = misfit(&header, file.kind, file.id, self.manifest.store_id) {
            return Err(Error::corruption(&path, 0, fault));
        }
        if header.kind == SegmentKind::Log && header.base_lsn >= lsn.get() {
            // Its changes are newer, and its damage does not matter.
            return Ok(());
        }
        let mut scanner = Scanner::new(header.origin(), bytes, SEGMENT_HEADER_LEN);
        for (_, record) in scanner.by_ref() {
            if record.kind.is_change() && record.lsn <= lsn.get() {
                visit(&record);
            }
        }
        let stop = scanner.stop();
        if stop.offset != bytes.len() || file.is_sealed && stop.reason != StopReason::Sealed {
            return Err(Error::corruption(&path, stop.fault as u64, stop.reason));
        }
        Ok(())
    }

    /// Reads the records of `file`.
    pub(super) fn read(&self, file: &PastFile, bytes: &mut Vec<u8>) -> Result<()> {
        let path = self.dir.path_of(&directory::segment_file_name(file.id));
        if file.len > SEGMENT_BYTES_MAX as u64 {
            let fault = format!("the manifest says that it has {} bytes, more than a segment has", file.len);
            return Err(Error::corruption(&path, 0, fault));
        }
        directory::read_segment(&*self.dir, file.id, file.len, bytes)?;
        let read = bytes.len() as u64;
        if read < file.len {
            let fault = format!("the file ends here, and was {} bytes long", file.len);
            return Err(Error::corruption(&path, read, fault));
        }
        Ok(())
    }
}
