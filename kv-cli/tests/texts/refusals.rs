//! Operations that the system refuses.

use crate::disk::{Content, DIR, OwnedRecord, edit_content, env, path_of};
use crate::listing::{Row, text};
use crate::log::store::{FIRST, MANIFEST, THIRD, closed, fill, open, options};
use crate::naive;
use kv_core::{Engine, OsFs, Result};
use kv_log::LogEngine;
use kv_tests::sim::{Fault, FaultKind, OpKind, Repeat, SimFs};
use kv_wal_format::{SegmentHeader, SegmentKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The text when the first operation of this kind on the file or directory `name` fails in the
/// `life` of a store.
fn failing(life: fn(&SimFs) -> Result<()>, kind: OpKind, name: &str) -> String {
    let rehearsal = SimFs::new();
    life(&rehearsal).unwrap();
    let nth = rehearsal.ops().iter().position(|op| op.kind == kind && op.path.ends_with(name));
    let disk = SimFs::new();
    disk.inject(Fault { kind: FaultKind::AnyIo, nth: nth.unwrap() as u64, repeat: Repeat::Once });
    text(life(&disk))
}

fn log_life(disk: &SimFs) -> Result<()> {
    for _ in 0..2 {
        let store = open(disk)?;
        fill(&store)?;
        store.close()?;
    }
    Ok(())
}

pub(crate) fn log() -> Vec<Row> {
    use OpKind::{
        Allocate, Create, CreateDir, Len, List, LockDir, Open, Read, Rename, SetLen, Sync, SyncDir, Write,
    };
    let after = |kind, name| failing(log_life, kind, name);
    vec![
        ("open: opening the directory", after(Open, "store")),
        ("open: creating the directory", after(CreateDir, "store")),
        ("open: locking the directory", after(LockDir, "store")),
        ("open: listing the directory", after(List, "store")),
        ("open: opening a file", after(Open, "MANIFEST")),
        ("open: asking for the length of a file", after(Len, "MANIFEST")),
        ("open: reading from a file", after(Read, "MANIFEST")),
        ("open: creating a file", after(Create, "MANIFEST.tmp")),
        ("open: writing to a file", after(Write, "MANIFEST.tmp")),
        ("open: syncing a file", after(Sync, "MANIFEST.tmp")),
        ("open: renaming a file", after(Rename, "MANIFEST")),
        ("open: syncing the directory", after(SyncDir, "store")),
        ("open: reserving space for a segment", after(Allocate, FIRST)),
        ("sync: cutting a segment to its records", after(SetLen, FIRST)),
        ("sync: syncing a segment", after(Sync, THIRD)),
    ]
}

fn naive_life(disk: &SimFs) -> Result<()> {
    for _ in 0..2 {
        let store = naive::store::open(disk)?;
        store.put(b"k", b"v")?;
        store.close()?;
        // As after a crash.
        disk.damage(&path_of("SNAPSHOT.tmp"), Some(Vec::new()));
    }
    Ok(())
}

pub(crate) fn naive() -> Vec<Row> {
    use OpKind::{Create, Open, Read, Remove, Rename, Sync, Write};
    let after = |kind, name| failing(naive_life, kind, name);
    vec![
        ("open: opening the snapshot", after(Open, "SNAPSHOT")),
        ("open: reading the snapshot", after(Read, "SNAPSHOT")),
        ("open: removing a file that a crash left", after(Remove, "SNAPSHOT.tmp")),
        ("open: writing the identity", after(Write, "NAIVE.tmp")),
        ("sync: creating a snapshot", after(Create, "SNAPSHOT.tmp")),
        ("sync: writing a snapshot", after(Write, "SNAPSHOT.tmp")),
        ("sync: syncing a snapshot", after(Sync, "SNAPSHOT.tmp")),
        ("sync: renaming a snapshot", after(Rename, "SNAPSHOT")),
    ]
}

/// Puts that fill fifty segments.
const PUTS: u32 = 500;

/// The text of the first put that the store refuses.
fn first_refused_put(store: &LogEngine) -> String {
    let refused = (0..PUTS).find_map(|number| store.put(&number.to_be_bytes(), &[7; 60]).err());
    refused.unwrap().to_string()
}

fn short_of(kind: FaultKind) -> String {
    let disk = SimFs::new();
    let store = open(&disk).unwrap();
    disk.inject(Fault { kind, nth: 0, repeat: Repeat::Always });
    first_refused_put(&store)
}

pub(crate) fn shortages() -> Vec<Row> {
    vec![
        ("open: the disk has no room for a new store", {
            let disk = SimFs::new();
            disk.limit_space(Some(100));
            text(open(&disk))
        }),
        ("put: the disk has no room for the reserve of a larger store", without_a_larger_reserve()),
        ("put: the disk has no room for a segment", short_of(FaultKind::DiskFull)),
        ("put: the process may not make files so large", short_of(FaultKind::FileTooLarge)),
        ("put: the process has too many open files", short_of(FaultKind::NoDescriptors)),
        ("put: the store has too many segments", too_many_segments()),
        ("sync: the disk is full, although the space was reserved", {
            let disk = SimFs::new();
            let store = open(&disk).unwrap();
            store.put(b"k", b"v").unwrap();
            disk.damage(&path_of("RESERVE"), None);
            disk.inject(Fault { kind: FaultKind::WriteDiskFull, nth: 0, repeat: Repeat::Always });
            text(store.sync())
        }),
    ]
}

/// The text when the disk is full at the second time that a growing store reserves space.
fn without_a_larger_reserve() -> String {
    let rehearsal = SimFs::new();
    let store = open(&rehearsal).unwrap();
    for number in 0..PUTS {
        store.put(&number.to_be_bytes(), &[7; 60]).unwrap();
    }
    let ops = rehearsal.ops();
    let takes_space = ops.iter().filter(|op| op.kind.takes_space()).enumerate();
    let mut reserves =
        takes_space.filter(|(_, op)| op.kind == OpKind::Allocate && op.path.ends_with("RESERVE"));
    let nth = reserves.nth(1).unwrap().0 as u64;
    let disk = SimFs::new();
    disk.inject(Fault { kind: FaultKind::DiskFull, nth, repeat: Repeat::Always });
    first_refused_put(&open(&disk).unwrap())
}

/// The text of a put into a store that has every segment that it may have.
fn too_many_segments() -> String {
    const SEGMENTS_MAX: u64 = (1 << 13) - (1 << 8);
    let disk = closed();
    edit_content(&disk, MANIFEST, |manifest| {
        let store_id = manifest.header.store_id;
        manifest.records.pop();
        for segment_id in 4..=SEGMENTS_MAX {
            let kind = SegmentKind::Compacted;
            let header = SegmentHeader { kind, segment_id, base_lsn: 0, store_id };
            let empty = Content { header, records: vec![OwnedRecord::seal(0, 0)] }.encode();
            let value = [&[kind.to_byte(), 1][..], &(empty.len() as u64).to_le_bytes()].concat();
            disk.damage(&path_of(&format!("{segment_id:016x}.segment")), Some(empty));
            manifest.records.push(OwnedRecord::put(0, &segment_id.to_le_bytes(), &value));
        }
        manifest.records[0].value[..8].copy_from_slice(&(SEGMENTS_MAX + 1).to_le_bytes());
        let entries = manifest.records.len() as u64;
        manifest.records.push(OwnedRecord::seal(entries, 0));
    });
    first_refused_put(&open(&disk).unwrap())
}

/// The text of a put into a store in which `fail` happened before.
fn put_after(fail: impl FnOnce(&SimFs, &LogEngine)) -> String {
    let disk = SimFs::new();
    let store = open(&disk).unwrap();
    store.put(b"k", b"v").unwrap();
    fail(&disk, &store);
    text(store.put(b"k", b"w"))
}

/// The text of a sync of a store on the real disk, whose directory `change` changed before.
fn sync_after(change: fn(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = LogEngine::open_in(&path, &env(OsFs), options()).unwrap();
    store.put(b"k", b"v").unwrap();
    change(&path);
    text(store.sync()).replace(path.to_str().unwrap(), DIR)
}

#[expect(clippy::disallowed_methods, reason = "another process does it")]
pub(crate) fn failures() -> Vec<Row> {
    vec![
        ("put: a sync failed before", {
            put_after(|disk, store| {
                disk.inject(Fault { kind: FaultKind::Sync, nth: 0, repeat: Repeat::Once });
                store.sync().unwrap_err();
            })
        }),
        ("put: a thread of the store panicked", {
            put_after(|disk, store| {
                disk.inject(Fault { kind: FaultKind::Panic, nth: 0, repeat: Repeat::Once });
                catch_unwind(AssertUnwindSafe(|| store.sync())).unwrap_err();
            })
        }),
        ("sync: the directory was removed", sync_after(|dir| std::fs::remove_dir_all(dir).unwrap())),
        (
            "sync: the lock file was removed",
            sync_after(|dir| std::fs::remove_file(dir.join("LOCK")).unwrap()),
        ),
        ("sync: the lock file was replaced", {
            sync_after(|dir| {
                std::fs::write(dir.join("other"), b"").unwrap();
                std::fs::rename(dir.join("other"), dir.join("LOCK")).unwrap();
            })
        }),
    ]
}
