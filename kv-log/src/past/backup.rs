//! Backups: the files of every state in the window, copied to another directory, or linked.
//!
//! A backup has the layout of a store, and a file that marks it. So it opens for reading only, and
//! its states can be read and restored like those of the store.
//!
//! | after | the directory holds | a reader finds |
//! |---|---|---|
//! | the mark | the mark, and the earlier backup, if there is one | the earlier backup, or none |
//! | a link | the same, and another temporary name of a sealed segment | the same |
//! | a copied or linked file | the same, and files that the manifest does not name | the same |
//! | a longer copy of the segment in which the earlier backup ends | the same | the earlier backup, and perhaps later changes |
//! | the manifest | the new backup, and files that it does not need | the new backup |
//! | the end | the new backup | the new backup |
//!
//! A sealed segment never changes, so a later backup leaves its copy as it is. On the same file
//! system, a backup links it. That needs the stored manifest to call the segment sealed: a recovery
//! may write the others again, and seal them at another place. The links are durable before the
//! manifest names them.
//!
//! A crash may leave a link under its temporary name. So nothing in this directory is cut or
//! written again: a file is created anew, and takes the place of another by renaming.
//!
//! The mark holds the id of the store, so that the backup of another store is refused also where
//! there is no manifest yet. Marks of earlier builds are empty.

use kv_core::fs::{Dir, DirExt, OpenMode, has_no_links};
use kv_core::parts::Destination;
use kv_core::{BackupReport, Env, Error, Lsn, Moment, Op, Result, SegmentId};
use std::collections::BTreeMap;
use std::io::ErrorKind::NotFound;
use std::path::Path;
use std::sync::Arc;

use crate::directory::{self, BACKUP_MARK};
use crate::manifest::{Entry, Manifest, PastFile, PastFiles};

/// The directory of a backup.
struct Target {
    dir: Arc<dyn Dir>,
    /// The sealed files of the earlier backup, and their lengths.
    sealed: BTreeMap<SegmentId, u64>,
    _destination: Destination,
}

/// Copies `files`, whose newest change is that of `moment`, to the directory `into`.
pub(super) fn write_backup(
    env: &Env,
    files: &PastFiles,
    moment: Moment,
    into: &Path,
) -> Result<BackupReport> {
    let target = Target::begin(env, into, files.manifest.store_id)?;
    let stored = Manifest::load(&*files.dir)?;
    let mut report = BackupReport {
        moment,
        files: 0,
        bytes: 0,
        files_copied: 0,
        bytes_copied: 0,
        files_linked: 0,
        bytes_linked: 0,
    };
    let mut bytes = Vec::new();
    for file in &files.files {
        report.files += 1;
        report.bytes += file.len;
        if !target.holds(file) {
            files.read(file, &mut bytes)?;
            files.check(file, &bytes, Lsn::new(u64::MAX), |_| ())?;
            if is_final(&stored, file) && target.link(&*files.dir, file, &bytes)? {
                report.files_linked += 1;
                report.bytes_linked += file.len;
            } else {
                target.copy(file, &bytes)?;
                report.files_copied += 1;
                report.bytes_copied += file.len;
            }
        }
    }
    if report.files_linked > 0 {
        target.dir.sync_durably()?;
    }
    let mut manifest =
        Manifest { durable_lsn: moment.lsn, checkpoint: None, nonce: 0, ..files.manifest.clone() };
    let live = files.files.iter().filter(|file| file.replaced_lsn.is_none());
    let entry = |file: &PastFile| Entry { kind: file.kind, sealed: file.is_sealed, durable_len: file.len };
    manifest.segments = live.map(|file| (file.id, entry(file))).collect();
    manifest.store(&*target.dir)?;
    target.remove_others(&manifest);
    Ok(report)
}

/// Whether no recovery from this manifest writes to the file.
fn is_final(stored: &Manifest, file: &PastFile) -> bool {
    let is_sealed = stored.segments.get(&file.id).is_some_and(|entry| entry.sealed);
    is_sealed || stored.archive.segments.contains_key(&file.id)
}

