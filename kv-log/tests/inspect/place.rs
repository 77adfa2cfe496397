//! A directory with a store, and room for the repaired one.

use kv_core::{Engine, EngineExt, Env, Manual};
use kv_log::inspect::{Examination, Repair};
use kv_log::{LogEngine, Options, inspect};
use kv_wal_format::Scanner;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::store_files::small;

pub(super) fn examine(dir: &Path) -> Examination {
    inspect::examine(&Env::os(), dir, true, &inspect::silently).unwrap()
}

pub(super) fn open(dir: &Path) -> LogEngine {
    LogEngine::open(dir, Options { create_if_missing: false, ..small(Manual) }).unwrap()
}

/// A directory with the store `src`, and room for the repaired one.
pub(super) struct Place(pub(super) tempfile::TempDir);

impl Place {
    pub(super) fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    pub(super) fn src(&self) -> PathBuf {
        self.0.path().join("src")
    }

    pub(super) fn dst(&self) -> PathBuf {
        self.0.path().join("dst")
    }

    /// A closed store of several segments with keys `k00` to `k99`.
    pub(super) fn with_store() -> Self {
        let place = Place::new();
        let store = LogEngine::open(place.src(), small(Manual)).unwrap();
        for number in 0..100 {
            store.put(format!("k{number:02}").as_bytes(), &value(number)).unwrap();
        }
        store.close().unwrap();
        place
    }

    pub(super) fn repair(&self) -> Repair {
        let before = contents(&self.src());
        let report = inspect::repair(&Env::os(), &self.src(), &self.dst(), &inspect::silently).unwrap();
        assert_eq!(contents(&self.src()), before, "the source stays as it is");
        report
    }

    /// The pairs of the repaired store.
    pub(super) fn repaired(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let store = open(&self.dst());
        let pairs = store.to_sorted_vec().unwrap().into_iter().collect();
        store.close().unwrap();
        pairs
    }
}

pub(super) fn value(number: usize) -> Vec<u8> {
    format!("value {number} {}", "x".repeat(150)).into_bytes()
}

/// Names and bytes of all files.
pub(super) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

pub(super) fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// The place of the record of `key` in a segment file.
pub(super) fn place_of(path: &Path, key: &[u8]) -> (usize, usize) {
    let bytes = fs::read(path).unwrap();
    let (_, mut scanner) = Scanner::open(&bytes).unwrap();
    let (range, _) = scanner.find(|(_, record)| record.key == key).unwrap();
    (range.start, range.len())
}

/// The keys of a segment file.
pub(super) fn keys_of(path: &Path) -> BTreeSet<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let (_, scanner) = Scanner::open(&bytes).unwrap();
    scanner.filter(|(_, record)| record.kind.is_change()).map(|(_, record)| record.key.to_vec()).collect()
}
