//! Compares the tables and the worked example of FORMAT.md with the code.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test panics when it fails")]

use kv_wal_format::{
    Encoder, LARGE_HEADER_LEN, Mark, Origin, Record, SMALL_HEADER_LEN, Seal, SegmentHeader, SegmentKind,
    body_checksum,
};

const FORMAT: &str = include_str!("../FORMAT.md");

fn section(title: &str) -> &'static str {
    let (_, after) = FORMAT.split_once(&format!("# {title}\n")).expect("the section exists");
    after.split("\n#").next().unwrap()
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
            ("version", &[2, 0]),
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

/// A record of each kind, with the byte that stands for the kind.
fn records(lsn: u64) -> [(Record<'static>, u8); 4] {
    [
        (Record::put(lsn, &[1; 0xab], &[2; 0x0102]).with_more(), 1),
        (Record::delete(lsn, &[3; 7]), 2),
        (Record::mark(lsn, &[4; 16]), 3),
        (Record::seal(lsn, &[5; 16]), 4),
    ]
}

const ORIGIN: Origin = Origin { segment_id: 0x1122_3344_5566_7788, base_lsn: 0x99aa_bbcc_ddee_ff01 };

/// CRC-32C of the id and of these bytes.
fn h(covered: &[u8]) -> u32 {
    crc32c::crc32c(&[&ORIGIN.segment_id.to_le_bytes(), covered].concat())
}

#[test]
fn small_header_table() {
    for (record, kind) in records(ORIGIN.base_lsn + 0x0403_0201) {
        let title = "Small record header";
        assert!(section("Tag").contains(&format!("{kind} {}", record.kind)));
        let tag = if record.more { kind | 0b0000_1000 } else { kind };
        let key_len = u8::try_from(record.key.len()).unwrap();
        let value_len = u16::try_from(record.value.len()).unwrap().to_le_bytes();
        let mut fields: [(&str, &[u8]); 6] = [
            ("tag", &[tag]),
            ("key_len", &[key_len]),
            ("value_len", &value_len),
            ("lsn_delta", &[1, 2, 3, 4]),
            ("check", &[0; 2]),
            ("crc", &[0; 4]),
        ];
        let h = h(&lay_out(title, SMALL_HEADER_LEN, &fields)[..8]);
        let check = &h.to_le_bytes()[1..3];
        let crc = (h ^ body_checksum(record.key, record.value)).to_le_bytes();
        (fields[4].1, fields[5].1) = (check, &crc);
        let expected = [&lay_out(title, SMALL_HEADER_LEN, &fields), record.key, record.value].concat();
        let mut encoded = Vec::new();
        Encoder::new(ORIGIN).append(&record, &mut encoded).unwrap();
        assert_eq!(encoded, expected, "{kind}");
    }
}

#[test]
fn large_header_table() {
    for (record, kind) in records(0x0102_0304_0506_0708) {
        let title = "Large record header";
        let tag = 0b1111_0000 | if record.more { kind | 0b0000_1000 } else { kind };
        let key_len = u16::try_from(record.key.len()).unwrap().to_le_bytes();
        let value_len = u32::try_from(record.value.len()).unwrap().to_le_bytes();
        let mut fields: [(&str, &[u8]); 6] = [
            ("tag", &[tag]),
            ("key_len", &key_len),
            ("value_len", &value_len),
            ("lsn", &[8, 7, 6, 5, 4, 3, 2, 1]),
            ("check", &[0; 4]),
            ("crc", &[0; 4]),
        ];
        let h = h(&lay_out(title, LARGE_HEADER_LEN, &fields)[..15]);
        let crc = (h ^ body_checksum(record.key, record.value)).to_le_bytes();
        let check = h.to_le_bytes();
        (fields[4].1, fields[5].1) = (&check, &crc);
        let expected = [&lay_out(title, LARGE_HEADER_LEN, &fields), record.key, record.value].concat();
        let mut encoded = Vec::new();
        Encoder::new(ORIGIN).append(&record, &mut encoded).unwrap();
        assert_eq!(encoded, expected, "{kind}");
    }
}

fn worked_example() -> Vec<u8> {
    let header = SegmentHeader { kind: SegmentKind::Log, segment_id: 7, base_lsn: 41, store_id: 0 };
    let (encoder, mut segment) = (Encoder::new(header.origin()), header.encode().to_vec());
    let mark = Mark { durable_lsn: 42, unix_time_ms: 1_700_000_000_000 }.encode_body();
    let late = 41 + (1 << 32);
    let seal = Seal { records: 4, max_lsn: late }.encode_body();
    let records = [
        Record::put(42, b"key", b"value"),
        Record::put(43, b"a", b"1").with_more(),
        Record::delete(43, b"key"),
        Record::mark(43, &mark),
        Record::put(late, b"k", b"v"),
        Record::seal(late, &seal),
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
