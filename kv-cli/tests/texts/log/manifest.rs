use super::store::{MANIFEST, closed, open_after};
use crate::disk::{Content, OwnedRecord, edit, edit_content, forge_header};
use crate::listing::Row;
use kv_wal_format::SegmentKind;

pub(crate) fn rows() -> Vec<Row> {
    [headers(), contents()].concat()
}

/// A header that does not begin a file. Every file of both engines has such a header.
fn headers() -> Vec<Row> {
    let after = |change: fn(&mut Vec<u8>)| open_after(&closed(), |disk| edit(disk, MANIFEST, change));
    vec![
        ("open: MANIFEST is empty", after(Vec::clear)),
        ("open: MANIFEST holds zeros", after(|bytes| bytes.fill(0))),
        ("open: MANIFEST holds other bytes", after(|bytes| bytes[..8].copy_from_slice(b"#!/bin/s"))),
        ("open: MANIFEST is of an earlier release", after(|bytes| bytes[8] = 1)),
        ("open: MANIFEST is of a later release", after(|bytes| bytes[8] = 3)),
        ("open: a bit of MANIFEST's header changed", after(|bytes| bytes[20] ^= 1)),
        ("open: MANIFEST's header gives another length", after(|bytes| forge_header(bytes, 10, &[41, 0]))),
        ("open: MANIFEST's header gives an unknown kind", after(|bytes| forge_header(bytes, 12, &[9]))),
        ("open: MANIFEST's header has reserved bytes", after(|bytes| forge_header(bytes, 13, &[1]))),
    ]
}

/// A manifest of four entries, the store's and three of segments, with other content.
fn contents() -> Vec<Row> {
    let bytes = |change: fn(&mut Vec<u8>)| open_after(&closed(), |disk| edit(disk, MANIFEST, change));
    let content =
        |change: fn(&mut Content)| open_after(&closed(), |disk| edit_content(disk, MANIFEST, change));
    vec![
        ("open: MANIFEST is longer than any manifest", bytes(|bytes| bytes.resize(4 << 20, 0))),
        ("open: MANIFEST is a log segment", content(|manifest| manifest.header.kind = SegmentKind::Log)),
        ("open: MANIFEST has no entry for the store", content(|manifest| drop(manifest.records.remove(0)))),
        ("open: MANIFEST has no entries", {
            content(|manifest| manifest.records = vec![OwnedRecord::seal(0, 0)])
        }),
        ("open: MANIFEST has an entry that names no segment", {
            content(|manifest| manifest.records[1].key.clear())
        }),
        ("open: MANIFEST names a segment twice", {
            content(|manifest| manifest.records[2] = manifest.records[1].clone())
        }),
        ("open: MANIFEST names a segment that the store never made", {
            content(|manifest| manifest.records[3].key[0] = 99)
        }),
        ("open: MANIFEST has a delete", {
            content(|manifest| manifest.records[1] = OwnedRecord::delete(0, b"key"))
        }),
        ("open: MANIFEST's seal counts other entries", {
            content(|manifest| manifest.records[4] = OwnedRecord::seal(9, 0))
        }),
        ("open: MANIFEST has bytes behind its seal", bytes(|bytes| bytes.extend([0; 8]))),
        ("open: MANIFEST was cut before its seal", bytes(|bytes| bytes.truncate(bytes.len() - 30))),
        ("open: MANIFEST was cut within its seal", bytes(|bytes| bytes.truncate(bytes.len() - 8))),
        ("open: a bit of an entry of MANIFEST changed", bytes(|bytes| bytes[100] ^= 1)),
    ]
}
