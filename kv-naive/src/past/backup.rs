//! Backups: copies of the snapshots, with the points.
//!
//! A backup has the layout of a store, and a file that marks it. So it opens for reading only, and
//! its states can be read and restored like those of the store.
//!
//! | after | the directory holds | a reader finds |
//! |---|---|---|
//! | the mark | the mark, and the earlier backup, if there is one | the earlier backup, or none |
//! | the identity | the same, and a ceiling above both backups | the same |
//! | an old snapshot | the same; one that is newer than `SNAPSHOT` does not count | the same, with more states |
//! | `SNAPSHOT` | the new backup, with the earlier points | the new backup |
//! | the identity again, after a ceiling above it | the same, and its own ceiling | the same |
//! | `POINTS` | the new backup, and snapshots that it does not need | the new backup |
//! | the end | the new backup | the new backup |
//!
//! A store may keep more snapshots than a process can open. So a backup opens each old one only
//! when it copies it. If one has expired by then, the backup leaves it out, and its points.

use kv_core::fs::{Dir, DirExt, FsExt};
use kv_core::parts::{Destination, refuse_unless_backup};
use kv_core::{BackupReport, Env, Error, Lsn, Moment, Result, Rounding};
use std::path::Path;

use super::opened::{Opened, open_old};
use super::{Kept, POINTS, Taken, encode_points};
use crate::directory::BACKUP_MARK as MARK;
use crate::identity::{self, IDENTITY, Identity};
use crate::snapshot::{self, SNAPSHOT, kept_name, parse_kept_name};
use crate::snapshotter::Snapshotter;

/// The snapshots to copy, while the store goes on.
struct Source<'a> {
    snapshotter: &'a Snapshotter,
    /// Those that the backup will hold.
    kept: Kept,
    /// The time of the view, milliseconds since the Unix epoch.
    unix_ms: u64,
    newest: Opened,
}

/// Writes a backup with every change of earlier calls to the directory `into`.
pub(super) fn write_backup(env: &Env, snapshotter: &Snapshotter, into: &Path) -> Result<BackupReport> {
    // Before a snapshot is made for it.
    refuse_unless_backup(into, &env.fs.list_if_exists(into)?.unwrap_or_default(), MARK)?;
    let source = Source::open(snapshotter)?;
    let destination = Destination::for_backup(&*env.fs, into, MARK)?;
    let dir = &*destination.dir;
    let earlier = if destination.has(IDENTITY) { Some(identity::read(dir)?) } else { None };
    if earlier.is_some_and(|earlier| earlier.store_id != source.store_id()) {
        return Err(Error::InvalidArgument(format!(
            "{} is a backup of another store; name a directory that is missing or empty",
            into.display()
        )));
    }
    if !destination.has(MARK) {
        dir.write_file_atomically(MARK, b"")?;
    }
    source.copy_to(dir, earlier.map_or(Lsn::ZERO, |earlier| earlier.lsn_ceiling))
}

impl<'a> Source<'a> {
    fn open(snapshotter: &'a Snapshotter) -> Result<Self> {
        let _leading = snapshotter.lead_with_all_durable()?;
        let files = snapshotter.files();
        files.points()?;
        let kept = files.kept();
        let newest = Opened::open(files, SNAPSHOT, kept.newest.lsn)?;
        Ok(Source { snapshotter, kept, unix_ms: files.now_unix_ms(), newest })
    }

    fn store_id(&self) -> u32 {
        self.snapshotter.files().store_id()
    }

    /// Copies to `dir`, over an earlier backup with this LSN ceiling.
    fn copy_to(mut self, dir: &dyn Dir, earlier: Lsn) -> Result<BackupReport> {
        let newest = self.kept.newest;
        // The store may have been set back since the earlier backup.
        let ceiling = newest.lsn.max(earlier);
        self.write_identity(dir, ceiling)?;
        let mut copied = self.copy_old(dir)?;
        self.newest.copy_to(dir, SNAPSHOT)?;
        copied.push(newest);
        if ceiling > newest.lsn {
            self.write_identity(dir, newest.lsn)?;
        }
        dir.write_file_atomically(POINTS, &encode_points(self.store_id(), &self.kept.points, &[]))?;
        self.remove_others(dir);
        Ok(BackupReport {
            moment: Moment { lsn: newest.lsn, unix_ms: self.unix_ms, rounding: Rounding::Exact },
            files: self.kept.old.len() as u64 + 1,
            bytes: self.kept.past_bytes() + newest.bytes,
            files_copied: copied.len() as u64,
            bytes_copied: copied.iter().map(|taken| taken.bytes).sum(),
            files_linked: 0,
            bytes_linked: 0,
        })
    }

    fn write_identity(&self, dir: &dyn Dir, lsn_ceiling: Lsn) -> Result<()> {
        let identity = Identity { store_id: self.store_id(), lsn_ceiling };
        dir.write_file_atomically(IDENTITY, &identity::encode(identity))
    }

    /// Copies the old snapshots that the directory lacks, one at a time. Answers which.
    fn copy_old(&mut self, dir: &dyn Dir) -> Result<Vec<Taken>> {
        let (mut copied, mut expired) = (Vec::new(), Vec::new());
        // The oldest expire first. So no gap arises before one that was copied.
        for taken in self.kept.old.iter().rev() {
            let name = kept_name(taken.lsn);
            // A snapshot never changes.
            if snapshot::read_facts(dir, &name).is_ok_and(|facts| facts.bytes == taken.bytes) {
                continue;
            }
            match open_old(self.snapshotter, taken.lsn)? {
                Some(snapshot) => {
                    snapshot.copy_to(dir, &name)?;
                    copied.push(*taken);
                }
                None => expired.push(taken.lsn),
            }
        }
        self.kept.take_out(&expired);
        Ok(copied)
    }

    /// Removes the snapshots that only the earlier backup needed, as far as the system allows.
    fn remove_others(&self, dir: &dyn Dir) {
        let is_needed = |lsn| self.kept.old.iter().any(|taken| taken.lsn == lsn);
        for name in dir.list().unwrap_or_default() {
            let lsn = parse_kept_name(name.strip_suffix(".tmp").unwrap_or(&name));
            if lsn.is_some_and(|lsn| !is_needed(lsn) || kept_name(lsn) != name) {
                let _ = dir.remove_file(&name);
            }
        }
    }
}
