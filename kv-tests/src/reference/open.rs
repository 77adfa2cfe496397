//! Opening: check, lock, recover; only then change anything.

use super::Defect;
use super::engine::Reference;
use super::log::Content;
use super::past::Past;
use super::place::{BACKUP, FILE, Place, TEMPORARY};
use super::state::Shared;
use kv_core::fs::{Dir, DirExt, DirLock, FsExt, LOCK_FILE, LockKind, OpenMode, is_system_file};
use kv_core::parts::{Reserve, StoreLock};
use kv_core::{Background, Capabilities, Engine, EngineFactory, Env, Error, Op, OpenOptions, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Opens [`Reference`] engines.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceFactory {
    defect: Option<Defect>,
}

impl ReferenceFactory {
    /// Opens engines with this deliberate bug.
    pub fn with_defect(defect: Defect) -> Self {
        ReferenceFactory { defect: Some(defect) }
    }
}

impl EngineFactory for ReferenceFactory {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn capabilities(&self) -> Capabilities {
        let compacts = [Defect::CompactionLosesLateChange, Defect::CompactionTakesBackLateChange]
            .map(Some)
            .contains(&self.defect);
        let checkpoints = self.defect.is_some_and(|defect| Defect::CHECKPOINTS.contains(&defect));
        Capabilities::new()
            .checkpoint(checkpoints)
            .read_only(self.defect != Some(Defect::IgnoresReadOnly))
            .compact(compacts)
            .point_in_time(true)
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        options.limits.validate()?;
        let has = |defect| self.defect == Some(defect);
        let mut options = options.clone();
        options.read_only &= !has(Defect::IgnoresReadOnly);
        options.create_if_missing &= !options.read_only;
        // Checked before the lock, too: taking the lock may create a file, and a foreign directory
        // must stay as it is.
        let names = env.fs.list_if_exists(dir)?;
        options.create_if_missing |= has(Defect::CreatesInEmptyDirectory) && names.is_some();
        let names = names.unwrap_or_default();
        check(self.defect, dir, &names, &options)?;
        if has(Defect::RacingCreatorFails) {
            create_dir_alone(dir, env)?;
        } else if !options.read_only {
            self.create_dir(dir, env)?;
        }
        let handle = env.fs.open_dir(dir).map_err(|error| Error::io(Op::Open, dir, error))?;
        if has(Defect::LeaksPolicy) {
            std::mem::forget(Arc::clone(&options.persistence));
        }
        let leak = |_: &Error| {
            if has(Defect::FailedOpenLeaks) {
                std::mem::forget(Arc::clone(&handle));
            }
        };
        let lock = lock(self.defect, &*handle, &options).inspect_err(leak)?;
        let exists = check(self.defect, dir, &handle.names()?, &options)?;
        let reserve =
            (!options.read_only && !has(Defect::NoReserve)).then(|| Reserve::open(Arc::clone(&handle)));
        let lock = StoreLock::new(dir, lock);
        let place = Place { dir: Arc::clone(&handle), env: env.clone(), defect: self.defect, lock, reserve };
        let recovered = if exists { recover(&place).inspect_err(leak) } else { Ok(Content::default()) };
        if recovered.is_err() && has(Defect::FailedOpenKeepsLock) {
            std::mem::forget(place);
            return Err(recovered.err().unwrap_or(Error::Closed));
        }
        let recovered = if exists {
            recovered?
        } else {
            Content { clean: true, past: Past::at(0, env.clock.unix_time_ms()), ..Content::default() }
        };
        if options.read_only && !has(Defect::ReadOnlyWrites) {
            let file = place.open_file(OpenMode::Read)?;
            return Ok(Arc::new(Reference::new(Shared::new(place, options, recovered, file, 0))));
        }
        // Writes the new epoch to disk before the engine gives out an LSN of it.
        let step = u64::from(!has(Defect::LsnReuse) || recovered.epoch == 0);
        let mut content = Content { epoch: recovered.epoch + step, ..recovered };
        content.past.opened(self.defect, &content.map, content.last);
        content.past.expire(self.defect, &*options.retention, env.clock.unix_time_ms());
        let (file, len) = place.replace(&content)?;
        if has(Defect::LeaksFiles) {
            std::mem::forget(place.open_file(OpenMode::Read)?);
        }
        let has_ticker =
            env.background == Background::Threads && !options.read_only && !has(Defect::NoTicker);
        let engine = Arc::new(Reference::new(Shared::new(place, options, content, file, len)));
        if has_ticker {
            engine.start_ticker();
        }
        Ok(engine)
    }
}

impl ReferenceFactory {
    /// Creates the directory of a store.
    fn create_dir(self, dir: &Path, env: &Env) -> Result<()> {
        if self.defect != Some(Defect::ParentsNotSynced) || env.fs.list_if_exists(dir)?.is_some() {
            return env.fs.create_dir_durably(dir);
        }
        if let Some(parent) = dir.parent().filter(|parent| *parent != dir) {
            self.create_dir(parent, env)?;
        }
        env.fs.create_dir(dir).map_err(|error| Error::io(Op::CreateDir, dir, error))
    }
}

/// Reads the store, or, with some defects, does more than refuse a damaged one.
fn recover(place: &Place) -> Result<Content> {
    let recovered = place.recover();
    let Err(Error::Corruption { offset, .. }) = &recovered else { return recovered };
    if place.has(Defect::RefusedOpenTruncates) {
        let _ = place.open_file(OpenMode::ReadWrite)?.set_len(*offset);
    } else if place.has(Defect::RefusedOpenLeavesFile) {
        let _ = place.dir.open("REFERENCE.tmp.report", OpenMode::CreateOrTruncate);
    }
    recovered
}

/// Creates a directory like a program that expects no other creator.
fn create_dir_alone(dir: &Path, env: &Env) -> Result<()> {
    if env.fs.list_if_exists(dir)?.is_some() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| *parent != dir) {
        create_dir_alone(parent, env)?;
    }
    // Gives other threads time to reach this point.
    std::thread::sleep(Duration::from_millis(5));
    env.fs.create_dir(dir).map_err(|error| Error::io(Op::CreateDir, dir, error))?;
    env.fs.create_dir_durably(dir)
}

