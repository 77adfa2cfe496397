use super::store::{IDENTITY, open_after_change, open_after_edit};
use crate::listing::Row;
use kv_wal_format::SegmentKind;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        ("open: NAIVE was cut", open_after_edit(IDENTITY, |bytes| bytes.truncate(30))),
        ("open: NAIVE is too long", open_after_edit(IDENTITY, |bytes| bytes.push(0))),
        ("open: NAIVE is of an earlier release", open_after_edit(IDENTITY, |bytes| bytes[8] = 1)),
        ("open: NAIVE is of a later release", open_after_edit(IDENTITY, |bytes| bytes[8] = 3)),
        ("open: NAIVE is a log segment", {
            open_after_change(IDENTITY, |content| content.header.kind = SegmentKind::Log)
        }),
        ("open: NAIVE and SNAPSHOT are of two stores", {
            open_after_change(IDENTITY, |content| content.header.store_id ^= 1)
        }),
        ("open: an older NAIVE is back", {
            open_after_change(IDENTITY, |content| content.header.base_lsn = 1)
        }),
    ]
}
