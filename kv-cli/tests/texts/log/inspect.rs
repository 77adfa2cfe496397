use super::store::{FIRST, MANIFEST, SECOND, THIRD, closed, fill, open};
use crate::disk::{DIR, OwnedRecord, edit, edit_content, env, remove, write};
use crate::listing::{Row, text};
use kv_core::Fs;
use kv_core::fs::FsExt;
use kv_log::inspect::{Examination, Part, dump, examine, repair, silently};
use kv_tests::sim::SimFs;
use kv_wal_format::SEGMENT_HEADER_LEN;
use std::ops::ControlFlow;
use std::path::Path;

fn examined(disk: &SimFs) -> Examination {
    examine(&env(disk.clone()), Path::new(DIR), false, &silently).unwrap()
}

/// The damages of a store, which `change` damages before.
fn damages(change: impl FnOnce(&SimFs)) -> String {
    let disk = closed();
    change(&disk);
    let texts: Vec<String> = examined(&disk).damages.iter().map(ToString::to_string).collect();
    assert!(!texts.is_empty());
    texts.join("\n")
}

/// The place of the second record of a file.
const SECOND_RECORD: usize = SEGMENT_HEADER_LEN + 88;

pub(crate) fn damage() -> Vec<Row> {
    vec![
        ("MANIFEST is missing", damages(|disk| remove(disk, MANIFEST))),
        ("a bit of MANIFEST changed", damages(|disk| edit(disk, MANIFEST, |bytes| bytes[70] ^= 1))),
        ("a segment is missing", damages(|disk| remove(disk, SECOND))),
        ("a segment is empty", damages(|disk| write(disk, SECOND, b""))),
        ("a segment was cut", damages(|disk| edit(disk, SECOND, |bytes| bytes.truncate(300)))),
        (
            "a segment holds another one",
            damages(|disk| {
                let other = disk.read_file(&crate::disk::path_of(FIRST)).unwrap();
                write(disk, SECOND, &other);
            }),
        ),
        (
            "a segment is of another store",
            damages(|disk| {
                edit_content(disk, SECOND, |content| content.header.store_id += 1);
            }),
        ),
        ("a bit of a segment's header changed", damages(|disk| edit(disk, SECOND, |bytes| bytes[20] ^= 1))),
        ("a bit of a record's header changed", {
            damages(|disk| edit(disk, SECOND, |bytes| bytes[SECOND_RECORD + 3] ^= 1))
        }),
        ("a bit of a record's value changed", {
            damages(|disk| edit(disk, SECOND, |bytes| bytes[SECOND_RECORD + 50] ^= 1))
        }),
        (
            "a batch has lost a member",
            damages(|disk| {
                edit_content(disk, FIRST, |content| {
                    content.records[1].more = true;
                    content.records.remove(2);
                });
            }),
        ),
        ("a part of a segment is zero", damages(|disk| edit(disk, FIRST, |bytes| bytes[200..600].fill(0)))),
        (
            "a seal is missing",
            damages(|disk| edit_content(disk, FIRST, |content| drop(content.records.pop()))),
        ),
        (
            "a seal counts other records",
            damages(|disk| {
                edit_content(disk, FIRST, |content| {
                    *content.records.last_mut().unwrap() = OwnedRecord::seal(9, 10);
                });
            }),
        ),
        ("synced bytes at the end of the log are zero", {
            damages(|disk| edit(disk, THIRD, |bytes| bytes[SECOND_RECORD..].fill(0)))
        }),
        (
            "a change has the LSN 0",
            damages(|disk| edit_content(disk, FIRST, |content| content.records[0].lsn = 0)),
        ),
        ("a change has a lower LSN than the one before", {
            damages(|disk| edit_content(disk, FIRST, |content| content.records[5].lsn = 1))
        }),
        ("a change has an LSN that was not reserved", {
            damages(|disk| edit_content(disk, SECOND, |content| content.records[9].lsn = 1 << 30))
        }),
        ("the manifest is older than the store", {
            let disk = SimFs::new();
            let store = open(&disk).unwrap();
            let old = disk.read_file(&crate::disk::path_of(MANIFEST)).unwrap();
            fill(&store).unwrap();
            drop(store);
            write(&disk, MANIFEST, &old);
            examined(&disk).damages[0].to_string()
        }),
    ]
}

pub(crate) fn errors() -> Vec<Row> {
    let dst = Path::new("/repaired");
    let repair_of = |disk: &SimFs| text(repair(&env(disk.clone()), Path::new(DIR), dst, &silently));
    vec![
        ("examine: there is no store", {
            text(examine(&env(SimFs::new()), Path::new(DIR), false, &silently))
        }),
        ("examine: a writer has the store open", {
            let disk = closed();
            let _store = open(&disk).unwrap();
            text(examine(&env(disk.clone()), Path::new(DIR), false, &silently))
        }),
        ("examine: it is the directory of an unfinished repair", {
            let disk = closed();
            remove(&disk, MANIFEST);
            write(&disk, "REPAIR", b"");
            text(examine(&env(disk), Path::new(DIR), false, &silently))
        }),
        ("dump: there is no such segment", {
            let mut visit = |_: Part<'_>| ControlFlow::Continue(());
            let only = Some(kv_core::SegmentId::new(99));
            text(dump(&env(closed()), Path::new(DIR), only, &mut visit))
        }),
        ("repair: the new directory is not empty", {
            let disk = closed();
            disk.create_dir(dst).unwrap();
            disk.open_dir(dst).unwrap().open("notes", kv_core::fs::OpenMode::CreateNew).unwrap();
            repair_of(&disk)
        }),
        ("repair: the caller stops it", {
            text(repair(&env(closed()), Path::new(DIR), dst, &|_| ControlFlow::Break(())))
        }),
        ("repair: the disk is full", {
            let disk = closed();
            disk.limit_space(Some(500));
            repair_of(&disk)
        }),
    ]
}
