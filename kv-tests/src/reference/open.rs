//! Opening: check, lock, recover, and only then change anything.

use super::Defect;
use super::engine::{Place, Reference};
use super::log::{self, Content};
use kv_core::{
    Background, Capabilities, DirExt, DirLock, Engine, EngineFactory, Env, Error, FileExt, FsExt, LOCK_FILE,
    LockKind, OpenMode, OpenOptions, Result,
};
use std::path::Path;
use std::sync::Arc;

/// The file, and what it is called until it is whole.
pub(super) const FILE: &str = "REFERENCE";
const TEMPORARY: &str = "REFERENCE.tmp";

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
        Capabilities::new()
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        options.limits.validate()?;
        // Looked at before it is locked: a lock may leave a file, and a foreign directory is none of ours.
        let names = env.fs.list_if_exists(dir)?.unwrap_or_default();
        check(self.defect, dir, &names, options)?;
        env.fs.create_dir_durably(dir)?;
        let handle = env.fs.open_dir(dir).map_err(|error| Error::io("open", dir, error))?;
        let place = Place { dir: handle, env: env.clone(), defect: self.defect };
        let lock = place.lock()?;
        let recovered = if check(self.defect, dir, &place.dir.names()?, options)? {
            place.recover()?
        } else {
            Content { clean: true, ..Content::default() }
        };
        // A new epoch on disk, before an LSN of it is given out.
        let step = u64::from(!place.has(Defect::LsnReuse) || recovered.epoch == 0);
        let content = Content { epoch: recovered.epoch + step, ..recovered };
        let (file, len) = place.replace(&content)?;
        let engine = Arc::new(Reference::new(place, options.clone(), content, file, len, lock));
        if env.background == Background::Threads && self.defect != Some(Defect::NoTicker) {
            engine.start_ticker();
        }
        Ok(engine)
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

impl Place {
    pub(super) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn lock(&self) -> Result<Box<dyn DirLock>> {
        if self.has(Defect::NoLock) {
            Ok(Box::new(NoLock))
        } else {
            self.dir.lock_or_refuse(LockKind::Exclusive)
        }
    }

    fn recover(&self) -> Result<Content> {
        let bytes = self.dir.read_file(FILE, u64::MAX)?;
        log::decode(&bytes, self.defect)
            .map_err(|damage| Error::corruption(&self.dir.path_of(FILE), damage.offset as u64, damage.detail))
    }

    /// Replaces the file by one that holds `content` in one record; returns it with its length.
    pub(super) fn replace(&self, content: &Content) -> Result<(Box<dyn kv_core::File>, u64)> {
        let bytes = log::file(content.epoch, content.last, &content.map);
        if self.has(Defect::NoDirectorySync) || self.has(Defect::RenameBeforeSync) {
            self.replace_carelessly(&bytes)?;
        } else {
            self.dir.write_file_atomically(FILE, &bytes)?;
        }
        let file = self.dir.open(FILE, OpenMode::ReadWrite);
        let file = file.map_err(|error| Error::io("open", &self.dir.path_of(FILE), error))?;
        Ok((file, bytes.len() as u64))
    }

    fn replace_carelessly(&self, bytes: &[u8]) -> Result<()> {
        let path = self.dir.path_of(FILE);
        let io = |error| Error::io("replace", &path, error);
        let file = self.dir.open(TEMPORARY, OpenMode::CreateOrTruncate).map_err(io)?;
        file.write_all_at(bytes, 0).map_err(io)?;
        if !self.has(Defect::RenameBeforeSync) {
            file.sync_all().map_err(io)?;
        }
        self.dir.rename(TEMPORARY, FILE).map_err(io)?;
        if !self.has(Defect::NoDirectorySync) {
            self.dir.sync().map_err(io)?;
        }
        Ok(())
    }
}

/// Whether these names in `dir` are those of a store; an error if they are not, and none shall be made.
fn check(defect: Option<Defect>, dir: &Path, names: &[String], options: &OpenOptions) -> Result<bool> {
    let has = |wanted| defect == Some(wanted);
    let not_a_store = |detail| Err(Error::NotAStore { path: dir.to_path_buf(), detail });
    if names.iter().any(|name| name == FILE) {
        return Ok(true);
    }
    let foreign = names.iter().find(|name| ![LOCK_FILE, TEMPORARY].contains(&name.as_str()));
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
