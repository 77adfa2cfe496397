//! One segment file: read, checked, and described.

use kv_core::fs::DirExt;
use kv_core::{Result, SegmentId};
use kv_wal_format::{Mark, Origin, RecordKind, SEGMENT_HEADER_LEN, Seal, SegmentHeader, SegmentKind};
use std::path::Path;

use super::damage::{Damage, Lost};
use super::newest::Changes;
use super::origin::origin_of;
use super::survey::{Source, Survey, fault_of, is_damage};
use super::walk::{Broken, Piece, Walked, walk};
use crate::directory;
use crate::manifest::header_error;
use crate::recovery::{Ending, Scanned, sealed_ending};

/// The description of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentSummary {
    /// Its id.
    pub id: SegmentId,
    /// Its purpose: log or compacted.
    pub kind: SegmentKind,
    /// Its state.
    pub state: SegmentState,
    /// Length of its file, bytes.
    pub file_bytes: u64,
    /// Its records up to the last intact one, bytes, its header included.
    pub used_bytes: u64,
    /// Intact puts.
    pub puts: u64,
    /// Intact tombstones.
    pub tombstones: u64,
    /// Lowest LSN of the intact changes; 0 if there are none.
    pub lsn_min: u64,
    /// Highest LSN of the intact changes; 0 if there are none.
    pub lsn_max: u64,
    /// Bytes of the puts that are the newest of their key.
    pub live_bytes: u64,
    /// Milliseconds since the Unix epoch when the writer appended the first mark, if there is one.
    pub first_mark_unix_ms: Option<u64>,
    /// The same for the last mark.
    pub last_mark_unix_ms: Option<u64>,
}

/// The state of a segment, as an opening would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentState {
    /// Full and whole.
    Sealed,
    /// The log goes on here.
    Active,
    /// The log ends here, with bytes that a crash left. Opening the store cuts them off.
    Torn,
    /// Made ahead of need, and blank.
    Spare,
    /// Compaction has replaced it, and past states need it.
    Archived,
    /// The file is damaged.
    Damaged,
    /// There is no file.
    Missing,
    /// The manifest does not name it, and it holds nothing that the store needs.
    Unnamed,
}

impl SegmentState {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            SegmentState::Sealed => "sealed",
            SegmentState::Active => "active",
            SegmentState::Torn => "torn",
            SegmentState::Spare => "spare",
            SegmentState::Archived => "archived",
            SegmentState::Damaged => "damaged",
            SegmentState::Missing => "missing",
            SegmentState::Unnamed => "unnamed",
        }
    }
}

/// A segment file, read and checked.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) source: Source,
    pub(super) summary: SegmentSummary,
    /// Every damaged part, and the torn tail, if there is one.
    pub(super) damages: Vec<Damage>,
    /// `None` if no record could be read.
    pub(super) walked: Option<Walked>,
    /// How the segment ends, if the first stop is a seal.
    pub(super) sealed_ending: Option<Ending>,
    /// The seal that matches the records before the first stop.
    pub(super) seal: Seal,
    /// Highest LSN of any record before the first stop, marks and seal included.
    pub(super) last_lsn: u64,
    /// The header, if it is intact.
    pub(super) header: Option<SegmentHeader>,
    /// The origin of the records.
    pub(super) origin: Origin,
}

/// Reads and checks the file of `source` into `bytes`, and adds its changes to `changes`, unless
/// they are of another store than `store_id`.
pub(super) fn read<'a>(
    survey: &Survey,
    source: Source,
    store_id: Option<u32>,
    bytes: &'a mut Vec<u8>,
    changes: Option<&mut Changes<'a>>,
) -> Result<Reading> {
    let path = survey.dir.path_of(&directory::segment_file_name(source.id));
    let mut reading = Reading::blank(source);
    let damage = |offset, len, fault, lost| Damage { path: path.clone(), offset, len, fault, lost };
    match survey.read(source.id, source.len_max(), bytes) {
        Ok(file_len) => reading.summary.file_bytes = file_len,
        Err(error) if is_damage(&error) => {
            let (offset, fault) = fault_of(&error);
            let is_missing =
                error.os_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
            reading.summary.state = if is_missing { SegmentState::Missing } else { SegmentState::Damaged };
            reading.damages.push(damage(offset, 0, fault, Lost::unknown(1, None)));
            return Ok(reading);
        }
        Err(error) => return Err(error),
    }
    let bytes: &'a [u8] = bytes;
    let mut changes = changes;
    let mut header_fault = None;
    match SegmentHeader::decode(bytes) {
        Ok(header) => {
            reading.header = Some(header);
            reading.summary.kind = header.kind;
            if store_id.is_some_and(|store_id| header.store_id != store_id) {
                changes = None;
            }
        }
        // Of a file that ends within its header, the end is the damage.
        Err(_) if bytes.len() < SEGMENT_HEADER_LEN && source.entry.is_some() => {}
        Err(error) => header_fault = Some(fault_of(&header_error(&path, error)).1),
    }
    let origin = origin_of(reading.header, source.id, bytes, survey.known_lsns(source.id));
    if let Some(fault) = header_fault {
        let lost = if origin.is_some() { Lost::nothing() } else { Lost::unknown(1, None) };
        reading.damages.push(damage(0, 0, fault, lost));
    }
    let Some(origin) = origin else { return Ok(reading) };
    reading.origin = origin;
    let walked = reading.walk(bytes, changes, &path);
    reading.walked = Some(walked);
    let known_len = source.entry.map_or(0, |entry| entry.durable_len);
    let scanned = Scanned { origin: reading.origin, bytes, stop: walked.stop, seal: reading.seal, known_len };
    reading.sealed_ending = sealed_ending(&scanned);
    reading.summary.used_bytes = walked.end as u64;
    if let Some(entry) = source.entry.filter(|entry| reading.summary.file_bytes < entry.durable_len) {
        let fault = format!("the file ends here, and was {} bytes long", entry.durable_len);
        let lost = Lost::unknown(reading.summary.lsn_max.max(1), None);
        reading.damages.push(damage(reading.summary.file_bytes, 0, fault, lost));
    }
    Ok(reading)
}

