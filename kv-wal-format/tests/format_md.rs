//! Compares the tables and the worked example of FORMAT.md with the code.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test panics when it fails")]

use kv_wal_format::{Encoder, Mark, Record, RecordKind, Seal, SegmentHeader, SegmentKind, body_checksum};

const FORMAT: &str = include_str!("../FORMAT.md");

fn section(title: &str) -> &'static str {
    let (_, after) = FORMAT.split_once(&format!("\n## {title}\n")).expect("the section exists");
    after.split("\n## ").next().unwrap()
}

/// The rows `| offset | size | field |` of the section's byte table.
fn byte_table(title: &str) -> Vec<(usize, usize, &'static str)> {
    let mut table = Vec::new();
    for line in section(title).lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let [_, offset, size, field, ..] = cells[..]
            && let (Ok(offset), Ok(size)) = (offset.parse(), size.parse())
        {
            table.push((offset, size, field.trim_matches('`')));
        }
    }
    table
}

/// Lays out the fields as the table says. The table must hold every field, and no gaps.
fn lay_out(title: &str, len: usize, fields: &[(&str, &[u8])]) -> Vec<u8> {
    let table = byte_table(title);
    assert_eq!(
        table.iter().map(|row| row.2).collect::<Vec<_>>(),
        fields.iter().map(|f| f.0).collect::<Vec<_>>()
    );
    let mut bytes = Vec::new();
    for ((offset, size, name), (_, field)) in table.into_iter().zip(fields) {
        assert_eq!(offset, bytes.len(), "offset of {name}");
        assert_eq!(size, field.len(), "size of {name}");
        bytes.extend_from_slice(field);
    }
    assert_eq!(bytes.len(), len);
    bytes
}

#[test]
fn segment_header_table() {
    let kinds = [
        (SegmentKind::Log, 1),
        (SegmentKind::Compacted, 2),
        (SegmentKind::Manifest, 3),
        (SegmentKind::Snapshot, 4),
        (SegmentKind::Identity, 5),
    ];
    for (kind, byte) in kinds {
        assert!(section("Segment header").contains(&format!("{byte} {kind}")));
        let header = SegmentHeader {
            kind,
            segment_id: 0x1122_3344_5566_7788,
            base_lsn: 0x99aa_bbcc_ddee_ff01,
            store_id: 0x0506_0708,
        };
        let mut fields: [(&str, &[u8]); 9] = [
            ("magic", b"KVSEGMNT"),
            ("version", &[1, 0]),
            ("header_len", &[40, 0]),
            ("kind", &[byte]),
            ("reserved", &[0; 3]),
            ("segment_id", &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]),
            ("base_lsn", &[0x01, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99]),
            ("store_id", &[8, 7, 6, 5]),
            ("header_crc", &[0; 4]),
        ];
        let crc = crc32c::crc32c(&lay_out("Segment header", 40, &fields)[..36]).to_le_bytes();
        fields[8].1 = &crc;
        assert_eq!(header.encode()[..], lay_out("Segment header", 40, &fields));
    }
}

#[test]
fn record_header_table() {
    let kinds = [(RecordKind::Put, 1), (RecordKind::Delete, 2), (RecordKind::Mark, 3), (RecordKind::Seal, 4)];
    for (kind, byte) in kinds {
        assert!(section("Record header").contains(&format!("{byte} {kind}")));
        let (segment_id, lsn) = (0x1122_3344_5566_7788_u64, 0x99aa_bbcc_ddee_ff01);
        let (key, value): (&[u8], Vec<u8>) = match kind {
            RecordKind::Put => (&[1; 0x0102], vec![2; 0x01_0203]),
            RecordKind::Delete => (&[3; 7], vec![]),
            RecordKind::Mark | RecordKind::Seal => (&[], vec![4; 16]),
        };
        let more = kind == RecordKind::Put;
        let mut encoded = Vec::new();
        let record = Record { kind, more, lsn, key, value: &value };
        Encoder::new(segment_id).append(&record, &mut encoded).unwrap();

        let key_len = u16::try_from(key.len()).unwrap().to_le_bytes();
        let value_len = u32::try_from(value.len()).unwrap().to_le_bytes();
        let body_crc = body_checksum(key, &value).to_le_bytes();
        let mut fields: [(&str, &[u8]); 7] = [
            ("kind", &[byte]),
            ("flags", &[u8::from(more)]),
            ("key_len", &key_len),
            ("value_len", &value_len),
            ("lsn", &[0x01, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99]),
            ("body_crc", &body_crc),
            ("header_crc", &[0; 4]),
        ];
        let header = lay_out("Record header", 24, &fields);
        let crc = crc32c::crc32c(&[&segment_id.to_le_bytes(), &header[..20]].concat()).to_le_bytes();
        fields[6].1 = &crc;

        let mut expected = [&lay_out("Record header", 24, &fields), key, &value].concat();
        expected.resize(expected.len().next_multiple_of(8), 0);
        assert_eq!(encoded, expected, "{kind}");
    }
}

fn worked_example() -> Vec<u8> {
    let encoder = Encoder::new(7);
    let mut segment =
        SegmentHeader { kind: SegmentKind::Log, segment_id: 7, base_lsn: 41, store_id: 0 }.encode().to_vec();
    let mark = Mark { durable_lsn: 42, unix_time_ms: 1_700_000_000_000 }.encode_body();
    let seal = Seal { records: 3, max_lsn: 43 }.encode_body();
    let records = [
        Record::put(42, b"key", b"value"),
        Record::put(43, b"a", b"1").with_more(),
        Record::delete(43, b"key"),
        Record::mark(43, &mark),
        Record::seal(43, &seal),
    ];
    for record in &records {
        encoder.append(record, &mut segment).unwrap();
    }
    segment
}

#[test]
fn worked_example_is_what_the_encoder_writes() {
    let block = section("Worked example").split("```").nth(1).unwrap();
    let mut documented = Vec::new();
    for line in block.lines().skip(1) {
        let mut columns = line.split("  ");
        let offset = usize::from_str_radix(columns.next().unwrap(), 16).unwrap();
        assert_eq!(offset, documented.len(), "{line}");
        let bytes = columns.next().unwrap().split_whitespace();
        documented.extend(bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    assert_eq!(documented, worked_example());
}
