use super::store::{MANIFEST, closed, open, open_after, open_with, options};
use crate::disk::{DIR, remove, write};
use crate::listing::{Row, text};
use crate::naive;
use kv_core::Fs;
use kv_core::fs::{FsExt, OpenMode};
use kv_log::Options;
use kv_tests::sim::SimFs;
use std::path::Path;

pub(crate) fn rows() -> Vec<Row> {
    let read_only = || Options { read_only: true, ..options() };
    let no_create = || Options { create_if_missing: false, ..options() };
    vec![
        ("open: the directory is missing, without create_if_missing", {
            text(open_with(&SimFs::new(), no_create()))
        }),
        ("open: the directory is missing, with read_only", text(open_with(&SimFs::new(), read_only()))),
        ("open: the directory holds other files", {
            open_after(&SimFs::new(), |disk| {
                disk.create_dir(Path::new(DIR)).unwrap();
                write(disk, "notes.txt", b"");
            })
        }),
        ("open: the directory holds a kv-naive store", text(open(&naive::store::closed()))),
        ("open: the path is a file", {
            let disk = SimFs::new();
            disk.open(Path::new(DIR), OpenMode::CreateNew).unwrap();
            text(open(&disk))
        }),
        ("open: the store is open already", {
            let disk = closed();
            let _store = open(&disk).unwrap();
            text(open(&disk))
        }),
        ("open: MANIFEST was removed, and segments are there", {
            open_after(&closed(), |disk| remove(disk, MANIFEST))
        }),
    ]
}
