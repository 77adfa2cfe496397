use super::store::{IDENTITY, SNAPSHOT, closed, open, open_after, open_with, options};
use crate::disk::{DIR, remove, write};
use crate::listing::{Row, text};
use crate::log;
use kv_core::{Fs, OpenOptions};
use kv_tests::sim::SimFs;
use std::path::Path;

pub(crate) fn rows() -> Vec<Row> {
    let read_only = || OpenOptions { read_only: true, ..options() };
    let no_create = || OpenOptions { create_if_missing: false, ..options() };
    vec![
        ("open: the directory is missing, without create_if_missing", {
            text(open_with(&SimFs::new(), no_create()))
        }),
        ("open: the directory is missing, with read_only", text(open_with(&SimFs::new(), read_only()))),
        ("open: the directory holds other files", {
            let disk = SimFs::new();
            disk.create_dir(Path::new(DIR)).unwrap();
            write(&disk, "notes.txt", b"");
            text(open(&disk))
        }),
        ("open: the directory holds a kv-log store", text(open(&log::store::closed()))),
        ("open: the store is open already", {
            let disk = closed();
            let _store = open(&disk).unwrap();
            text(open(&disk))
        }),
        ("open: NAIVE was removed", open_after(|disk| remove(disk, IDENTITY))),
        ("open: SNAPSHOT was removed", open_after(|disk| remove(disk, SNAPSHOT))),
    ]
}
