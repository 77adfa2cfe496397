//! The directories of the runs, which go when the measuring ends.

use crate::failure::Failure;
use kv_core::Env;
use kv_log::tail;
use std::path::{Path, PathBuf};

/// A directory with one directory for each run.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    runs: u64,
}

impl Scratch {
    /// Creates the directory in `parent`, which it creates too if necessary.
    pub(crate) fn new(parent: &Path) -> Result<Self, Failure> {
        create_dir(parent)?;
        let dir = tempfile::TempDir::with_prefix_in("scratch-", parent)
            .map_err(Failure::io(format!("create a directory in {}", parent.display())))?;
        Ok(Scratch { dir, runs: 0 })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Creates the directory of the next run.
    pub(crate) fn next_dir(&mut self) -> Result<PathBuf, Failure> {
        self.runs += 1;
        let dir = self.dir.path().join(self.runs.to_string());
        create_dir(&dir)?;
        Ok(dir)
    }

    /// Removes a run's directory before the end, so that the disk does not fill.
    pub(crate) fn remove(dir: &Path) -> Result<(), Failure> {
        let removed = std::fs::remove_dir_all(dir);
        remove_tails(dir);
        removed.map_err(Failure::io(format!("remove {}", dir.display())))
    }

    /// Removes everything.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let path = self.dir.path().to_path_buf();
        let removed = self.dir.close();
        remove_tails(&path);
        removed.map_err(Failure::io(format!("remove {}", path.display())))
    }
}

/// Removes what stores that were not closed left in shared memory. Their directories were at or
/// below `dir`.
pub(crate) fn remove_tails(dir: &Path) {
    let (env, Ok(dir)) = (Env::os(), std::path::absolute(dir)) else { return };
    for object in tail::list(&env).unwrap_or_default() {
        if object.store.is_some_and(|store| store.starts_with(&dir)) {
            let _ = tail::remove(&env, &object.name);
        }
    }
}

/// Creates a directory and its parents.
pub(crate) fn create_dir(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(Failure::io(format!("create {}", dir.display())))
}

/// Writes a file.
pub(crate) fn write(path: &Path, content: &str) -> Result<(), Failure> {
    std::fs::write(path, content).map_err(Failure::io(format!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::Engine;
    use kv_log::{LogEngine, Options};

    /// The stores whose objects are in shared memory, if there is any.
    fn stores_with_objects() -> Vec<PathBuf> {
        tail::list(&Env::os()).unwrap_or_default().into_iter().filter_map(|object| object.store).collect()
    }

    #[test]
    fn a_removed_run_leaves_nothing_in_shared_memory() {
        let parent = tempfile::tempdir().unwrap();
        let mut scratch = Scratch::new(parent.path()).unwrap();
        let [removed, kept] = [(); 2].map(|()| {
            let dir = scratch.next_dir().unwrap();
            let store = LogEngine::open(&dir, Options::default()).unwrap();
            store.put(b"key", b"value").unwrap();
            // Such a store cannot be closed well, so its objects stay as if it was killed.
            std::fs::remove_file(dir.join("LOCK")).unwrap();
            store.close().unwrap_err();
            dir
        });
        let uses_objects = stores_with_objects().contains(&removed);
        Scratch::remove(&removed).unwrap();
        let stores = stores_with_objects();
        assert_eq!((stores.contains(&removed), stores.contains(&kept)), (false, uses_objects));
        scratch.close().unwrap();
        assert!(!stores_with_objects().contains(&kept));
    }
}
