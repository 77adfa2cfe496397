use super::*;
use crate::table::Table;
use kv_core::fs::{Dir, DirExt, FileExt, Fs, FsExt, OpenMode, OsFs};
use kv_core::{Background, Error, Lsn};
use kv_wal_format::{Encoder, Mark, Record, Seal, SegmentHeader, SegmentKind};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

type Content = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

fn handle(dir: &Path) -> Arc<dyn Dir> {
    OsFs.open_dir(dir).unwrap()
}

fn load(dir: &Path) -> kv_core::Result<(Loaded, Content)> {
    let mut content = Content::new();
    let loaded = read(&*OsFs.open_dir(dir).unwrap(), SNAPSHOT, |record| {
        content.insert(record.key.to_vec(), (record.value.to_vec(), record.lsn)).is_none()
    })?;
    Ok((loaded, content))
}

/// The time in the mark of each snapshot.
const UNIX_MS: u64 = 77;

fn write(dir: &Path, table: &Table) -> u64 {
    let (dir, cut) = (handle(dir), table.begin_cut());
    let head = Head { store_id: 3, lsn: cut.position.lsn, unix_ms: Some(UNIX_MS) };
    let len = write_temporary(&*dir, head, cut).unwrap();
    dir.replace_durably(TEMPORARY, SNAPSHOT).unwrap();
    len
}

/// A directory with a snapshot of nine entries, and the file's bytes.
fn written() -> (tempfile::TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::new(Background::Inline);
    for key in 0..9u8 {
        table.put(&[key], &vec![key; usize::from(key) * 3]).unwrap();
    }
    let len = write(dir.path(), &table);
    let bytes = OsFs.read_file(&dir.path().join(SNAPSHOT)).unwrap();
    assert_eq!(len, bytes.len() as u64);
    (dir, bytes)
}

#[test]
fn comes_back_as_it_was_written() {
    let (dir, bytes) = written();
    let (loaded, content) = load(dir.path()).unwrap();
    let (bytes, unix_ms) = (bytes.len() as u64, Some(UNIX_MS));
    assert_eq!(loaded, Loaded { lsn: Lsn::new(9), store_id: 3, records: 9, bytes, unix_ms });
    let facts = Facts { bytes, identity: Some((Lsn::new(9), 3)), unix_ms };
    assert_eq!(read_facts(&*handle(dir.path()), SNAPSHOT).unwrap(), facts);
    let expected: Content =
        (0..9u8).map(|key| (vec![key], (vec![key; usize::from(key) * 3], u64::from(key) + 1))).collect();
    assert_eq!(content, expected);
    assert_eq!(OsFs.list(dir.path()).unwrap(), [SNAPSHOT]);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let (_dir, whole) = written();
    let dir = tempfile::tempdir().unwrap();
    let refused = |bytes: &[u8], what: &str| {
        let file = OsFs.open(&dir.path().join(SNAPSHOT), OpenMode::CreateOrTruncate).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(
            matches!(error, Error::Corruption { .. } | Error::UnsupportedVersion { .. }),
            "{what}: {error}"
        );
    };
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        refused(&damaged, &format!("bit {bit}"));
    }
    for cut in 0..whole.len() {
        refused(&whole[..cut], &format!("cut at {cut}"));
    }
    refused(&[whole.as_slice(), &[0; 8]].concat(), "longer");
}

#[test]
fn valid_records_that_make_no_snapshot_are_refused() {
    let put = Record::put(2, b"k", b"v");
    let mark = Mark { durable_lsn: 0, unix_time_ms: 5 }.encode_body();
    let mark = Record::mark(9, &mark);
    let cases: [(&str, &[Record<'_>], u64); 8] = [
        ("a key twice", &[put, Record::put(3, b"k", b"v")], 2),
        ("too few records", &[put], 2),
        ("a delete", &[Record::delete(2, b"k")], 1),
        ("newer than the snapshot", &[Record::put(10, b"k", b"v")], 1),
        ("a mark behind a put", &[put, mark], 1),
        ("two marks", &[mark, mark], 0),
        ("a mark of another LSN", &[Record { lsn: 8, ..mark }], 0),
        ("a batch", &[put.with_more(), Record::put(2, b"l", b"v")], 2),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (what, records, count) in cases {
        let header = SegmentHeader { kind: SegmentKind::Snapshot, segment_id: 9, base_lsn: 0, store_id: 3 };
        let mut bytes = header.encode().to_vec();
        let seal = Seal { records: count, max_lsn: 9 }.encode_body();
        for record in records.iter().chain([&Record::seal(9, &seal)]) {
            Encoder::new(header.origin()).append(record, &mut bytes).unwrap();
        }
        handle(dir.path()).write_file_atomically(SNAPSHOT, &bytes).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Corruption { .. }), "{what}: {error}");
    }
}

#[test]
fn a_table_larger_than_the_buffers_is_written_and_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::new(Background::Inline);
    for key in 0..200u8 {
        table.put(&[key], &vec![key; usize::from(key) * 100]).unwrap();
    }
    table.put(b"large", &vec![1; 3 << 20]).unwrap();
    assert!(write(dir.path(), &table) > 5_000_000);
    let (loaded, content) = load(dir.path()).unwrap();
    assert_eq!((loaded.records, content.len()), (201, 201));
    assert!(content.iter().filter(|(key, _)| key.len() == 1).all(|(key, (value, _))| {
        value.len() == usize::from(key[0]) * 100 && value.iter().all(|byte| *byte == key[0])
    }));
}
