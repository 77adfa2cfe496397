use kv_core::fs::{Dir, DirExt, File, FileExt, OpenMode};
use kv_core::{Error, Op, Result};
use kv_wal_format::{Encoder, Record, Seal, SegmentHeader, SegmentKind};
use std::path::Path;

use super::{BASE_LSN, SNAPSHOT, TEMPORARY};
use crate::table::Cut;

/// Bytes gathered before they are written.
const BUFFER_LEN: usize = 256 << 10;

/// Writes `cut` in place of the previous snapshot, durably. Returns the file's length, bytes.
pub(crate) fn write(dir: &dyn Dir, store_id: u32, cut: Cut<'_>) -> Result<u64> {
    let temporary = dir.path_of(TEMPORARY);
    let mut writer = Writer::create(dir, &temporary, store_id, cut.position.lsn.get())?;
    let written =
        cut.visit(|key, entry| writer.append(key, &entry.value, entry.lsn)).and_then(|()| writer.finish());
    let len = written.inspect_err(|_| {
        // A part of it would fill a full disk.
        let _ = dir.remove_file(TEMPORARY);
    })?;
    dir.replace_durably(TEMPORARY, SNAPSHOT)?;
    Ok(len)
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
    fn create(dir: &dyn Dir, path: &'a Path, store_id: u32, lsn: u64) -> Result<Self> {
        let file = dir.open(TEMPORARY, OpenMode::CreateOrTruncate);
        let file = file.map_err(|error| Error::io(Op::Create, path, error))?;
        let (kind, segment_id, base_lsn) = (SegmentKind::Snapshot, lsn, BASE_LSN);
        let header = SegmentHeader { kind, segment_id, base_lsn, store_id };
        let buffer = header.encode().to_vec();
        Ok(Writer { file, path, encoder: Encoder::new(header.origin()), lsn, records: 0, buffer, written: 0 })
    }

    fn append(&mut self, key: &[u8], value: &[u8], lsn: u64) -> Result<()> {
        self.encode(&Record::put(lsn, key, value));
        self.records += 1;
        if self.buffer.len() >= BUFFER_LEN { self.flush() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<u64> {
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
