//! Opening: check, lock, recover; only then change anything.

use super::Defect;
use super::engine::Reference;
use super::log::Content;
use super::place::{FILE, Place, TEMPORARY};
use super::state::Shared;
use kv_core::fs::{Dir, DirExt, DirLock, FsExt, LOCK_FILE, LockKind, OpenMode, is_system_file};
use kv_core::parts::{Reserve, StoreLock};
use kv_core::{Background, Capabilities, Engine, EngineFactory, Env, Error, Op, OpenOptions, Result};
use std::path::Path;
use std::sync::Arc;
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
        Capabilities::new().read_only(self.defect != Some(Defect::IgnoresReadOnly))
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        options.limits.validate()?;
        let has = |defect| self.defect == Some(defect);
        let mut options = options.clone();
        options.read_only &= !has(Defect::IgnoresReadOnly);
        options.create_if_missing &= !options.read_only;
        // Checked before the lock, too: taking the lock may create a file, and a foreign directory
        // must stay as it is.
        let names = env.fs.list_if_exists(dir)?.unwrap_or_default();
        check(self.defect, dir, &names, &options)?;
        if has(Defect::RacingCreatorFails) {
            create_dir_alone(dir, env)?;
        } else if !options.read_only {
            env.fs.create_dir_durably(dir)?;
        }
        let handle = env.fs.open_dir(dir).map_err(|error| Error::io(Op::Open, dir, error))?;
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
        let recovered = if exists {
            place.recover().inspect_err(leak)?
        } else {
            Content { clean: true, ..Content::default() }
        };
        if options.read_only && !has(Defect::ReadOnlyWrites) {
            let file = place.open_file(OpenMode::Read)?;
            return Ok(Arc::new(Reference::new(Shared::new(place, options, recovered, file, 0))));
        }
        // Writes the new epoch to disk before the engine gives out an LSN of it.
        let step = u64::from(!has(Defect::LsnReuse) || recovered.epoch == 0);
        let content = Content { epoch: recovered.epoch + step, ..recovered };
        let (file, len) = place.replace(&content)?;
        let has_ticker =
            env.background == Background::Threads && !options.read_only && !has(Defect::NoTicker);
        let engine = Arc::new(Reference::new(Shared::new(place, options, content, file, len)));
        if has_ticker {
            engine.start_ticker();
        }
        Ok(engine)
    }
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
