use super::store::{FIRST, MANIFEST, SECOND, THIRD, closed, killed, open_after};
use crate::disk::{Content, OwnedRecord, edit, edit_content, read, remove, write};
use crate::listing::Row;
use kv_tests::sim::SimFs;
use kv_wal_format::{SEGMENT_HEADER_LEN, SMALL_HEADER_LEN};

/// Length of the longest segment, bytes.
const SEGMENT_BYTES_MAX: usize = 128 << 20;

/// The start of the record with this number.
const fn start_of(number: usize) -> usize {
    SEGMENT_HEADER_LEN + number * (SMALL_HEADER_LEN + 4 + 70)
}

/// A byte in the LSN, and one in the value, of the record with this number.
const fn lsn_of(number: usize) -> usize {
    start_of(number) + 4
}
const fn value_of(number: usize) -> usize {
    start_of(number) + SMALL_HEADER_LEN + 4
}

/// The text of an opening after a change of the bytes of a segment.
fn after(disk: &SimFs, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    open_after(disk, |disk| edit(disk, name, change))
}

/// The same, after a change of its content. Zeros follow, up to the former length.
fn after_change(disk: &SimFs, name: &str, change: impl FnOnce(&mut Content)) -> String {
    open_after(disk, |disk| {
        let len = read(disk, name).len();
        edit_content(disk, name, change);
        edit(disk, name, |bytes| bytes.resize(len.max(bytes.len()), 0));
    })
}

pub(crate) fn rows() -> Vec<Row> {
    [files(), sealed(), unsealed(), unnamed()].concat()
}

/// Files that are not the named segments.
fn files() -> Vec<Row> {
    vec![
        ("open: a segment's file was removed", open_after(&closed(), |disk| remove(disk, SECOND))),
        ("open: a segment's file was cut", after(&closed(), FIRST, |bytes| bytes.truncate(500))),
        ("open: a segment's file is longer than any segment", {
            after(&closed(), FIRST, |bytes| bytes.resize(SEGMENT_BYTES_MAX + 8, 0))
        }),
        ("open: a segment's file holds another segment", {
            open_after(&closed(), |disk| write(disk, FIRST, &read(disk, SECOND)))
        }),
        ("open: a segment's file is of another store", {
            after_change(&closed(), FIRST, |segment| segment.header.store_id ^= 1)
        }),
        ("open: a segment's file is of an earlier release", after(&closed(), FIRST, |bytes| bytes[8] = 1)),
        ("open: a segment's file is of a later release", after(&closed(), FIRST, |bytes| bytes[8] = 3)),
        ("open: a change in a segment has the LSN 0", {
            after_change(&closed(), FIRST, |segment| segment.records[4].lsn = 0)
        }),
    ]
}

/// The first segment, which the manifest knows to be sealed.
fn sealed() -> Vec<Row> {
    let bytes = |change: fn(&mut Vec<u8>)| after(&closed(), FIRST, change);
    let content = |change: fn(&mut Content)| after_change(&closed(), FIRST, change);
    vec![
        ("open: a sealed segment counts other records", {
            content(|segment| segment.records[10] = OwnedRecord::seal(9, 10))
        }),
        ("open: an older state of a sealed segment is back", {
            content(|segment| drop(segment.records.splice(9.., [OwnedRecord::seal(9, 9)])))
        }),
        ("open: zeros are at the end of a sealed segment", bytes(|bytes| bytes[start_of(5)..].fill(0))),
        ("open: a bit of a record's LSN changed in a sealed segment", bytes(|bytes| bytes[lsn_of(5)] ^= 1)),
        ("open: a bit of a value changed in a sealed segment", bytes(|bytes| bytes[value_of(5)] ^= 1)),
        ("open: a sealed segment ends within a batch", {
            content(|segment| {
                segment.records.truncate(5);
                segment.records[4].more = true;
            })
        }),
        ("open: a batch in a sealed segment has a member of another LSN", {
            content(|segment| segment.records[4].more = true)
        }),
    ]
}

/// Segments that the manifest does not know to be sealed.
fn unsealed() -> Vec<Row> {
    vec![
        ("open, after a close: a value in the active segment changed", {
            after(&closed(), THIRD, |bytes| bytes[value_of(0)] ^= 1)
        }),
        ("open, after a close: an older state of the active segment is back, with a seal", {
            after_change(&closed(), THIRD, |segment| {
                segment.records.splice(1.., [OwnedRecord::seal(1, 21)]);
            })
        }),
        ("open, after a crash: a synced value in the active segment changed", {
            after(&killed(), THIRD, |bytes| bytes[value_of(0)] ^= 1)
        }),
        ("open, after a crash: a batch in the active segment has a member of another LSN", {
            after_change(&killed(), THIRD, |segment| segment.records[2].more = true)
        }),
        ("open, after a crash: the segment before the active one has lost its seal", {
            after(&killed(), FIRST, |bytes| bytes[start_of(10)..].fill(0))
        }),
    ]
}

/// A segment that the manifest does not name.
fn unnamed() -> Vec<Row> {
    vec![("open: an older MANIFEST is back, which does not name the newest segment", {
        open_after(&closed(), |disk| {
            edit_content(disk, MANIFEST, |manifest| {
                // The durable LSN.
                manifest.records[0].value[16] = 20;
                manifest.records.splice(3.., [OwnedRecord::seal(3, 0)]);
            });
        })
    })]
}
