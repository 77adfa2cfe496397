use kv_core::fs::{Dir, DirExt, File, FileExt, OpenMode};
use kv_core::{Error, Lsn, Op, Result};
use kv_wal_format::{
    Decoder, Mark, Record, RecordKind, SEGMENT_HEADER_LEN, Seal, SegmentHeader, SegmentKind, Step,
};
use std::path::Path;

use super::BASE_LSN;
use crate::identity::header_error;

/// A header and a mark have fewer bytes.
const HEAD_LEN: usize = 128;

/// Bytes read at a time.
const CHUNK_LEN: usize = 1 << 20;

/// The facts of a loaded snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Where it stands.
    pub(crate) lsn: Lsn,
    pub(crate) store_id: u32,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Its changes had been made by then, if it tells.
    pub(crate) unix_ms: Option<u64>,
}

/// Opens the snapshot `name` of `dir` for reading.
pub(crate) fn open(dir: &dyn Dir, name: &str) -> Result<Box<dyn File>> {
    dir.open(name, OpenMode::Read).map_err(|error| Error::io(Op::Open, &dir.path_of(name), error))
}

/// Reads the snapshot `name` of `dir`, which must be whole, and gives its puts to `insert`; that
/// answers whether the key is new.
pub(crate) fn read(dir: &dyn Dir, name: &str, insert: impl FnMut(&Record<'_>) -> bool) -> Result<Loaded> {
    read_open(&*open(dir, name)?, &dir.path_of(name), insert)
}

/// As [`read`], of an open file. `path` is for errors.
pub(crate) fn read_open(
    file: &dyn File,
    path: &Path,
    mut insert: impl FnMut(&Record<'_>) -> bool,
) -> Result<Loaded> {
    let mut window = Window { file, path, buffer: Vec::new(), start: 0, offset: 0 };
    let header = read_header(&mut window)?;
    let lsn = header.segment_id;
    let decoder = Decoder::new(header.origin());
    let (mut records, mut unix_ms) = (0, None);
    loop {
        let offset = window.offset;
        let damaged = |fault: &str| Err(Error::corruption(path, offset, fault));
        let (len, sealed) = match decoder.step(window.rest()) {
            Step::Record { record, len } => match record.kind {
                RecordKind::Put if !record.more && (1..=lsn).contains(&record.lsn) => {
                    if !insert(&record) {
                        return damaged("this record has the key of an earlier one");
                    }
                    records += 1;
                    (len, false)
                }
                RecordKind::Mark if records == 0 && unix_ms.is_none() && record.lsn == lsn => {
                    unix_ms = Mark::from_record(&record).map(|mark| mark.unix_time_ms);
                    (len, false)
                }
                RecordKind::Seal if Seal::from_record(&record) == Some(Seal { records, max_lsn: lsn }) => {
                    (len, true)
                }
                _ => return damaged(&misfit(&record, Seal { records, max_lsn: lsn })),
            },
            // The window may end inside a record.
            Step::Torn | Step::End => match window.extend()? {
                0 => return damaged("the snapshot ends here without its seal"),
                _ => (0, false),
            },
            Step::Corrupt(corruption) => return damaged(&corruption.to_string()),
        };
        window.advance(len);
        if sealed {
            break;
        }
    }
    if !window.rest().is_empty() || window.extend()? > 0 {
        return Err(Error::corruption(path, window.offset, "bytes follow the seal"));
    }
    let (lsn, store_id) = (Lsn::new(lsn), header.store_id);
    Ok(Loaded { lsn, store_id, records, bytes: window.offset, unix_ms })
}

/// The facts before the entries of a snapshot, as they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The length of its file.
    pub(crate) bytes: u64,
    /// Its LSN, and the id of its store. `None`: the header is damaged, or cannot be read.
    pub(crate) identity: Option<(Lsn, u32)>,
    /// Its changes had been made by then, if it tells.
    pub(crate) unix_ms: Option<u64>,
}

/// Reads the beginning of the snapshot `name`.
pub(crate) fn read_facts(dir: &dyn Dir, name: &str) -> Result<Facts> {
    let (path, file) = (dir.path_of(name), open(dir, name)?);
    let bytes = file.len().map_err(|error| Error::io(Op::Measure, &path, error))?;
    let mut head = [0; HEAD_LEN];
    let read = file.read_full_at(&mut head, 0).map_err(|error| Error::io(Op::Read, &path, error))?;
    let head = head.get(..read).unwrap_or_default();
    let header = SegmentHeader::decode(head).ok();
    let mark = header.and_then(|header| {
        match Decoder::new(header.origin()).step(head.get(SEGMENT_HEADER_LEN..).unwrap_or_default()) {
            Step::Record { record, .. } => Mark::from_record(&record),
            _ => None,
        }
    });
    let identity = header.map(|header| (Lsn::new(header.segment_id), header.store_id));
    Ok(Facts { bytes, identity, unix_ms: mark.map(|mark| mark.unix_time_ms) })
}

/// The fault of a record that a snapshot does not have at its place, behind the records that `held`
/// counts.
fn misfit(record: &Record<'_>, held: Seal) -> String {
    let Record { kind, lsn, .. } = record;
    match Seal::from_record(record) {
        Some(seal) => format!("the seal counts {seal}, the snapshot holds {held}"),
        None => format!("this {kind} of LSN {lsn} does not belong in a snapshot of LSN {}", held.max_lsn),
    }
}

fn read_header(window: &mut Window<'_>) -> Result<SegmentHeader> {
    window.extend()?;
    let header = SegmentHeader::decode(window.rest()).map_err(|error| header_error(window.path, error))?;
    let SegmentHeader { kind, segment_id: lsn, base_lsn: base, .. } = header;
    if kind != SegmentKind::Snapshot || base != BASE_LSN {
        let fault =
            format!("this is not a snapshot: its header is of {kind} segment {lsn} with base LSN {base}");
        return Err(Error::corruption(window.path, 0, fault));
    }
    window.advance(SEGMENT_HEADER_LEN);
    Ok(header)
}

/// A moving part of the file.
struct Window<'a> {
    file: &'a dyn File,
    path: &'a Path,
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that are done with.
    start: usize,
    /// Where in the file the rest begins.
    offset: u64,
}

impl Window<'_> {
    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn advance(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }

    /// Reads on; returns how many bytes came.
    fn extend(&mut self) -> Result<usize> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept + CHUNK_LEN, 0);
        let room = self.buffer.get_mut(kept..).unwrap_or_default();
        let read = self
            .file
            .read_full_at(room, self.offset + kept as u64)
            .map_err(|error| Error::io(Op::Read, self.path, error))?;
        self.buffer.truncate(kept + read);
        Ok(read)
    }
}
