//! The snapshot file: a segment of kind `Snapshot`, one put for each entry, and a seal with their count.
//!
//! On disk after a power cut between any two steps of writing one:
//!
//! | after | on disk |
//! |---|---|
//! | creating or writing the temporary file | the previous snapshot; any part of the temporary file |
//! | syncing it | the same, with all of it |
//! | renaming it | the previous snapshot or the new one |
//! | syncing the directory | the new one |

use kv_core::{Error, FileExt, Fs, Lsn, OpenMode, Result};
use kv_wal_format::{
    Encoder, Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentHeader, SegmentKind, StopReason,
};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::identity::{SNAPSHOT, header_error};
use crate::table::{Entry, Position, Table};

/// Snapshots have one id: the checksums bind records to it.
const SNAPSHOT_ID: u64 = 0;
/// Bytes gathered before they are written.
const BUFFER_LEN: usize = 256 << 10;

/// Writes the table as of `position` in place of the previous snapshot. Returns its length, bytes.
pub(crate) fn write(fs: &dyn Fs, dir: &Path, table: &Table, position: Position) -> Result<u64> {
    let temporary = dir.join(format!("{SNAPSHOT}.tmp"));
    let file = fs
        .open(&temporary, OpenMode::CreateOrTruncate)
        .map_err(|error| Error::io("create", &temporary, error));
    let header =
        SegmentHeader { kind: SegmentKind::Snapshot, segment_id: SNAPSHOT_ID, base_lsn: position.lsn.get() };
    let encoder = Encoder::new(SNAPSHOT_ID);
    let mut buffer = header.encode().to_vec();
    let (mut written, mut records) = (0, 0);
    let mut write_buffer = |buffer: &mut Vec<u8>| {
        let file = file.as_ref().map_err(Error::clone)?;
        file.write_all_at(buffer, written).map_err(|error| Error::io("write", &temporary, error))?;
        written += buffer.len() as u64;
        buffer.clear();
        Ok(())
    };
    // The table must end its snapshot even if the file could not be created.
    table.visit_snapshot(position, |key, entry| {
        let record = Record::put(entry.lsn, key, &entry.value);
        encoder.append(&record, &mut buffer).expect("limits keep records within the format");
        records += 1;
        if buffer.len() >= BUFFER_LEN { write_buffer(&mut buffer) } else { Ok(()) }
    })?;
    let seal = Seal { records, max_lsn: position.lsn.get() }.encode_body();
    encoder.append(&Record::seal(position.lsn.get(), &seal), &mut buffer).expect("a seal is a valid record");
    write_buffer(&mut buffer)?;
    file?.sync_all().map_err(|error| Error::io("sync", &temporary, error))?;
    let path = dir.join(SNAPSHOT);
    fs.rename(&temporary, &path).map_err(|error| Error::io("rename", &temporary, error))?;
    fs.sync_dir(dir).map_err(|error| Error::io("sync directory", dir, error))?;
    Ok(written)
}

/// What a snapshot holds.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) entries: HashMap<Box<[u8]>, Entry>,
    pub(crate) lsn: Lsn,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// Reads the snapshot of `dir`, which must be whole.
pub(crate) fn load(fs: &dyn Fs, dir: &Path) -> Result<Loaded> {
    use kv_core::FsExt;
    let path = dir.join(SNAPSHOT);
    decode(&fs.read_file(&path)?, &path)
}

fn decode(bytes: &[u8], path: &Path) -> Result<Loaded> {
    let damaged = |offset: usize, detail: String| Error::corruption(path, offset as u64, detail);
    let (header, mut scanner) = Scanner::open(bytes).map_err(|error| header_error(path, error))?;
    if header.kind != SegmentKind::Snapshot || header.segment_id != SNAPSHOT_ID {
        return Err(damaged(0, format!("this is a {} segment, not a snapshot", header.kind)));
    }
    let mut entries: HashMap<Box<[u8]>, Entry> = HashMap::new();
    let (mut records, mut seal) = (0, None);
    for (offset, record) in scanner.by_ref() {
        match record.kind {
            RecordKind::Put if record.lsn <= header.base_lsn => {
                records += 1;
                let entry = Entry { value: Arc::from(record.value), lsn: record.lsn };
                if let Some(other) = entries.insert(Box::from(record.key), entry)
                    && (other.lsn, &*other.value) != (record.lsn, record.value)
                {
                    return Err(damaged(
                        offset,
                        "a key stands here for the second time, and differs".to_owned(),
                    ));
                }
            }
            RecordKind::Seal => seal = Seal::from_record(&record),
            _ => return Err(damaged(offset, "a record that no snapshot has".to_owned())),
        }
    }
    let stop = scanner.stop();
    let expected = Seal { records, max_lsn: header.base_lsn };
    if stop.reason != StopReason::Sealed || seal != Some(expected) || stop.offset != bytes.len() {
        return Err(damaged(stop.fault, format!("the snapshot is not whole: {:?}", stop.reason)));
    }
    debug_assert!(bytes.len() > SEGMENT_HEADER_LEN);
    Ok(Loaded { entries, lsn: Lsn::new(header.base_lsn), records, bytes: bytes.len() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{FsExt, OsFs};

    fn written() -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::new(HashMap::new(), Lsn::ZERO, Lsn::ZERO);
        for key in 0..9u8 {
            table.put(&[key], &vec![key; usize::from(key) * 3]).unwrap();
        }
        let len = write(&OsFs, dir.path(), &table, table.begin_snapshot()).unwrap();
        let bytes = OsFs.read_file(&dir.path().join(SNAPSHOT)).unwrap();
        assert_eq!(len, bytes.len() as u64);
        (dir, bytes)
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let (dir, _) = written();
        let loaded = load(&OsFs, dir.path()).unwrap();
        assert_eq!((loaded.entries.len(), loaded.records, loaded.lsn), (9, 9, Lsn::new(9)));
        let seven = loaded.entries.get([7].as_slice()).unwrap();
        assert_eq!((&*seven.value, seven.lsn), ([7; 21].as_slice(), 8));
        assert_eq!(OsFs.list(dir.path()).unwrap(), [SNAPSHOT]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (_dir, whole) = written();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            decode(&damaged, Path::new("s")).unwrap_err();
        }
        for cut in 0..whole.len() {
            decode(&whole[..cut], Path::new("s")).unwrap_err();
        }
        decode(&[whole.as_slice(), &[0; 8]].concat(), Path::new("s")).unwrap_err();
    }

    #[test]
    fn a_table_larger_than_the_buffer_is_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::new(HashMap::new(), Lsn::ZERO, Lsn::ZERO);
        for key in 0..40u8 {
            table.put(&[key], &vec![key; 20_000]).unwrap();
        }
        assert!(write(&OsFs, dir.path(), &table, table.begin_snapshot()).unwrap() > 800_000);
        assert_eq!(load(&OsFs, dir.path()).unwrap().entries.len(), 40);
    }
}
