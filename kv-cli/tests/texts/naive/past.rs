use super::store::{SNAPSHOT, open_with, options};
use crate::disk::{DIR, edit, read, remove, write};
use crate::listing::{Row, text};
use kv_core::{Engine, Fs, KeepPast, Lsn, OpenOptions, PointInTime, Target};
use kv_naive::NaiveEngine;
use kv_tests::sim::SimFs;
use std::path::Path;
use std::sync::Arc;

const POINTS: &str = "POINTS";
/// The snapshots of the empty store and of the first change.
const EMPTY: &str = "SNAPSHOT.0000000000000000";
const FIRST: &str = "SNAPSHOT.0000000000000001";

fn open(disk: &SimFs) -> kv_core::Result<NaiveEngine> {
    open_with(disk, OpenOptions { retention: Arc::new(KeepPast::all()), ..options() })
}

/// A disk with a store of two keys that keeps its snapshots. The first change has a point.
fn kept() -> SimFs {
    let disk = SimFs::new();
    let store = open(&disk).unwrap();
    store.put(b"a", b"1").unwrap();
    store.pin("first", &Target::Lsn(Lsn::new(1)), None).unwrap();
    store.put(b"b", b"2").unwrap();
    store.close().unwrap();
    disk
}

/// The text of an opening after `damage`.
fn open_after(damage: impl FnOnce(&SimFs)) -> String {
    let disk = kept();
    damage(&disk);
    text(open(&disk))
}

/// The text of a call for the first change after `damage`.
fn read_after(damage: impl FnOnce(&SimFs)) -> String {
    let disk = kept();
    damage(&disk);
    text(open(&disk).unwrap().read_at(&Target::Lsn(Lsn::new(1))))
}

/// The text of a call for the points after `damage`.
fn points_after(damage: impl FnOnce(&SimFs)) -> String {
    let disk = kept();
    damage(&disk);
    text(open(&disk).unwrap().points())
}

/// The text of an opening of a directory that holds only this file.
fn open_with_file(name: &str) -> String {
    let disk = SimFs::new();
    disk.create_dir(Path::new(DIR)).unwrap();
    write(&disk, name, b"");
    text(open(&disk))
}

pub(crate) fn rows() -> Vec<Row> {
    let copied = |disk: &SimFs, from: &str, to: &str| write(disk, to, &read(disk, from));
    let cut = |disk: &SimFs, name: &str| edit(disk, name, |bytes| bytes.truncate(bytes.len() - 1));
    let (store, other) = (Path::new(DIR), Path::new("/other"));
    vec![
        ("open: SNAPSHOT was replaced by an older one", open_after(|disk| copied(disk, EMPTY, SNAPSHOT))),
        ("open: an old snapshot was replaced by another", open_after(|disk| copied(disk, EMPTY, FIRST))),
        ("points: POINTS was cut", points_after(|disk| cut(disk, POINTS))),
        ("points: POINTS was replaced by a snapshot", points_after(|disk| copied(disk, SNAPSHOT, POINTS))),
        ("open: a restore was not finished", open_with_file("RESTORE")),
        ("open: a backup was not finished", open_with_file("BACKUP")),
        ("open: the directory is a backup", open_after(|disk| write(disk, "BACKUP", b""))),
        ("read_at: the snapshot was cut", read_after(|disk| cut(disk, FIRST))),
        ("read_at: the snapshot of a point was removed", {
            let disk = kept();
            remove(&disk, FIRST);
            text(open(&disk).unwrap().read_at(&Target::Point("first".to_owned())))
        }),
        ("restore: the directory is not empty", {
            text(open(&kept()).unwrap().restore(&Target::Lsn(Lsn::new(1)), store))
        }),
        ("backup: the directory holds a store", text(open(&kept()).unwrap().backup(store))),
        ("backup: the directory holds a backup of another store", {
            let disk = kept();
            let store = NaiveEngine::open_in(other, &crate::disk::env(disk.clone()), options()).unwrap();
            store.backup(Path::new("/backup")).unwrap();
            text(open(&disk).unwrap().backup(Path::new("/backup")))
        }),
    ]
}
