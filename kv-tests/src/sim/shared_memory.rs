//! The shared memory of a simulated machine.
//!
//! An engine maps an object and writes to it without a call, so an object is a real file without a
//! name. A crash reads its bytes.

use super::fault::no_space;
use super::fs::Shared;
use kv_core::fs::SharedMemory;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// The bytes of all objects, by name.
pub(super) type ObjectBytes = BTreeMap<String, Arc<Vec<u8>>>;

/// The objects, and how the memory answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    boot: u128,
    present: BTreeMap<String, Object>,
    /// The bytes at the moment when the machine or the process stopped.
    at_stop: Option<ObjectBytes>,
    pub(super) is_absent: bool,
    pub(super) space: Option<u64>,
    /// Whether the objects belong to another user.
    pub(super) is_denied: bool,
}

#[derive(Clone, Debug)]
enum Object {
    /// As a crash left it.
    Left(Arc<Vec<u8>>),
    /// Opened since: a process may map it.
    Open(Arc<File>),
}

impl Object {
    fn bytes(&self) -> Arc<Vec<u8>> {
        match self {
            Object::Left(bytes) => Arc::clone(bytes),
            Object::Open(file) => Arc::new(read_all(file).unwrap_or_default()),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Object::Left(bytes) => bytes.len() as u64,
            Object::Open(file) => file.metadata().map_or(0, |found| found.len()),
        }
    }

    /// The file of the object, which from now on holds its bytes.
    fn open(&mut self) -> io::Result<File> {
        if let Object::Left(bytes) = self {
            let mut file = nameless_file()?;
            file.write_all(bytes)?;
            *self = Object::Open(Arc::new(file));
        }
        match self {
            Object::Open(file) => file.try_clone(),
            Object::Left(_) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// In memory where the system has a directory for that.
fn nameless_file() -> io::Result<File> {
    tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile())
}

impl Objects {
    pub(super) fn bytes(&self) -> ObjectBytes {
        self.at_stop.clone().unwrap_or_else(|| {
            self.present.iter().map(|(name, object)| (name.clone(), object.bytes())).collect()
        })
    }

    /// The process stops now: what its threads store later is lost.
    pub(super) fn stop(&mut self) {
        if self.at_stop.is_none() {
            self.at_stop = Some(self.bytes());
        }
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.at_stop.is_some()
    }

    pub(super) fn after_process_death(&self) -> Objects {
        let present = self.bytes().into_iter().map(|(name, bytes)| (name, Object::Left(bytes))).collect();
        Objects { present, at_stop: None, ..self.clone() }
    }

    pub(super) fn after_power_cut(&self) -> Objects {
        Objects { boot: self.boot + 1, present: BTreeMap::new(), at_stop: None, ..self.clone() }
    }

    /// The objects are as they were, and the boot is another.
    pub(super) fn change_boot(&mut self) {
        self.boot += 1;
    }

    pub(super) fn replace(&mut self, name: &str, bytes: Option<Vec<u8>>) {
        match bytes {
            Some(bytes) => drop(self.present.insert(name.to_owned(), Object::Left(Arc::new(bytes)))),
            None => drop(self.present.remove(name)),
        }
    }

    fn create(&mut self, name: &str, len: u64) -> io::Result<File> {
        if self.present.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let used: u64 = self.present.values().map(Object::len).sum();
        if self.space.is_some_and(|space| used.saturating_add(len) > space) {
            return Err(no_space());
        }
        let mut file = nameless_file()?;
        file.set_len(len)?;
        file.seek(SeekFrom::Start(0))?;
        let opened = file.try_clone()?;
        self.present.insert(name.to_owned(), Object::Open(Arc::new(file)));
        Ok(opened)
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        let object = self.present.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        if self.is_denied { Err(io::ErrorKind::PermissionDenied.into()) } else { object.open() }
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        if self.is_denied {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.present.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The shared memory of the machine with this disk.
#[derive(Clone, Debug)]
pub(super) struct SimSharedMemory(pub(super) Shared);

impl SharedMemory for SimSharedMemory {
    fn path(&self) -> &Path {
        Path::new("/dev/shm")
    }

    fn boot_id(&self) -> io::Result<u128> {
        Ok(self.0.lock().objects.boot)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<File> {
        let mut disk = self.0.lock();
        disk.begin_shared(true)?;
        disk.objects.create(name, len)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let mut disk = self.0.lock();
        disk.begin_shared(false)?;
        disk.objects.open(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.begin_shared(true)?;
        disk.objects.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.0.lock();
        disk.begin_shared(false)?;
        Ok(disk.objects.present.keys().cloned().collect())
    }
}
