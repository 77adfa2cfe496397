//! The directory in which a new store or a backup begins.

use std::path::Path;
use std::sync::Arc;

use crate::fs::{Dir, DirExt, DirLock, Fs, FsExt, LOCK_FILE, LockKind, is_system_file};
use crate::{Error, Op, Result};

/// A directory into which one process writes a new store or a backup. Nobody else writes there
/// until this is dropped.
#[derive(Debug)]
pub struct Destination {
    /// The directory.
    pub dir: Arc<dyn Dir>,
    /// The names of its files, after it was locked.
    pub names: Vec<String>,
    _lock: Box<dyn DirLock>,
}

impl Destination {
    /// Takes the directory for a new store, and creates it if it is missing. It is durable then.
    ///
    /// # Errors
    /// As for [`refuse_unless_empty`]. The directory is locked, or the system answers so.
    pub fn for_store(fs: &dyn Fs, path: &Path) -> Result<Self> {
        Self::take(fs, path, |names| refuse_unless_empty(path, names))
    }

    /// As [`for_store`](Self::for_store), for a backup with the file `mark`.
    ///
    /// # Errors
    /// As for [`refuse_unless_backup`]. The directory is locked, or the system answers so.
    pub fn for_backup(fs: &dyn Fs, path: &Path, mark: &str) -> Result<Self> {
        Self::take(fs, path, |names| refuse_unless_backup(path, names, mark))
    }

    fn take(fs: &dyn Fs, path: &Path, check: impl Fn(&[String]) -> Result<()>) -> Result<Self> {
        // Before the lock, which may leave a file: never in a directory of another owner.
        check(&fs.list_if_exists(path)?.unwrap_or_default())?;
        fs.create_dir_durably(path)?;
        let dir = fs.open_dir(path).map_err(|error| Error::io(Op::Open, path, error))?;
        let lock = dir.lock_or_refuse(LockKind::Exclusive)?;
        let names = dir.names()?;
        check(&names)?;
        Ok(Destination { dir, names, _lock: lock })
    }

    /// Whether the directory has a file of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|found| found == name)
    }
}

/// A new store begins only in a directory whose `names` are those of no files, or of the operating
/// system.
///
/// # Errors
/// [`Error::InvalidArgument`] names another file in `dir`.
pub fn refuse_unless_empty(dir: &Path, names: &[String]) -> Result<()> {
    refuse_others(dir, names, |_| false)
}

/// A backup goes to a directory for a new store, or to one with the file `mark`, which an earlier
/// backup has left. A crash may have left the mark's temporary file and no mark.
///
/// # Errors
/// As for [`refuse_unless_empty`].
pub fn refuse_unless_backup(dir: &Path, names: &[String], mark: &str) -> Result<()> {
    if names.iter().any(|name| name == mark) {
        return Ok(());
    }
    refuse_others(dir, names, |name| name.strip_suffix(".tmp") == Some(mark))
}

fn refuse_others(dir: &Path, names: &[String], is_expected: impl Fn(&str) -> bool) -> Result<()> {
    let is_other = |name: &&String| *name != LOCK_FILE && !is_system_file(name) && !is_expected(name);
    match names.iter().find(is_other) {
        Some(name) => Err(Error::InvalidArgument(format!(
            "{} is not empty: it holds {name}; name a directory that is missing or empty",
            dir.display()
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_or_a_backup_is_taken() {
        let answers = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let dir = Path::new("d");
            (refuse_unless_empty(dir, &names).is_ok(), refuse_unless_backup(dir, &names, "BACKUP").is_ok())
        };
        for (names, taken) in [
            (&[][..], (true, true)),
            (&[LOCK_FILE, "lost+found"], (true, true)),
            (&[LOCK_FILE, "BACKUP.tmp"], (false, true)),
            (&["BACKUP", "other"], (false, true)),
            (&["BACKUP.tmp", "other"], (false, false)),
            (&["other"], (false, false)),
        ] {
            assert_eq!(answers(names), taken, "{names:?}");
        }
        let told = refuse_unless_empty(Path::new("d"), &["x".to_owned()]).unwrap_err().to_string();
        assert!(told.contains("it holds x"), "{told}");
    }
}
