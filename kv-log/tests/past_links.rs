//! Backups on the same file system: which files are linked, and that no later work of the store
//! reaches them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the tests look at the files of a backup")]

#[allow(dead_code, reason = "this test holds nothing back")]
mod gated_fs;
#[allow(dead_code, reason = "this test copies no store")]
mod store_files;

use gated_fs::{Gate, GatedFs};
use kv_core::{
    Background, BackupReport, Compact, Engine, EngineExt, Env, MaxLogSize, PointInTime, SystemClock,
};
use kv_log::{LogEngine, Options};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store_files::{segment_files, small};

fn options() -> Options {
    small(MaxLogSize::new(500))
}

/// Puts and overwrites pairs that fill several segments.
fn fill(store: &LogEngine, from: u64, to: u64) {
    for number in from..to {
        store.put(&(number % 50).to_le_bytes(), &[u8::try_from(number % 251).unwrap(); 100]).unwrap();
    }
}

/// A store whose manifest calls segments sealed, and whose log goes on.
fn store(dir: &Path, env: &Env) -> LogEngine {
    let store = LogEngine::open_in(dir, env, options()).unwrap();
    fill(&store, 0, 200);
    store.close().unwrap();
    let store = LogEngine::open_in(dir, env, options()).unwrap();
    fill(&store, 200, 205);
    store
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    segment_files(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn content(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let backup = LogEngine::open(dir, Options { read_only: true, ..options() }).unwrap();
    backup.to_sorted_vec().unwrap()
}

#[test]
fn later_work_of_the_store_leaves_linked_segments_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (source, into) = (dir.path().join("s"), dir.path().join("b"));
    let mut store = store(&source, &Env::os());
    let BackupReport { files: all, files_copied, files_linked, .. } = store.backup(&into).unwrap();
    assert_eq!(files_linked + files_copied, all);
    let shared = |path: &PathBuf| fs::metadata(path).unwrap().nlink() == 2;
    assert_eq!(segment_files(&into).iter().filter(|path| shared(path)).count() as u64, files_linked);
    assert!(files_linked > 1 && files_copied > 0, "{files_linked} of {all} files are linked");
    let (bytes, state) = (files(&into), store.to_sorted_vec().unwrap());
    for round in 1..4 {
        fill(&store, round * 500, round * 500 + 400);
        store.compact().unwrap();
        store.close().unwrap();
        store = LogEngine::open(&source, options()).unwrap();
    }
    assert_eq!(files(&into), bytes);
    assert_eq!(content(&into), state);

    // The files that only the earlier backup needed go, and new ones come.
    let again = store.backup(&into).unwrap();
    assert!(again.files_linked > 0 && again.files_linked + again.files_copied <= again.files, "{again:?}");
    assert_eq!(content(&into), store.to_sorted_vec().unwrap());
    let once_more = store.backup(&into).unwrap();
    assert_eq!((once_more.files_linked, once_more.bytes_linked), (0, 0), "they are there");
    store.close().unwrap();
    assert!(fs::read_dir(&into).unwrap().all(|entry| {
        let name = entry.unwrap().file_name();
        Path::new(&name).extension().is_none_or(|extension| extension != "tmp")
    }));
}

#[test]
fn a_file_system_without_links_gets_copies() {
    let dir = tempfile::tempdir().unwrap();
    let (source, into) = (dir.path().join("s"), dir.path().join("b"));
    let fs = Arc::new(GatedFs(Arc::new(Gate::default())));
    let env = Env { fs, clock: Arc::new(SystemClock::new()), background: Background::Threads };
    let store = store(&source, &env);
    let report = store.backup(&into).unwrap();
    assert_eq!((report.files_linked, report.files_copied), (0, report.files));
    assert_eq!(content(&into), store.to_sorted_vec().unwrap());
}
