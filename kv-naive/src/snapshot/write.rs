use kv_core::fs::{Dir, DirExt, File, FileExt, OpenMode};
use kv_core::{Error, Lsn, Op, Result};
use kv_wal_format::{Encoder, Mark, Record, Seal, SegmentHeader, SegmentKind};
use std::path::Path;

use super::{BASE_LSN, TEMPORARY};
use crate::table::Cut;

/// Bytes gathered before they are written.
const BUFFER_LEN: usize = 256 << 10;

/// The facts before the entries of a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) store_id: u32,
    pub(crate) lsn: Lsn,
    /// For a mark: its changes had been made by then.
    pub(crate) unix_ms: Option<u64>,
}

/// Writes and syncs `cut` under the temporary name. Returns the file's length, bytes.
pub(crate) fn write_temporary(dir: &dyn Dir, head: Head, cut: Cut<'_>) -> Result<u64> {
    write(dir, head, |writer| cut.visit(|key, entry| writer.append(key, &entry.value, entry.lsn)))
}

/// As [`write_temporary`], of these keys with their values and LSNs.
pub(crate) fn write_pairs<'a>(
    dir: &dyn Dir,
    head: Head,
    mut pairs: impl Iterator<Item = (&'a [u8], &'a [u8], u64)>,
) -> Result<u64> {
    write(dir, head, |writer| pairs.try_for_each(|(key, value, lsn)| writer.append(key, value, lsn)))
}

fn write(dir: &dyn Dir, head: Head, fill: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Result<u64> {
    let temporary = dir.path_of(TEMPORARY);
    let mut writer = Writer::create(dir, &temporary, head)?;
    let written = fill(&mut writer).and_then(|()| writer.finish());
    written.inspect_err(|_| {
        // A part of it would fill a full disk.
        let _ = dir.remove_file(TEMPORARY);
    })
}

/// Encodes entries and writes them in large pieces.
struct Writer<'a> {
    file: Box<dyn File>,
    path: &'a Path,
    encoder: Encoder,
    lsn: u64,
    records: u64,
    buffer: Vec<u8>,
    written: u64,
}

impl<'a> Writer<'a> {
    fn create(dir: &dyn Dir, path: &'a Path, head: Head) -> Result<Self> {
        let file = dir.open(TEMPORARY, OpenMode::CreateOrTruncate);
        let file = file.map_err(|error| Error::io(Op::Create, path, error))?;
        let Head { store_id, lsn, unix_ms } = head;
        let (kind, lsn, base_lsn) = (SegmentKind::Snapshot, lsn.get(), BASE_LSN);
        let header = SegmentHeader { kind, segment_id: lsn, base_lsn, store_id };
        let (encoder, buffer) = (Encoder::new(header.origin()), header.encode().to_vec());
        let mut writer = Writer { file, path, encoder, lsn, records: 0, buffer, written: 0 };
        if let Some(unix_time_ms) = unix_ms {
            // It vouches for no change: the snapshot is durable, or there is none.
            let mark = Mark { durable_lsn: 0, unix_time_ms }.encode_body();
            writer.encode(&Record::mark(lsn, &mark));
        }
        Ok(writer)
    }

    fn append(&mut self, key: &[u8], value: &[u8], lsn: u64) -> Result<()> {
        self.encode(&Record::put(lsn, key, value));
        self.records += 1;
        if self.buffer.len() >= BUFFER_LEN { self.flush() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<u64> {
        let seal = Seal { records: self.records, max_lsn: self.lsn }.encode_body();
        self.encode(&Record::seal(self.lsn, &seal));
        self.flush()?;
        self.file.sync_all().map_err(|error| Error::sync(self.path, error))?;
        Ok(self.written)
    }

    fn encode(&mut self, record: &Record<'_>) {
        self.encoder.append(record, &mut self.buffer).expect("limits keep records within the format");
    }

    fn flush(&mut self) -> Result<()> {
        self.file
            .write_all_at(&self.buffer, self.written)
            .map_err(|error| Error::io(Op::Write, self.path, error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