impl Target {
    /// Creates the directory, or takes that of an earlier backup, and marks it.
    fn begin(env: &Env, into: &Path, store_id: u32) -> Result<Self> {
        let destination = Destination::for_backup(&*env.fs, into, BACKUP_MARK)?;
        let dir = Arc::clone(&destination.dir);
        let mut sealed = BTreeMap::new();
        let begun_for = if destination.has(directory::MANIFEST) {
            let earlier = Manifest::load(&*dir)?;
            let live = earlier.segments.iter().filter(|(_, entry)| entry.sealed);
            sealed.extend(live.map(|(id, entry)| (*id, entry.durable_len)));
            sealed.extend(earlier.archive.segments.iter().map(|(id, one)| (*id, one.len)));
            Some(earlier.store_id)
        } else if destination.has(BACKUP_MARK) {
            let mark = dir.read_file(BACKUP_MARK, size_of::<u32>() as u64)?;
            mark.try_into().ok().map(u32::from_le_bytes)
        } else {
            None
        };
        match begun_for {
            None => dir.write_file_atomically(BACKUP_MARK, &store_id.to_le_bytes())?,
            Some(id) if id == store_id => {}
            Some(_) => {
                return Err(Error::InvalidArgument(format!(
                    "{} is a backup of another store; name a directory that is missing or empty",
                    into.display()
                )));
            }
        }
        Ok(Target { dir, sealed, _destination: destination })
    }

    /// Whether the earlier backup has this file.
    fn holds(&self, file: &PastFile) -> bool {
        let name = directory::segment_file_name(file.id);
        let len = || self.dir.open(&name, OpenMode::Read).and_then(|file| file.len()).ok();
        file.is_sealed && self.sealed.get(&file.id) == Some(&file.len) && len() == Some(file.len)
    }

    /// Gives a file of the store its name here, too, and reads it back. `false` where the system
    /// has no links from there to here.
    fn link(&self, from: &dyn Dir, file: &PastFile, bytes: &[u8]) -> Result<bool> {
        let name = directory::segment_file_name(file.id);
        let len = from.open(&name, OpenMode::Read).and_then(|file| file.len());
        if len.ok() != Some(file.len) {
            // It has more space than its records take.
            return Ok(false);
        }
        let temporary = format!("{name}.tmp");
        let path = self.dir.path_of(&temporary);
        // A crash may have left it.
        self.remove(&temporary)?;
        match from.link(&name, &*self.dir, &temporary) {
            Ok(()) => {}
            Err(error) if has_no_links(&error) => return Ok(false),
            Err(error) => return Err(Error::io(Op::Create, &path, error)),
        }
        // It takes the place of a shorter copy.
        self.dir.rename(&temporary, &name).map_err(|error| Error::io(Op::Rename, &path, error))?;
        // Both names may have led to the same bytes: then the system renames nothing.
        self.remove(&temporary)?;
        self.read_back(file, bytes)?;
        Ok(true)
    }

    /// Removes a name, if it is there.
    fn remove(&self, name: &str) -> Result<()> {
        match self.dir.remove_file(name) {
            Err(error) if error.kind() == NotFound => Ok(()),
            removed => removed.map_err(|error| Error::io(Op::Remove, &self.dir.path_of(name), error)),
        }
    }

    /// Writes and syncs a file under its name, and reads it back.
    fn copy(&self, file: &PastFile, bytes: &[u8]) -> Result<()> {
        self.dir.write_file_atomically(&directory::segment_file_name(file.id), bytes)?;
        self.read_back(file, bytes)
    }

    fn read_back(&self, file: &PastFile, bytes: &[u8]) -> Result<()> {
        let name = directory::segment_file_name(file.id);
        let written = self.dir.read_file(&name, file.len)?;
        if written != bytes {
            let at = written.iter().zip(bytes).take_while(|(one, other)| one == other).count();
            let fault = "the copy differs from its source: the disk may be failing";
            return Err(Error::corruption(&self.dir.path_of(&name), at as u64, fault));
        }
        Ok(())
    }

    /// Removes the files that only the earlier backup needed, as far as the system allows.
    fn remove_others(&self, manifest: &Manifest) {
        for name in self.dir.list().unwrap_or_default() {
            let id = directory::parse_segment_file_name(name.strip_suffix(".tmp").unwrap_or(&name));
            let is_needed = |id| manifest.names(id) && directory::segment_file_name(id) == name;
            if id.is_some_and(|id| !is_needed(id)) {
                let _ = self.dir.remove_file(&name);
            }
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::{LogEngine, Options};
    use kv_core::{Background, Engine, ManualClock, PointInTime};
    use kv_tests::sim::SimFs;

    /// No opening for writing has made it, so no object in shared memory is its tail.
    #[test]
    fn a_backup_has_the_number_of_no_opening() {
        let disk = SimFs::new();
        let (fs, clock) = (Arc::new(disk.clone()), Arc::new(ManualClock::new(0)));
        let env = Env { fs, clock, background: Background::Inline };
        let engine = LogEngine::open_in(Path::new("/store"), &env, Options::default()).unwrap();
        engine.put(b"key", b"value").unwrap();
        engine.backup(Path::new("/backup")).unwrap();
        let nonce = |dir: &str| Manifest::load(&*env.fs.open_dir(Path::new(dir)).unwrap()).unwrap().nonce;
        assert!(nonce("/store") != 0 && nonce("/backup") == 0);
    }
}
