//! A file system without links, with switches that make calls fail or panic.

use kv_core::Fs;
use kv_core::fs::{Dir, DirId, DirLock, File, LockKind, OpenMode};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Clone, Debug)]
pub(crate) struct FailingFs {
    fs: Arc<dyn Fs>,
    pub(crate) switches: Arc<Switches>,
}

#[derive(Debug, Default)]
pub(crate) struct Switches {
    pub(crate) fails: AtomicBool,
    pub(crate) panics: AtomicBool,
    /// No file can be removed.
    pub(crate) keeps_files: AtomicBool,
    /// One sync of the directory is denied, as on a file system that became read-only: the one
    /// after so many.
    pub(crate) denies_a_sync: AtomicBool,
    pub(crate) syncs_before: AtomicU64,
}

#[derive(Debug)]
struct FailingDir {
    dir: Arc<dyn Dir>,
    switches: Arc<Switches>,
}

impl FailingFs {
    pub(crate) fn on(fs: impl Fs + 'static) -> Self {
        FailingFs { fs: Arc::new(fs), switches: Arc::default() }
    }
}

impl Fs for FailingFs {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(FailingDir { dir: self.fs.open_dir(path)?, switches: Arc::clone(&self.switches) }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.fs.create_dir(path)
    }
}

impl Dir for FailingDir {
    fn path(&self) -> &Path {
        self.dir.path()
    }
    fn id(&self) -> io::Result<DirId> {
        self.dir.id()
    }
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn File>> {
        assert!(!self.switches.panics.load(Ordering::SeqCst), "on purpose");
        if mode != OpenMode::Read && self.switches.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("on purpose"));
        }
        self.dir.open(name, mode)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir.rename(from, to)
    }
    fn remove_file(&self, name: &str) -> io::Result<()> {
        if self.switches.keeps_files.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.dir.remove_file(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.dir.list()
    }
    fn sync(&self) -> io::Result<()> {
        let Switches { denies_a_sync, syncs_before, .. } = &*self.switches;
        if denies_a_sync.load(Ordering::SeqCst) && syncs_before.fetch_sub(1, Ordering::SeqCst) == 0 {
            denies_a_sync.store(false, Ordering::SeqCst);
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.dir.sync()
    }
    fn lock(&self, kind: LockKind) -> io::Result<Option<Box<dyn DirLock>>> {
        self.dir.lock(kind)
    }
}
