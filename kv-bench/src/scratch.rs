//! Where stores lie while they are measured. All of it goes when the measuring is over.

use crate::child;
use crate::failure::Failure;
use crate::worker::{Measured, Run, Task};
use std::path::{Path, PathBuf};

/// A directory of directories, one a run.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    runs: u64,
}

impl Scratch {
    /// In `parent`, which is created if need be.
    pub(crate) fn new(parent: &Path) -> Result<Self, Failure> {
        create_dir(parent)?;
        let dir = tempfile::TempDir::with_prefix_in("scratch-", parent)
            .map_err(Failure::io(format!("create a directory in {}", parent.display())))?;
        Ok(Scratch { dir, runs: 0 })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A directory that does not exist yet.
    pub(crate) fn fresh_dir(&mut self) -> PathBuf {
        self.runs += 1;
        self.dir.path().join(self.runs.to_string())
    }

    /// Removes a directory before the end: the disk shall not fill.
    pub(crate) fn remove(dir: &Path) -> Result<(), Failure> {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::io(format!("remove {}", dir.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// Carries out a task once, in a process and a directory of its own.
    pub(crate) fn measure(&mut self, task: Task) -> Result<Measured, Failure> {
        let run = Run { dir: self.fresh_dir(), task };
        std::fs::create_dir(&run.dir).map_err(Failure::io(format!("create {}", run.dir.display())))?;
        let measured = child::measure(&run)?;
        Self::remove(&run.dir)?;
        Ok(measured)
    }

    /// Removes everything.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let path = self.dir.path().to_path_buf();
        self.dir.close().map_err(Failure::io(format!("remove {}", path.display())))
    }
}

/// Creates a directory and what leads to it.
pub(crate) fn create_dir(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(Failure::io(format!("create {}", dir.display())))
}

/// Writes a file.
pub(crate) fn write(path: &Path, content: &str) -> Result<(), Failure> {
    std::fs::write(path, content).map_err(Failure::io(format!("write {}", path.display())))
}
