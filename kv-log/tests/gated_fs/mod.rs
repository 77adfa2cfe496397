use kv_core::fs::{Dir, DirId, DirLock, File, LockKind, OpenMode};
use kv_core::{Fs, OsFs};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// A door, open at first. Calls wait while it is shut.
#[derive(Debug, Default)]
pub(crate) struct Door {
    shut: Mutex<bool>,
    opened: Condvar,
    /// Calls that have not passed yet.
    pub(crate) waiting: AtomicUsize,
}

impl Door {
    fn pass(&self) {
        let mut shut = self.shut.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while *shut {
            shut = self.opened.wait(shut).unwrap();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }
}

/// The doors in front of the system's files.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) writes: Door,
    /// Reads of a sealed segment as a whole.
    pub(crate) whole_reads: Door,
    pub(crate) refuses_new_files: AtomicBool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct GatedFs(pub(crate) Arc<Gate>);

#[derive(Debug)]
struct GatedDir(Arc<dyn Dir>, Arc<Gate>);

#[derive(Debug)]
struct GatedFile {
    file: Box<dyn File>,
    gate: Arc<Gate>,
    /// Whether it is a segment that the engine opened for reading only.
    is_sealed: bool,
}

/// A read of so many bytes is no read of a header or a record.
const WHOLE_READ_MIN: usize = 1024;

impl Fs for GatedFs {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(GatedDir(OsFs.open_dir(path)?, Arc::clone(&self.0))))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsFs.create_dir(path)
    }
}

impl Dir for GatedDir {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn id(&self) -> io::Result<DirId> {
        self.0.id()
    }
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn File>> {
        if mode == OpenMode::CreateNew && self.1.refuses_new_files.load(Ordering::SeqCst) {
            return Err(io::Error::other("no new files"));
        }
        let is_sealed = mode == OpenMode::Read && name.ends_with(".segment");
        Ok(Box::new(GatedFile { file: self.0.open(name, mode)?, gate: Arc::clone(&self.1), is_sealed }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, name: &str) -> io::Result<()> {
        self.0.remove_file(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn lock(&self, kind: LockKind) -> io::Result<Option<Box<dyn DirLock>>> {
        self.0.lock(kind)
    }
}

impl File for GatedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.is_sealed && offset == 0 && buf.len() >= WHOLE_READ_MIN {
            self.gate.whole_reads.pass();
        }
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.gate.writes.pass();
        self.file.write_at(buf, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_direct_io(&self, on: bool) -> io::Result<Option<usize>> {
        self.file.set_direct_io(on)
    }
}
