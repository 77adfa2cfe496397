//! The directories of the runs, which go when the measuring ends.

use crate::failure::Failure;
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
        std::fs::remove_dir_all(dir).map_err(Failure::io(format!("remove {}", dir.display())))
    }

    /// Removes everything.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let path = self.dir.path().to_path_buf();
        self.dir.close().map_err(Failure::io(format!("remove {}", path.display())))
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
