//! Opening: check, lock, recover, and only then change anything.

use super::Defect;
use super::engine::{Place, Reference};
use super::log::{self, Content};
use kv_core::{
    Background, Capabilities, DirLock, Engine, EngineFactory, Env, Error, FileExt, Fs, FsExt, LOCK_FILE,
    OpenMode, OpenOptions, Result,
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
        let place = Place { dir: dir.to_path_buf(), env: env.clone(), defect: self.defect };
        // Looked at before it is locked: a lock may leave a file, and a foreign directory is none of ours.
        place.check(options)?;
        env.fs.create_dir_durably(dir)?;
        let lock = place.lock()?;
        let recovered = if place.check(options)? {
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

impl DirLock for NoLock {}

impl Place {
    pub(super) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// Whether there is a store; an error if there is none and none shall be made.
    fn check(&self, options: &OpenOptions) -> Result<bool> {
        let names = self.env.fs.list_if_exists(&self.dir)?.unwrap_or_default();
        let not_a_store = |detail| Err(Error::NotAStore { path: self.dir.clone(), detail });
        if names.iter().any(|name| name == FILE) {
            return Ok(true);
        }
        let foreign = names.iter().find(|name| ![LOCK_FILE, TEMPORARY].contains(&name.as_str()));
        match foreign {
            Some(name) if !self.has(Defect::TakesForeignDirectory) => {
                not_a_store(format!("it holds {name}; choose another directory"))
            }
            _ if !options.create_if_missing && !self.has(Defect::CreatesUnasked) => {
                not_a_store("it holds none; set create_if_missing, or correct the path".to_owned())
            }
            _ => Ok(false),
        }
    }

    fn lock(&self) -> Result<Box<dyn DirLock>> {
        if self.has(Defect::NoLock) {
            Ok(Box::new(NoLock))
        } else {
            self.env.fs.lock_dir_exclusive(&self.dir)
        }
    }

    fn recover(&self) -> Result<Content> {
        let path = self.dir.join(FILE);
        let bytes = self.env.fs.read_file(&path)?;
        log::decode(&bytes, self.defect)
            .map_err(|damage| Error::corruption(&path, damage.offset as u64, damage.detail))
    }

    /// Replaces the file by one that holds `content` in one record; returns it with its length.
    pub(super) fn replace(&self, content: &Content) -> Result<(Box<dyn kv_core::File>, u64)> {
        let bytes = log::file(content.epoch, content.last, &content.map);
        let fs = &*self.env.fs;
        if self.has(Defect::NoDirectorySync) || self.has(Defect::RenameBeforeSync) {
            self.replace_carelessly(fs, &bytes)?;
        } else {
            fs.write_file_atomically(&self.dir, FILE, &bytes)?;
        }
        let path = self.dir.join(FILE);
        let file = fs.open(&path, OpenMode::ReadWrite).map_err(|error| Error::io("open", &path, error))?;
        Ok((file, bytes.len() as u64))
    }

    fn replace_carelessly(&self, fs: &dyn Fs, bytes: &[u8]) -> Result<()> {
        let (temporary, path) = (self.dir.join(TEMPORARY), self.dir.join(FILE));
        let io = |error| Error::io("replace", &path, error);
        let file = fs.open(&temporary, OpenMode::CreateOrTruncate).map_err(io)?;
        file.write_all_at(bytes, 0).map_err(io)?;
        if !self.has(Defect::RenameBeforeSync) {
            file.sync_all().map_err(io)?;
        }
        fs.rename(&temporary, &path).map_err(io)?;
        if !self.has(Defect::NoDirectorySync) {
            fs.sync_dir(&self.dir).map_err(io)?;
        }
        Ok(())
    }
}
