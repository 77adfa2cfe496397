//! Where a new store or a backup may begin.

use std::path::Path;

use crate::fs::{LOCK_FILE, is_system_file};
use crate::{Error, Result};

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
