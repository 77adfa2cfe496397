//! A store's directory on a simulated disk, and its files, which the rows change.

use kv_core::fs::{FileExt, FsExt, OpenMode};
use kv_core::{Background, Env, Fs, ManualClock};
use kv_tests::sim::SimFs;
use kv_wal_format::{
    Decoder, Encoder, Record, RecordKind, SEGMENT_HEADER_LEN, SMALL_HEADER_LEN, Seal, SegmentHeader, Step,
    body_checksum, peek,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory of the store in every text.
pub(crate) const DIR: &str = "/store";

/// An environment in which every run is the same: no threads, and a clock that stands still.
pub(crate) fn env(fs: impl Fs + 'static) -> Env {
    Env { fs: Arc::new(fs), clock: Arc::new(ManualClock::new(0)), background: Background::Inline }
}

pub(crate) fn path_of(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

pub(crate) fn read(disk: &SimFs, name: &str) -> Vec<u8> {
    disk.read_file(&path_of(name)).unwrap()
}

/// Replaces the content of a file, which may be open, or creates it.
pub(crate) fn write(disk: &SimFs, name: &str, bytes: &[u8]) {
    let file = disk.open(&path_of(name), OpenMode::CreateOrTruncate).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

pub(crate) fn remove(disk: &SimFs, name: &str) {
    disk.remove_file(&path_of(name)).unwrap();
}

/// Changes the bytes of a file.
pub(crate) fn edit(disk: &SimFs, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = read(disk, name);
    change(&mut bytes);
    write(disk, name, &bytes);
}

/// Changes the header and the records of a file. All checksums match afterwards.
pub(crate) fn edit_content(disk: &SimFs, name: &str, change: impl FnOnce(&mut Content)) {
    edit(disk, name, |bytes| {
        let mut content = Content::of(bytes);
        change(&mut content);
        *bytes = content.encode();
    });
}

/// The header and the records of a file.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) header: SegmentHeader,
    pub(crate) records: Vec<OwnedRecord>,
}

/// A [`Record`] with bytes of its own.
#[derive(Clone, Debug)]
pub(crate) struct OwnedRecord {
    pub(crate) kind: RecordKind,
    pub(crate) more: bool,
    pub(crate) lsn: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Content {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let header = SegmentHeader::decode(bytes).unwrap();
        let (decoder, mut rest, mut records) =
            (Decoder::new(header.origin()), &bytes[SEGMENT_HEADER_LEN..], Vec::new());
        while let Step::Record { record, len } = decoder.step(rest) {
            records.push(record.into());
            rest = &rest[len..];
        }
        Content { header, records }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let encoder = Encoder::new(self.header.origin());
        let mut bytes = self.header.encode().to_vec();
        for OwnedRecord { kind, more, lsn, key, value } in &self.records {
            let record = Record { kind: *kind, more: *more, lsn: *lsn, key, value };
            encoder.append(&record, &mut bytes).unwrap();
        }
        bytes
    }
}

impl OwnedRecord {
    pub(crate) fn put(lsn: u64, key: &[u8], value: &[u8]) -> Self {
        Record::put(lsn, key, value).into()
    }

    pub(crate) fn delete(lsn: u64, key: &[u8]) -> Self {
        Record::delete(lsn, key).into()
    }

    pub(crate) fn seal(records: u64, max_lsn: u64) -> Self {
        Record::seal(max_lsn, &Seal { records, max_lsn }.encode_body()).into()
    }
}

impl From<Record<'_>> for OwnedRecord {
    fn from(record: Record<'_>) -> Self {
        let Record { kind, more, lsn, key, value } = record;
        OwnedRecord { kind, more, lsn, key: key.to_vec(), value: value.to_vec() }
    }
}

/// Replaces a part of the file's header, and makes its checksum match.
pub(crate) fn forge_header(bytes: &mut [u8], at: usize, part: &[u8]) {
    const CHECKSUM: usize = SEGMENT_HEADER_LEN - 4;
    bytes[at..at + part.len()].copy_from_slice(part);
    let checksum = body_checksum(&bytes[..CHECKSUM], b"");
    bytes[CHECKSUM..SEGMENT_HEADER_LEN].copy_from_slice(&checksum.to_le_bytes());
}

/// Replaces a part of the small header of the file's first record, and makes its check match.
pub(crate) fn forge_record(bytes: &mut [u8], at: usize, part: &[u8]) {
    const CHECK: usize = SMALL_HEADER_LEN - 6;
    let id = SegmentHeader::decode(bytes).unwrap().segment_id;
    let record = &mut bytes[SEGMENT_HEADER_LEN..];
    assert_eq!(peek(record).unwrap().header_len, SMALL_HEADER_LEN);
    record[at..at + part.len()].copy_from_slice(part);
    let checksum = body_checksum(&id.to_le_bytes(), &record[..CHECK]);
    record[CHECK..CHECK + 2].copy_from_slice(&checksum.to_le_bytes()[1..3]);
}
