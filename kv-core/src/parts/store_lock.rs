use crate::fs::DirLock;
use crate::{Error, Op, Result};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The lock of an open store's directory: a part that engines share.
///
/// An engine checks it before it replaces a file, and before it calls anything durable: a directory
/// that was removed, or whose lock file was, may be another store's by now.
#[derive(Debug)]
pub struct StoreLock {
    dir: PathBuf,
    /// Until the store gives its directory back.
    held: Mutex<Option<Box<dyn DirLock>>>,
}

impl StoreLock {
    /// Keeps the lock of the directory at `dir`.
    pub fn new(dir: &Path, lock: Box<dyn DirLock>) -> Self {
        StoreLock { dir: dir.to_path_buf(), held: Mutex::new(Some(lock)) }
    }

    /// Checks that the directory is still the store's.
    ///
    /// # Errors
    /// [`Error::Closed`] once it was given back; [`Error::Io`] when it was removed, or its lock
    /// file was removed or replaced: then the engine takes no more changes.
    pub fn check(&self) -> Result<()> {
        match &*self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(lock) => lock.check().map_err(|error| Error::io(Op::Confirm, &self.dir, error)),
            None => Err(Error::Closed),
        }
    }

    /// Whether the directory was removed, so that nobody can open it again. `false` once it was
    /// given back, and in doubt.
    pub fn is_dir_removed(&self) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().is_some_and(|lock| lock.is_dir_removed())
    }

    /// Gives the directory back.
    pub fn release(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
