use super::store::{SNAPSHOT, open_after_change, open_after_edit};
use crate::disk::{Content, OwnedRecord, forge_record};
use crate::listing::Row;
use kv_wal_format::{RECORD_HEADER_LEN, RecordKind, SEGMENT_HEADER_LEN, SegmentKind};

pub(crate) fn rows() -> Vec<Row> {
    [contents(), records(), shapes()].concat()
}

fn contents() -> Vec<Row> {
    let after = |change: fn(&mut Content)| open_after_change(SNAPSHOT, change);
    vec![
        ("open: SNAPSHOT is empty", open_after_edit(SNAPSHOT, Vec::clear)),
        ("open: SNAPSHOT is of a later release", open_after_edit(SNAPSHOT, |bytes| bytes[8] = 2)),
        ("open: SNAPSHOT is a log segment", after(|content| content.header.kind = SegmentKind::Log)),
        ("open: SNAPSHOT's header has two LSNs", after(|content| content.header.base_lsn = 1)),
        ("open: SNAPSHOT has a key twice", {
            after(|content| content.records[1].key = content.records[0].key.clone())
        }),
        ("open: SNAPSHOT has a delete", {
            after(|content| content.records[1] = OwnedRecord::delete(2, b"b"))
        }),
        ("open: SNAPSHOT's seal counts other records", {
            after(|content| content.records[2] = OwnedRecord::seal(3, 2))
        }),
        ("open: SNAPSHOT was cut", open_after_edit(SNAPSHOT, |bytes| bytes.truncate(bytes.len() - 1))),
        ("open: SNAPSHOT has bytes behind its seal", open_after_edit(SNAPSHOT, |bytes| bytes.push(0))),
    ]
}

/// Records that are none. A damaged segment of kv-log has the same faults.
fn records() -> Vec<Row> {
    const RECORD: usize = SEGMENT_HEADER_LEN;
    let after = |change: fn(&mut Vec<u8>)| open_after_edit(SNAPSHOT, change);
    vec![
        ("open: the first byte of a record of SNAPSHOT is zero", after(|bytes| bytes[RECORD] = 0)),
        ("open: a bit of a record's header of SNAPSHOT changed", after(|bytes| bytes[RECORD + 8] ^= 1)),
        ("open: a bit of a value of SNAPSHOT changed", {
            after(|bytes| bytes[RECORD + RECORD_HEADER_LEN + 1] ^= 1)
        }),
        ("open: a byte behind a value of SNAPSHOT changed", {
            after(|bytes| bytes[RECORD + RECORD_HEADER_LEN + 7] = 1)
        }),
        ("open: a record of SNAPSHOT is of an unknown kind", after(|bytes| forge_record(bytes, 0, &[9]))),
        ("open: a record of SNAPSHOT has unknown flags", after(|bytes| forge_record(bytes, 1, &[6]))),
    ]
}

/// Records that are valid by their checksums, with a key, value or flag that their kind does not
/// have.
fn shapes() -> Vec<Row> {
    let of_kind = |kind: RecordKind, flags: u8, key_len: u16, value_len: u32| {
        open_after_edit(SNAPSHOT, |bytes| {
            let lengths = [&key_len.to_le_bytes()[..], &value_len.to_le_bytes()].concat();
            forge_record(bytes, 0, &[&[kind.to_byte(), flags], &lengths[..]].concat());
        })
    };
    vec![
        ("open: a delete of SNAPSHOT has a value", of_kind(RecordKind::Delete, 0, 1, 1)),
        ("open: a mark of SNAPSHOT has a key", of_kind(RecordKind::Mark, 0, 1, 16)),
        ("open: a seal of SNAPSHOT continues a batch", of_kind(RecordKind::Seal, 1, 0, 16)),
    ]
}
