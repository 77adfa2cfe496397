//! The classification of a directory by its names.
//!
//! The creation of a store writes an empty `SNAPSHOT` first, and then `NAIVE`. From then on the
//! store has both:
//!
//! | `NAIVE` | `SNAPSHOT` | other names | it is |
//! |---|---|---|---|
//! | yes | yes | any | a store |
//! | yes | no | any | a store whose snapshot is missing |
//! | no | yes | ours | an unfinished creation if the snapshot is of LSN 0, else a store whose identity is missing |
//! | no | no | ours or none | empty: nothing, or an unfinished creation |
//! | no | any | another owner's | foreign |
//!
//! Ours are `LOCK`, `RESERVE`, `NAIVE.tmp`, `SNAPSHOT.tmp`, old snapshots, and `POINTS`. Files of
//! the operating system count as none. `RESTORE` and `BACKUP` are not ours: they mark a restore
//! that is not whole, and a backup.

use kv_core::fs::{LOCK_FILE, is_system_file};
use kv_core::parts::Reserve;

use crate::identity::IDENTITY;
use crate::past::POINTS;
use crate::snapshot::{SNAPSHOT, parse_kept_name};

/// The file that marks a backup.
pub(crate) const BACKUP_MARK: &str = "BACKUP";
/// The file that marks the directory of a restore while its store is not whole.
pub(crate) const RESTORE_MARK: &str = "RESTORE";

/// Whether a crash may leave this file, and the next opening removes it.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.strip_suffix(".tmp")
        .is_some_and(|name| [IDENTITY, SNAPSHOT, POINTS].contains(&name) || parse_kept_name(name).is_some())
}

/// The kind of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Store,
    SnapshotMissing,
    /// To tell whether it is an unfinished creation, read the snapshot.
    IdentityMissing,
    Empty,
    /// A directory of another owner. It holds this file.
    Foreign(String),
}

/// Judges a directory by its names.
pub(crate) fn classify(names: &[String]) -> Content {
    let has = |name: &str| names.iter().any(|one| one == name);
    let ours = |name: &str| {
        [LOCK_FILE, Reserve::FILE, SNAPSHOT, POINTS].contains(&name)
            || parse_kept_name(name).is_some()
            || is_temporary(name)
            || is_system_file(name)
    };
    let foreign = names.iter().find(|name| *name == KV_LOG).or_else(|| names.iter().find(|name| !ours(name)));
    match (has(IDENTITY), has(SNAPSHOT), foreign) {
        (true, true, _) => Content::Store,
        (true, false, _) => Content::SnapshotMissing,
        (false, _, Some(name)) => Content::Foreign(name.clone()),
        (false, true, None) => Content::IdentityMissing,
        (false, false, None) => Content::Empty,
    }
}

/// The file that marks a store of kv-log.
const KV_LOG: &str = "MANIFEST";

/// Describes a foreign file by its name.
pub(crate) fn describe_foreign(name: &str) -> String {
    match name {
        KV_LOG => format!("it holds {name}, a file of a kv-log store; open it with kv-log"),
        RESTORE_MARK => {
            format!("it holds {name}: a restore into it was not finished; restore again elsewhere")
        }
        BACKUP_MARK => format!("it holds {name}: it is no whole backup; back up again"),
        _ => format!("it holds {name}, which is not a file of a kv-naive store; choose another directory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_directory_is_told_apart() {
        let foreign = |name: &str| Content::Foreign(name.to_owned());
        let cases: [(&[&str], Content); 13] = [
            (&[], Content::Empty),
            (&["LOCK", "NAIVE.tmp", "SNAPSHOT.tmp", "RESERVE", "lost+found", ".DS_Store"], Content::Empty),
            (&["LOCK", "NAIVE", "SNAPSHOT", "SNAPSHOT.tmp"], Content::Store),
            (&["NAIVE", "SNAPSHOT", "notes"], Content::Store),
            (&["NAIVE"], Content::SnapshotMissing),
            (&["LOCK", "SNAPSHOT"], Content::IdentityMissing),
            (&["NAIVE", "SNAPSHOT", "SNAPSHOT.0000000000000007", "POINTS"], Content::Store),
            (&["NAIVE", "SNAPSHOT", "BACKUP"], Content::Store),
            (&["SNAPSHOT", "SNAPSHOT.0000000000000007.tmp", "POINTS.tmp"], Content::IdentityMissing),
            (&["LOCK", "RESTORE", "SNAPSHOT"], foreign("RESTORE")),
            (&["SNAPSHOT", "notes"], foreign("notes")),
            (&["0000000000000001.segment", "LOCK", "MANIFEST"], foreign("MANIFEST")),
            (&["snapshot"], foreign("snapshot")),
        ];
        for (names, expected) in cases {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(classify(&names), expected, "{names:?}");
        }
    }
}
