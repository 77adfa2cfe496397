//! Small stores, and their files.

use kv_core::PersistencePolicy;
use kv_log::Options;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn small(policy: impl PersistencePolicy + 'static) -> Options {
    Options { segment_bytes: 4096, persistence: Arc::new(policy), ..Options::default() }
}

pub(crate) fn copy_store(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

pub(crate) fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    files.sort();
    files
}
