//! Stores of kv-naive on simulated disks.

use crate::disk::Content;
use crate::disk::{DIR, edit, edit_content, env};
use crate::listing::text;
use kv_core::{Engine, Manual, OpenOptions, Result};
use kv_naive::NaiveEngine;
use kv_tests::sim::SimFs;
use std::path::Path;
use std::sync::Arc;

pub(crate) const IDENTITY: &str = "NAIVE";
pub(crate) const SNAPSHOT: &str = "SNAPSHOT";

pub(crate) fn options() -> OpenOptions {
    OpenOptions { persistence: Arc::new(Manual), ..OpenOptions::default() }
}

pub(crate) fn open_with(disk: &SimFs, options: OpenOptions) -> Result<NaiveEngine> {
    NaiveEngine::open_in(Path::new(DIR), &env(disk.clone()), options)
}

pub(crate) fn open(disk: &SimFs) -> Result<NaiveEngine> {
    open_with(disk, options())
}

/// A disk with a store of two keys that was closed.
pub(crate) fn closed() -> SimFs {
    let disk = SimFs::new();
    let store = open(&disk).unwrap();
    store.put(b"a", b"1").unwrap();
    store.put(b"b", b"2").unwrap();
    store.close().unwrap();
    disk
}

/// The text of an opening of a closed store, which `damage` changed before.
pub(crate) fn open_after(damage: impl FnOnce(&SimFs)) -> String {
    let disk = closed();
    damage(&disk);
    text(open(&disk))
}

/// The same, after a change of the bytes of one file.
pub(crate) fn open_after_edit(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    open_after(|disk| edit(disk, name, change))
}

/// The same, after a change of its content. All checksums match.
pub(crate) fn open_after_change(name: &str, change: impl FnOnce(&mut Content)) -> String {
    open_after(|disk| edit_content(disk, name, change))
}
