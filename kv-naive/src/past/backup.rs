//! Backups: copies of the snapshots, with the points.
//!
//! A backup has the layout of a store, and a file that marks it. So it opens for reading only, and
//! its states can be read and restored like those of the store.
//!
//! | after | the directory holds | a reader finds |
//! |---|---|---|
//! | the mark | the mark, and the earlier backup, if there is one | the earlier backup, or none |
//! | the identity | the same, and a ceiling for the new snapshot | the same |
//! | an old snapshot | the same; one that is newer than `SNAPSHOT` does not count | the same, with more states |
//! | `SNAPSHOT` | the new backup, with the earlier points | the new backup |
//! | `POINTS` | the new backup, and snapshots that it does not need | the new backup |
//! | the end | the new backup | the new backup |

use kv_core::fs::{Dir, DirExt, File, FileExt, FsExt, LockKind, OpenMode};
use kv_core::{BackupReport, Env, Error, Lsn, Moment, Op, Result, Rounding};
use std::path::Path;
use std::sync::Arc;

use super::restore::refuse_unless_empty;
use super::{Kept, POINTS, Taken, encode_points};
use crate::directory::BACKUP_MARK as MARK;
use crate::identity::{self, IDENTITY, Identity};
use crate::snapshot::{self, SNAPSHOT, kept_name, parse_kept_name};
use crate::snapshotter::Snapshotter;

/// Bytes copied at a time.
const CHUNK_LEN: usize = 1 << 20;

/// The snapshots to copy. Their files stay readable while the store goes on.
struct Source {
    store_id: u32,
    kept: Kept,
    /// The time of the view, milliseconds since the Unix epoch.
    unix_ms: u64,
    old: Vec<(Taken, Box<dyn File>)>,
    newest: Box<dyn File>,
}

/// Writes a backup with every change of earlier calls to the directory `into`.
pub(super) fn write_backup(env: &Env, snapshotter: &Snapshotter, into: &Path) -> Result<BackupReport> {
    // Before a snapshot is made for it.
    check(into, &env.fs.list_if_exists(into)?.unwrap_or_default())?;
    let source = Source::open(snapshotter)?;
    env.fs.create_dir_durably(into)?;
    let dir = env.fs.open_dir(into).map_err(|error| Error::io(Op::Open, into, error))?;
    let _lock = dir.lock_or_refuse(LockKind::Exclusive)?;
    let names = dir.names()?;
    check(into, &names)?;
    if names.iter().any(|name| name == IDENTITY) && identity::read(&*dir)?.store_id != source.store_id {
        return Err(Error::InvalidArgument(format!(
            "{} is a backup of another store; name a directory that is missing or empty",
            into.display()
        )));
    }
    if !names.iter().any(|name| name == MARK) {
        dir.write_file_atomically(MARK, b"")?;
    }
    source.copy_to(&dir)
}

impl Source {
    fn open(snapshotter: &Snapshotter) -> Result<Self> {
        let _leading = snapshotter.lead_with_all_durable()?;
        let files = snapshotter.files();
        let (kept, dir) = (files.kept(), files.dir());
        let open = |name: &str| {
            dir.open(name, OpenMode::Read).map_err(|error| Error::io(Op::Open, &dir.path_of(name), error))
        };
        let old: Result<Vec<_>> =
            kept.old.iter().map(|taken| Ok((*taken, open(&kept_name(taken.lsn))?))).collect();
        let (old, newest) = (old?, open(SNAPSHOT)?);
        Ok(Source { store_id: files.store_id(), kept, unix_ms: files.now_unix_ms(), old, newest })
    }

    fn copy_to(&self, dir: &Arc<dyn Dir>) -> Result<BackupReport> {
        let Kept { newest, old, points } = &self.kept;
        let moment = Moment { lsn: newest.lsn, unix_ms: self.unix_ms, rounding: Rounding::Exact };
        let mut report = BackupReport {
            moment,
            files: old.len() as u64 + 1,
            bytes: self.kept.past_bytes() + newest.bytes,
            files_copied: 0,
            bytes_copied: 0,
            files_linked: 0,
            bytes_linked: 0,
        };
        let identity = Identity { store_id: self.store_id, lsn_ceiling: newest.lsn };
        dir.write_file_atomically(IDENTITY, &identity::encode(identity))?;
        let mut copy = |name: &str, taken: &Taken, file: &dyn File| {
            report.files_copied += 1;
            report.bytes_copied += taken.bytes;
            self.copy(&**dir, name, taken.lsn, file)
        };
        for (taken, file) in &self.old {
            let name = kept_name(taken.lsn);
            // A snapshot never changes.
            if snapshot::read_facts(&**dir, &name).ok().is_none_or(|facts| facts.bytes != taken.bytes) {
                copy(&name, taken, &**file)?;
            }
        }
        copy(SNAPSHOT, newest, &*self.newest)?;
        dir.write_file_atomically(POINTS, &encode_points(self.store_id, points))?;
        self.remove_others(&**dir);
        Ok(report)
    }

    /// Copies a snapshot, syncs it, reads it back, and gives it its name.
    fn copy(&self, dir: &dyn Dir, name: &str, lsn: Lsn, from: &dyn File) -> Result<()> {
        let temporary = format!("{name}.tmp");
        let copied = copy_bytes(dir, &temporary, from).and_then(|()| {
            let loaded = snapshot::read(dir, &temporary, |_| true)?;
            if (loaded.lsn, loaded.store_id) == (lsn, self.store_id) {
                Ok(())
            } else {
                let fault = format!("this is not the snapshot of LSN {lsn} of the store");
                Err(Error::corruption(&dir.path_of(&temporary), 0, fault))
            }
        });
        copied.inspect_err(|_| {
            let _ = dir.remove_file(&temporary);
        })?;
        dir.replace_durably(&temporary, name)
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

fn copy_bytes(dir: &dyn Dir, name: &str, from: &dyn File) -> Result<()> {
    let path = dir.path_of(name);
    let into =
        dir.open(name, OpenMode::CreateOrTruncate).map_err(|error| Error::io(Op::Create, &path, error))?;
    let (mut buffer, mut offset) = (vec![0; CHUNK_LEN], 0);
    loop {
        let read =
            from.read_full_at(&mut buffer, offset).map_err(|error| Error::io(Op::Read, &path, error))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        into.write_all_at(bytes, offset).map_err(|error| Error::io(Op::Write, &path, error))?;
        offset += read as u64;
        if read < CHUNK_LEN {
            return into.sync_all().map_err(|error| Error::sync(&path, error));
        }
    }
}

/// Refuses a directory that is neither empty nor a backup. A crash may have left the mark's
/// temporary file alone.
fn check(into: &Path, names: &[String]) -> Result<()> {
    let is_begun = names.iter().all(|name| name.strip_suffix(".tmp") == Some(MARK));
    if is_begun || names.iter().any(|name| name == MARK) { Ok(()) } else { refuse_unless_empty(into, names) }
}