impl Reading {
    fn blank(source: Source) -> Self {
        // Without a header or an entry, the rules of a compacted segment demand less.
        let kind = source.entry.map_or(SegmentKind::Compacted, |entry| entry.kind);
        let summary = SegmentSummary {
            id: source.id,
            kind,
            state: SegmentState::Unnamed,
            file_bytes: 0,
            used_bytes: 0,
            puts: 0,
            tombstones: 0,
            lsn_min: 0,
            lsn_max: 0,
            live_bytes: 0,
            first_mark_unix_ms: None,
            last_mark_unix_ms: None,
        };
        let seal = Seal { records: 0, max_lsn: 0 };
        Reading {
            source,
            summary,
            damages: Vec::new(),
            walked: None,
            sealed_ending: None,
            seal,
            last_lsn: 0,
            header: None,
            origin: Origin { segment_id: source.id.get(), base_lsn: 0 },
        }
    }

    /// Whether the header names another store.
    pub(super) fn is_foreign(&self, store_id: Option<u32>) -> bool {
        self.header.zip(store_id).is_some_and(|(header, store_id)| header.store_id != store_id)
    }

    fn walk<'a>(&mut self, bytes: &'a [u8], mut changes: Option<&mut Changes<'a>>, path: &Path) -> Walked {
        let kind = self.summary.kind;
        let base_lsn = self.header.map_or(0, |header| header.base_lsn);
        let mut is_first_part = true;
        walk(self.origin, kind, bytes, |piece| match piece {
            Piece::Record(range, record) => {
                if is_first_part {
                    self.last_lsn = self.last_lsn.max(record.lsn);
                }
                if let Some(mark) = Mark::from_record(&record) {
                    self.summary.first_mark_unix_ms.get_or_insert(mark.unix_time_ms);
                    self.summary.last_mark_unix_ms = Some(mark.unix_time_ms);
                }
                if !record.kind.is_change() {
                    return;
                }
                let summary = &mut self.summary;
                let too_low = summary.lsn_max.max(base_lsn);
                let fault = match (record.lsn, kind) {
                    (0, _) => Some("this change has the LSN 0, which no change has".to_owned()),
                    (lsn, SegmentKind::Log) if lsn < too_low => {
                        Some(format!("this change has LSN {lsn}, and follows LSN {too_low}"))
                    }
                    _ => None,
                };
                if let Some(fault) = fault {
                    let (offset, len) = (range.start as u64, range.len() as u64);
                    let (path, lost) = (path.to_path_buf(), Lost::nothing());
                    self.damages.push(Damage { path, offset, len, fault, lost });
                }
                let is_put = record.kind == RecordKind::Put;
                *(if is_put { &mut summary.puts } else { &mut summary.tombstones }) += 1;
                summary.lsn_min =
                    if summary.lsn_min == 0 { record.lsn } else { summary.lsn_min.min(record.lsn) };
                summary.lsn_max = summary.lsn_max.max(record.lsn);
                if is_first_part {
                    self.seal = Seal { records: self.seal.records + 1, max_lsn: summary.lsn_max };
                }
                if let Some(changes) = changes.as_mut().filter(|_| record.lsn > 0) {
                    changes.add(self.source.number, &range, &record);
                }
            }
            Piece::Broken(broken) => {
                is_first_part = false;
                self.damages.push(damage_of(path, broken));
            }
        })
    }
}

/// The damage in the file at `path` that a walk has found.
pub(super) fn damage_of(path: &Path, broken: Broken) -> Damage {
    let Broken { start, end, fault, reason, lost, .. } = broken;
    let fault = if fault > start {
        format!("the batch that begins here is broken at byte {fault}: {reason}")
    } else {
        reason.to_string()
    };
    let (offset, len) = (start as u64, (end - start) as u64);
    Damage { path: path.to_path_buf(), offset, len, fault, lost }
}