/// The directories that a lock of this process excludes.
static LOCKED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A lock that only this process sees.
#[derive(Debug)]
struct OwnLock(PathBuf);

impl OwnLock {
    fn take(path: &Path) -> Result<Box<dyn DirLock>> {
        let is_free = LOCKED.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_path_buf());
        if is_free {
            Ok(Box::new(OwnLock(path.to_path_buf())))
        } else {
            Err(Error::Locked { path: path.to_path_buf() })
        }
    }
}

impl DirLock for OwnLock {
    fn check(&self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for OwnLock {
    fn drop(&mut self) {
        LOCKED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Locks nothing.
#[derive(Debug)]
struct NoLock;

impl DirLock for NoLock {
    fn check(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Takes the lock of the directory.
fn lock(defect: Option<Defect>, dir: &dyn Dir, options: &OpenOptions) -> Result<Box<dyn DirLock>> {
    let kind = if options.read_only && defect != Some(Defect::ReadersExclude) {
        LockKind::Shared
    } else {
        LockKind::Exclusive
    };
    match defect {
        Some(Defect::LocksWithinProcess) => return OwnLock::take(dir.path()),
        Some(Defect::LocksByLastName) => {
            return OwnLock::take(dir.path().file_name().unwrap_or_default().as_ref());
        }
        _ => {}
    }
    let is_named = dir.names()?.iter().any(|name| name == LOCK_FILE);
    match (dir.lock_or_refuse(kind), defect) {
        (_, Some(Defect::NoLock)) => Ok(Box::new(NoLock)),
        (Err(Error::Locked { .. }), Some(Defect::LocksByName)) if !is_named => Ok(Box::new(NoLock)),
        (locked, _) => locked,
    }
}

/// Whether these names in `dir` are those of a store. An error if they are not and the engine must
/// not create one.
fn check(defect: Option<Defect>, dir: &Path, names: &[String], options: &OpenOptions) -> Result<bool> {
    let has = |wanted| defect == Some(wanted);
    let not_a_store = |detail| Err(Error::NotAStore { path: dir.to_path_buf(), detail });
    if !options.read_only && names.iter().any(|name| name == BACKUP) {
        return not_a_store("it is a backup; open it for reading only, or restore it".to_owned());
    }
    if names.iter().any(|name| name == FILE) {
        return Ok(true);
    }
    let is_ours = |name: &str| name.starts_with(TEMPORARY) || [LOCK_FILE, Reserve::FILE].contains(&name);
    let is_systems = |name: &str| is_system_file(name) && !has(Defect::RefusesSystemFiles);
    let foreign = names.iter().find(|name| !is_ours(name) && !is_systems(name));
    match foreign {
        Some(name) if !has(Defect::TakesForeignDirectory) => {
            not_a_store(format!("it holds {name}; choose another directory"))
        }
        _ if !options.create_if_missing && !has(Defect::CreatesUnasked) => {
            not_a_store("it holds none; set create_if_missing, or correct the path".to_owned())
        }
        _ => Ok(false),
    }
}
