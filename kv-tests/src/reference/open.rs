//! Opening: check, lock, recover, and only then change anything.

use super::Defect;
use super::engine::{Place, Reference};
use super::log::{self, Content};
use kv_core::{
    Background, Capabilities, Dir, DirExt, DirLock, Engine, EngineFactory, Env, Error, File, FileExt, FsExt,
    LOCK_FILE, LockKind, OpenMode, OpenOptions, Reserve, Result, StoreLock, is_system_file,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The file, and what it is called until it is whole.
pub(super) const FILE: &str = "REFERENCE";
const TEMPORARY: &str = "REFERENCE.tmp";
/// Bytes of the reserve beyond the length of the file: for the blocks that both begin, and that a writer finds last.
const RESERVE_SLACK: u64 = 12 << 10;

/// Opens [`Reference`] engines.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceFactory {
    defect: Option<Defect>,
}

impl ReferenceFactory {
    /// Opens engines with a deliberate bug.
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
        // Looked at before it is locked: a lock may leave a file, and a foreign directory is none of ours.
        let names = env.fs.list_if_exists(dir)?.unwrap_or_default();
        check(self.defect, dir, &names, &options)?;
        if has(Defect::RacingCreatorFails) {
            create_dir_alone(dir, env)?;
        } else if !options.read_only {
            env.fs.create_dir_durably(dir)?;
        }
        let handle = env.fs.open_dir(dir).map_err(|error| Error::io("open", dir, error))?;
        let lock = lock(self.defect, &*handle, &options)?;
        let exists = check(self.defect, dir, &handle.names()?, &options)?;
        let reserve =
            (!options.read_only && !has(Defect::NoReserve)).then(|| Reserve::open(Arc::clone(&handle)));
        let lock = StoreLock::new(dir, lock);
        let place = Place { dir: handle, env: env.clone(), defect: self.defect, lock, reserve };
        let recovered = if exists { place.recover()? } else { Content { clean: true, ..Content::default() } };
        if options.read_only && !has(Defect::ReadOnlyWrites) {
            let file = place.open_file(OpenMode::Read)?;
            return Ok(Arc::new(Reference::new(place, options, recovered, file, 0)));
        }
        // A new epoch on disk, before an LSN of it is given out.
        let step = u64::from(!has(Defect::LsnReuse) || recovered.epoch == 0);
        let content = Content { epoch: recovered.epoch + step, ..recovered };
        let (file, len) = place.replace(&content)?;
        let has_ticker =
            env.background == Background::Threads && !options.read_only && !has(Defect::NoTicker);
        let engine = Arc::new(Reference::new(place, options, content, file, len));
        if has_ticker {
            engine.start_ticker();
        }
        Ok(engine)
    }
}

/// Creates a directory as a program does that believes to be alone.
fn create_dir_alone(dir: &Path, env: &Env) -> Result<()> {
    if env.fs.list_if_exists(dir)?.is_some() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| *parent != dir) {
        create_dir_alone(parent, env)?;
    }
    // All others come to this point meanwhile.
    std::thread::sleep(Duration::from_millis(5));
    env.fs.create_dir(dir).map_err(|error| Error::io("create directory", dir, error))?;
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

impl Place {
    pub(super) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn recover(&self) -> Result<Content> {
        let bytes = self.dir.read_file(FILE, u64::MAX)?;
        log::decode(&bytes, self.defect)
            .map_err(|damage| Error::corruption(&self.dir.path_of(FILE), damage.offset as u64, damage.detail))
    }

    /// Checks that the directory is still this store's.
    pub(super) fn check_lock(&self) -> Result<()> {
        let unchecked = [Defect::IgnoresLostLock, Defect::LocksByName];
        if unchecked.iter().any(|defect| self.has(*defect)) { Ok(()) } else { self.lock.check() }
    }

    /// Holds space for replacing a file of this length.
    pub(super) fn hold_reserve(&self, len: u64) {
        if let Some(reserve) = &self.reserve {
            reserve.hold(len + RESERVE_SLACK);
        }
    }

    /// Replaces the file by one that holds `content` in one record; returns it with its length. On a full disk the
    /// reserve gives the space.
    pub(super) fn replace(&self, content: &Content) -> Result<(Box<dyn File>, u64)> {
        self.check_lock()?;
        let bytes = log::file(content.epoch, content.last, content.durable, &content.map);
        if self.has(Defect::KeepsOldFiles) {
            self.keep_old_file(&bytes);
        }
        let careless = [Defect::NoDirectorySync, Defect::RenameBeforeSync, Defect::FollowsPath];
        match &self.reserve {
            _ if careless.iter().any(|defect| self.has(*defect)) => self.replace_carelessly(&bytes)?,
            Some(reserve) => reserve.write_file_atomically(FILE, &bytes)?,
            None => self.dir.write_file_atomically(FILE, &bytes)?,
        }
        self.hold_reserve(bytes.len() as u64);
        Ok((self.open_file(OpenMode::ReadWrite)?, bytes.len() as u64))
    }

    fn open_file(&self, mode: OpenMode) -> Result<Box<dyn File>> {
        self.dir.open(FILE, mode).map_err(|error| Error::io("open", &self.dir.path_of(FILE), error))
    }

    fn keep_old_file(&self, bytes: &[u8]) {
        let name = format!("{TEMPORARY}.{}", self.dir.list().map_or(0, |names| names.len()));
        let _ = self.dir.open(&name, OpenMode::CreateNew).map(|file| file.write_all_at(bytes, 0));
    }

    fn replace_carelessly(&self, bytes: &[u8]) -> Result<()> {
        let path = self.dir.path_of(FILE);
        let io = |error| Error::io("replace", &path, error);
        let dir = if self.has(Defect::FollowsPath) {
            self.env.fs.open_dir(self.dir.path()).map_err(io)?
        } else {
            Arc::clone(&self.dir)
        };
        let file = dir.open(TEMPORARY, OpenMode::CreateOrTruncate).map_err(io)?;
        file.write_all_at(bytes, 0).map_err(io)?;
        if !self.has(Defect::RenameBeforeSync) {
            file.sync_all().map_err(io)?;
        }
        dir.rename(TEMPORARY, FILE).map_err(io)?;
        if !self.has(Defect::NoDirectorySync) {
            dir.sync().map_err(io)?;
        }
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

/// Whether these names in `dir` are those of a store; an error if they are not, and none shall be made.
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
