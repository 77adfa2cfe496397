use super::store::{SNAPSHOT, open_after_change, open_after_edit};
use crate::disk::{Content, OwnedRecord, forge_record};
use crate::listing::Row;
use kv_wal_format::{RecordKind, SEGMENT_HEADER_LEN, SMALL_HEADER_LEN, SegmentKind};

pub(crate) fn rows() -> Vec<Row> {
    [contents(), records(), shapes()].concat()
}

fn contents() -> Vec<Row> {
    let after = |change: fn(&mut Content)| open_after_change(SNAPSHOT, change);
    vec![
        ("open: SNAPSHOT is empty", open_after_edit(SNAPSHOT, Vec::clear)),
        ("open: SNAPSHOT is of an earlier release", open_after_edit(SNAPSHOT, |bytes| bytes[8] = 1)),
        ("open: SNAPSHOT is of a later release", open_after_edit(SNAPSHOT, |bytes| bytes[8] = 3)),
        ("open: SNAPSHOT is a log segment", after(|content| content.header.kind = SegmentKind::Log)),
        ("open: SNAPSHOT's header has another base LSN", after(|content| content.header.base_lsn = 1)),
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
        ("open: a bit of a record's header of SNAPSHOT changed", after(|bytes| bytes[RECORD + 4] ^= 1)),
        ("open: a bit of a value of SNAPSHOT changed", {
            after(|bytes| bytes[RECORD + SMALL_HEADER_LEN + 1] ^= 1)
        }),
        ("open: a record of SNAPSHOT is of an unknown kind", after(|bytes| forge_record(bytes, 0, &[7]))),
        ("open: a record's header of SNAPSHOT is neither small nor large", {
            after(|bytes| forge_record(bytes, 0, &[0x41]))
        }),
    ]
}

/// Records that are valid by their checksums, with a key, value or flag that their kind does not
/// have.
fn shapes() -> Vec<Row> {
    let of_kind = |kind: RecordKind, more: u8, key_len: u8, value_len: u16| {
        open_after_edit(SNAPSHOT, |bytes| {
            let [low, high] = value_len.to_le_bytes();
            forge_record(bytes, 0, &[kind.to_byte() | more, key_len, low, high]);
        })
    };
    vec![
        ("open: a delete of SNAPSHOT has a value", of_kind(RecordKind::Delete, 0, 1, 1)),
        ("open: a mark of SNAPSHOT has a key", of_kind(RecordKind::Mark, 0, 1, 16)),
        ("open: a seal of SNAPSHOT continues a batch", of_kind(RecordKind::Seal, 8, 0, 16)),
    ]
}
