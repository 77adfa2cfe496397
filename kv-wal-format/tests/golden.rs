//! The golden files in `testdata/`: this build must read them, and write the same bytes.
//!
//! They change only together with the format version:
//! `cargo test -p kv-wal-format --test golden -- --ignored write_golden_files`

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test panics when it fails")]

use std::path::Path;

use kv_wal_format::{
    Encoder, HeaderError, Mark, Record, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentHeader, SegmentKind, Stop,
    StopReason, Tail, judge_tail,
};

struct Golden {
    name: &'static str,
    bytes: &'static [u8],
    header: SegmentHeader,
    records: Vec<Record<'static>>,
    /// Zeros after the last record: the rest of a preallocated file.
    zeros: usize,
    reason: StopReason,
}

macro_rules! golden_bytes {
    ($name:literal) => {
        include_bytes!(concat!("../testdata/", $name))
    };
}

const ALL_BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut byte = 0_u8;
    while byte < u8::MAX {
        byte += 1;
        bytes[byte as usize] = byte;
    }
    bytes
};

fn mark(lsn: u64, durable_lsn: u64) -> Record<'static> {
    let body = Mark { durable_lsn, unix_time_ms: 1_700_000_000_000 + lsn }.encode_body();
    Record::mark(lsn, Box::leak(Box::new(body)))
}

fn seal(lsn: u64, records: u64, max_lsn: u64) -> Record<'static> {
    Record::seal(lsn, Box::leak(Box::new(Seal { records, max_lsn }.encode_body())))
}

fn golden_files() -> Vec<Golden> {
    let header = |kind, segment_id, base_lsn| SegmentHeader { kind, segment_id, base_lsn, store_id: 0 };
    vec![
        Golden {
            name: "log_sealed.seg",
            bytes: golden_bytes!("log_sealed.seg"),
            header: header(SegmentKind::Log, 1, 0),
            records: vec![
                mark(0, 0),
                Record::put(1, b"", b""),
                Record::put(2, b"key", b"value"),
                Record::put(3, b"all bytes", &ALL_BYTES),
                Record::delete(4, b"key"),
                mark(4, 4),
                Record::put(5, b"a", b"1").with_more(),
                Record::delete(5, b"all bytes").with_more(),
                Record::put(5, b"b", b"12345678"),
                Record::put(6, &[0; 64], &[0; 100]),
                // The longest key of a small header, and the shortest of a large one.
                Record::put(7, &[1; 255], b"small"),
                Record::put(8, &[3; 256], b"large"),
                mark(8, 5),
                seal(8, 10, 8),
            ],
            zeros: 0,
            reason: StopReason::Sealed,
        },
        Golden {
            name: "log_open.seg",
            bytes: golden_bytes!("log_open.seg"),
            header: header(SegmentKind::Log, 0x0102_0304_0506_0708, 0x1112_1314_1516_1718),
            records: vec![
                Record::put(0x1112_1314_1516_1719, b"key", b"value"),
                // The LSNs next to the limit of a small header.
                Record::put(0x1112_1315_1516_1717, b"key", b"value"),
                Record::put(0x1112_1315_1516_1718, b"key", b"value"),
                Record::put(0x2122_2324_2526_2728, b"key", b"value"),
            ],
            zeros: 100,
            reason: StopReason::End,
        },
        Golden {
            name: "compacted.seg",
            bytes: golden_bytes!("compacted.seg"),
            header: header(SegmentKind::Compacted, 3, 2),
            records: vec![
                Record::put(2, b"old", b"2"),
                Record::delete(4, b"gone"),
                Record::put(6, b"young", b"1"),
                // Below the base LSN.
                Record::put(1, b"oldest", b"3"),
                seal(6, 4, 6),
            ],
            zeros: 0,
            reason: StopReason::Sealed,
        },
        Golden {
            name: "manifest_empty.seg",
            bytes: golden_bytes!("manifest_empty.seg"),
            header: header(SegmentKind::Manifest, 4, 0),
            records: vec![seal(0, 0, 0)],
            zeros: 0,
            reason: StopReason::Sealed,
        },
        Golden {
            name: "snapshot.seg",
            bytes: golden_bytes!("snapshot.seg"),
            header: header(SegmentKind::Snapshot, 5, 9),
            records: vec![Record::put(9, b"a", b"1"), Record::put(9, b"b", b"2"), seal(9, 2, 9)],
            zeros: 0,
            reason: StopReason::Sealed,
        },
        Golden {
            name: "identity.seg",
            bytes: golden_bytes!("identity.seg"),
            header: header(SegmentKind::Identity, u64::MAX, u64::MAX),
            records: vec![Record::put(0, b"engine", b"log"), seal(0, 1, 0)],
            zeros: 0,
            reason: StopReason::Sealed,
        },
    ]
}

fn encode(header: SegmentHeader, records: &[Record<'_>], zeros: usize) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    for record in records {
        Encoder::new(header.origin()).append(record, &mut bytes).unwrap();
    }
    bytes.resize(bytes.len() + zeros, 0);
    bytes
}

#[test]
fn golden_files_are_read() {
    for golden in golden_files() {
        let (header, mut scanner) = Scanner::open(golden.bytes).unwrap();
        assert_eq!(header, golden.header, "{}", golden.name);

        let mut at = SEGMENT_HEADER_LEN;
        let mut records = Vec::new();
        let mut last_record = at;
        for (range, record) in scanner.by_ref() {
            assert_eq!(range.start, at, "{}", golden.name);
            (last_record, at) = (range.start, range.end);
            records.push(record);
        }
        assert_eq!(records, golden.records, "{}", golden.name);

        let last_lsn = golden.records.iter().map(|record| record.lsn).max().unwrap();
        let stop = scanner.stop();
        let (offset, fault, reason) = (at, at, golden.reason);
        assert_eq!(stop, Stop { offset, fault, reason, last_record, last_lsn }, "{}", golden.name);
        assert_eq!(judge_tail(header.origin(), golden.bytes, &stop, 0), Tail::Clean);
        assert_eq!(golden.bytes.len(), at + golden.zeros, "{}", golden.name);

        assert_eq!(encode(header, &records, golden.zeros), golden.bytes, "{}", golden.name);
    }
}

/// Segments that a build of format version 1 has written.
#[test]
fn a_file_of_version_1_is_refused() {
    let error = HeaderError::UnsupportedVersion { found: 1, supported: 2 };
    for bytes in [&golden_bytes!("v1_log_sealed.seg")[..], golden_bytes!("v1_manifest_empty.seg")] {
        assert_eq!(Scanner::open(bytes).unwrap_err(), error);
    }
    assert_eq!(error.to_string(), "segment has format version 1, supported is 2");
}

/// A seal counts the changes before it.
#[test]
fn golden_seals_count() {
    for golden in golden_files() {
        let Some(seal) = golden.records.last().and_then(Seal::from_record) else {
            assert_eq!(golden.name, "log_open.seg");
            continue;
        };
        let changes = || golden.records.iter().filter(|record| record.kind.is_change());
        assert_eq!(seal.records, changes().count() as u64, "{}", golden.name);
        assert_eq!(seal.max_lsn, changes().map(|record| record.lsn).max().unwrap_or(0), "{}", golden.name);
    }
}

#[test]
#[ignore = "writes the golden files instead of checking them"]
#[expect(clippy::disallowed_methods, reason = "writes into the source tree, not into a store")]
fn write_golden_files() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    for golden in golden_files() {
        let bytes = encode(golden.header, &golden.records, golden.zeros);
        std::fs::write(directory.join(golden.name), bytes).unwrap();
    }
}
