use super::disk::{Disk, NodeId, SlowSyncs};
use super::fault::FaultState;
use super::file::SECTOR_LEN;
use super::shared_memory::SimSharedMemory;
use super::{Fault, OpKind, OpRecord, PowerCut};
use kv_core::Fs;
use kv_core::fs::{Dir, DirId, DirLock, File, FileExt, FsExt, LOCK_FILE, LockKind, OpenMode, SharedMemory};
use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The simulated disk as a file system. Clones are the same disk. See [the module](crate::sim).
#[derive(Clone, Debug)]
pub struct SimFs {
    disk: Shared,
}

#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<Disk>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_sync(&self) {
        let slow = self.lock().slow_syncs.clone();
        if let Some(wait) = slow.0 {
            wait();
        }
    }
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl SimFs {
    /// An empty disk.
    pub fn new() -> Self {
        SimFs::holding(Disk::new())
    }

    fn holding(disk: Disk) -> Self {
        SimFs { disk: Shared(Arc::new(Mutex::new(disk))) }
    }

    /// Cuts the power after `count` mutating operations since the creation of this disk. All later
    /// operations fail, of any kind. 0 cuts it at once.
    pub fn cut_after(&self, count: u64) {
        self.disk.lock().cut_after = Some(count);
    }

    /// Cuts the power now.
    pub fn freeze(&self) {
        self.cut_after(0);
    }

    /// Whether the power is cut.
    pub fn has_lost_power(&self) -> bool {
        self.disk.lock().has_lost_power()
    }

    /// Whether an operation has met the lost power. A process that is killed there goes no further.
    pub fn has_stopped(&self) -> bool {
        self.disk.lock().objects.has_stopped()
    }

    /// Injects `fault`, which replaces the one before.
    pub fn inject(&self, fault: Fault) {
        self.disk.lock().inject(fault);
    }

    /// Removes the injected fault.
    pub fn heal(&self) {
        self.disk.lock().faults = FaultState::default();
    }

    /// Limits the bytes of all files together; `None` removes the limit. A file counts with its
    /// length, which includes the space reserved for it.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.disk.lock().space = bytes;
    }

    /// Makes syncs slow: each sync of a file or directory first calls `wait`, which sleeps, or
    /// moves a [`ManualClock`](kv_core::ManualClock). Other operations go on meanwhile.
    pub fn slow_syncs(&self, wait: impl Fn() + Send + Sync + 'static) {
        self.disk.lock().slow_syncs = SlowSyncs(Some(Arc::new(wait)));
    }

    /// Takes the shared memory of the machine away, or gives it back. Engines that are open keep
    /// what they have.
    pub fn lack_shared_memory(&self, lacks: bool) {
        self.disk.lock().objects.is_absent = lacks;
    }

    /// Limits the bytes of all objects in shared memory together; `None` removes the limit.
    pub fn limit_shared_memory(&self, bytes: Option<u64>) {
        self.disk.lock().objects.space = bytes;
    }

    /// Lets all objects in shared memory belong to another user, or to this one again.
    pub fn deny_shared_memory(&self, denies: bool) {
        self.disk.lock().objects.is_denied = denies;
    }

    /// The objects in shared memory by their names, with their present bytes. This is not an
    /// operation of the machine.
    pub fn shared_objects(&self) -> Vec<(String, Vec<u8>)> {
        let objects = self.disk.lock().objects.bytes();
        objects.into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect()
    }

    /// Replaces an object in shared memory, or removes it (`None`). This is not an operation of the
    /// machine.
    pub fn damage_shared(&self, name: &str, bytes: Option<Vec<u8>>) {
        self.disk.lock().objects.replace(name, bytes);
    }

    /// Gives the boot another id, and keeps the objects in shared memory.
    pub fn change_boot(&self) {
        self.disk.lock().objects.change_boot();
    }

    /// How many operations the injected fault struck.
    pub fn faults_fired(&self) -> u64 {
        self.disk.lock().faults.fired
    }

    /// The disk that the next boot finds if the power fails now, or failed when it was cut. This
    /// disk stays as it is, and any number of images can be taken.
    #[must_use]
    pub fn power_cut(&self, cut: PowerCut) -> SimFs {
        SimFs::holding(self.disk.lock().after_power_cut(cut))
    }

    /// The disk that the next process finds if this one dies now. Every completed operation counts,
    /// nothing becomes durable by it, and no lock is held.
    #[must_use]
    pub fn process_death(&self) -> SimFs {
        SimFs::holding(self.disk.lock().after_process_death())
    }

    /// Copies all files and their directories, as reads show them, into `dir` on another file
    /// system.
    ///
    /// # Errors
    /// The error of `to`.
    pub fn copy_to(&self, to: &dyn Fs, dir: &Path) -> kv_core::Result<()> {
        for (path, bytes) in self.files() {
            let path = dir.join(path.strip_prefix("/").unwrap_or(&path));
            let in_path = |error| kv_core::Error::io("copy to", &path, error);
            if let Some(parent) = path.parent() {
                to.create_dir_durably(parent)?;
            }
            to.open(&path, OpenMode::CreateOrTruncate)
                .and_then(|file| file.write_all_at(&bytes, 0))
                .map_err(in_path)?;
        }
        Ok(())
    }

    /// All files by their paths, as reads show them. This is not an operation of the disk: no log,
    /// no count, no fault.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.disk.lock().files()
    }

    /// Replaces the file at `path`, or removes it (`None`), in the cache and on the medium. This is
    /// not an operation of the disk.
    pub fn damage(&self, path: &Path, bytes: Option<Vec<u8>>) {
        self.disk.lock().damage(path, bytes);
    }

    /// Moves the directory `from` to `to`, or removes it with its content (`None`), as another
    /// process would. This is not an operation of the disk.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn move_dir(&self, from: &Path, to: Option<&Path>) -> io::Result<()> {
        self.disk.lock().move_dir(from, to)
    }

    /// Sets the alignment that files report for direct I/O, which always demands 512 bytes. `None`:
    /// files report that they support none.
    pub fn claim_direct_io_align(&self, align: Option<usize>) {
        self.disk.lock().direct_io_align = align;
    }

    /// How many files, directories and locks are open. A clone of this disk is no handle.
    pub fn open_handles(&self) -> usize {
        Arc::strong_count(&self.disk.lock().handles) - 1
    }

    /// Mutating operations so far.
    pub fn mutations(&self) -> u64 {
        self.disk.lock().mutations
    }

    /// All operations so far, in order.
    pub fn ops(&self) -> Vec<OpRecord> {
        self.disk.lock().log.clone()
    }

    /// One line for each thing that the crash kept or lost, on a disk made by a crash.
    pub fn kept(&self) -> Vec<String> {
        self.disk.lock().kept.clone()
    }
}

impl Fs for SimFs {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Open, path, 0, 0)?;
        let node = disk.lookup(path)?;
        disk.list(node)?;
        let handle = Arc::clone(&disk.handles);
        Ok(Arc::new(SimDir { disk: self.disk.clone(), node, path: path.to_path_buf(), _handle: handle }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::CreateDir, path, 0, 0)?;
        disk.create_dir(path).map(drop)
    }

    fn shared_memory(&self) -> Option<Arc<dyn SharedMemory>> {
        let is_absent = self.disk.lock().objects.is_absent;
        (!is_absent).then(|| Arc::new(SimSharedMemory(self.disk.clone())) as Arc<dyn SharedMemory>)
    }
}

#[derive(Debug)]
struct SimDir {
    disk: Shared,
    node: NodeId,
    path: PathBuf,
    _handle: Arc<()>,
}

impl Dir for SimDir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn id(&self) -> io::Result<DirId> {
        Ok(Disk::dir_id(self.node))
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let (mut disk, path) = (self.disk.lock(), self.path.join(name));
        let creates = matches!(mode, OpenMode::CreateNew | OpenMode::CreateOrTruncate);
        disk.begin(if creates { OpKind::Create } else { OpKind::Open }, &path, 0, 0)?;
        let node = match (disk.entry(self.node, name), mode) {
            (Ok(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(node), OpenMode::CreateOrTruncate) => {
                disk.file(node)?.set_len(0);
                node
            }
            (Ok(node), _) => node,
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound && creates => {
                disk.create_file(self.node, name, path.clone())?
            }
            (Err(error), _) => return Err(error),
        };
        disk.file(node)?;
        let handle = Arc::clone(&disk.handles);
        drop(disk);
        let writable = mode != OpenMode::Read;
        let (disk, direct) = (self.disk.clone(), AtomicBool::new(false));
        Ok(Box::new(SimFile { disk, node, path, writable, direct, _handle: handle }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut disk, path) = (self.disk.lock(), self.path.join(to));
        disk.begin(OpKind::Rename, &path, 0, 0)?;
        disk.rename(self.node, from, to, path)
    }

    fn link(&self, name: &str, into: &dyn Dir, other_name: &str) -> io::Result<()> {
        let into: &dyn Any = into;
        let into = into.downcast_ref::<SimDir>().filter(|into| Arc::ptr_eq(&self.disk.0, &into.disk.0));
        let Some(into) = into else { return Err(io::ErrorKind::CrossesDevices.into()) };
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Link, &into.path.join(other_name), 0, 0)?;
        disk.link(self.node, name, into.node, other_name)
    }

    fn link_count(&self, name: &str) -> io::Result<u64> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Open, &self.path.join(name), 0, 0)?;
        let node = disk.entry(self.node, name)?;
        Ok(disk.link_count(node))
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Remove, &self.path.join(name), 0, 0)?;
        disk.remove_file(self.node, name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::List, &self.path, 0, 0)?;
        disk.list(self.node)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.wait_for_sync();
        let mut disk = self.disk.lock();
        let lost_power = disk.has_lost_power();
        match disk.begin(OpKind::SyncDir, &self.path, 0, 0) {
            Ok(_) => disk.sync_dir(self.node),
            Err(error) => {
                if !lost_power {
                    disk.fail_sync_dir(self.node);
                }
                Err(error)
            }
        }
    }

    /// An exclusive lock creates a file named [`LOCK_FILE`], as on the real disk.
    fn lock(&self, kind: LockKind) -> io::Result<Option<Box<dyn DirLock>>> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::LockDir, &self.path, 0, 0)?;
        let mut file = disk.entry(self.node, LOCK_FILE).ok();
        if file.is_none() && kind == LockKind::Exclusive {
            let path = self.path.join(LOCK_FILE);
            disk.begin(OpKind::Create, &path, 0, 0)?;
            file = Some(disk.create_file(self.node, LOCK_FILE, path)?);
        }
        let is_locked = disk.lock(self.node, kind)?;
        let handle = Arc::clone(&disk.handles);
        drop(disk);
        let lock = || -> Box<dyn DirLock> {
            Box::new(SimLock { disk: self.disk.clone(), node: self.node, kind, file, _handle: handle })
        };
        Ok(is_locked.then(lock))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: Shared,
    node: NodeId,
    kind: LockKind,
    file: Option<NodeId>,
    _handle: Arc<()>,
}

impl DirLock for SimLock {
    fn check(&self) -> io::Result<()> {
        let disk = self.disk.lock();
        let is_locked = self.file.is_none_or(|file| disk.entry(self.node, LOCK_FILE).ok() == Some(file));
        if disk.is_linked(self.node) && is_locked { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().unlock(self.node, self.kind);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: Shared,
    node: NodeId,
    path: PathBuf,
    writable: bool,
    direct: AtomicBool,
    _handle: Arc<()>,
}

impl SimFile {
    /// How many of `count` bytes a transfer of `buf` moves. Direct I/O moves whole sectors.
    fn transferred(&self, buf: &[u8], offset: u64, count: u64) -> io::Result<usize> {
        let count = to_usize(count)?;
        if !self.direct.load(Ordering::Acquire) {
            return Ok(count);
        }
        let is_aligned = |number: usize| number.is_multiple_of(SECTOR_LEN);
        if !is_aligned(buf.as_ptr().addr()) || !is_aligned(buf.len()) || !is_aligned(to_usize(offset)?) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(count.next_multiple_of(SECTOR_LEN))
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.wait_for_sync();
        let mut disk = self.disk.lock();
        let lost_power = disk.has_lost_power();
        let begun = disk.begin(OpKind::Sync, &self.path, 0, 0);
        let file = disk.file(self.node)?;
        match begun {
            Ok(_) => file.sync(),
            Err(_) if lost_power => {}
            Err(_) => file.fail_sync(),
        }
        begun.map(drop)
    }
}

fn to_usize(number: u64) -> io::Result<usize> {
    // A file that does not fit in memory is a bug of the engine under test.
    usize::try_from(number)
        .ok()
        .filter(|number| *number <= 1 << 40)
        .ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        let count = disk.begin(OpKind::Read, &self.path, offset, buf.len() as u64)?;
        let count = self.transferred(buf, offset, count)?;
        let file = disk.file(self.node)?;
        Ok(file.read(buf.get_mut(..count).unwrap_or_default(), to_usize(offset)?))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.check_writable()?;
        let mut disk = self.disk.lock();
        let count = disk.begin(OpKind::Write, &self.path, offset, buf.len() as u64)?;
        let (count, offset) = (self.transferred(buf, offset, count)?, to_usize(offset)?);
        disk.check_space(self.node, offset + count)?;
        disk.file(self.node)?.write(buf.get(..count).unwrap_or_default(), offset);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut disk = self.disk.lock();
        disk.begin(OpKind::SetLen, &self.path, 0, len)?;
        disk.file(self.node)?.set_len(to_usize(len)?);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Allocate, &self.path, 0, len)?;
        let len = to_usize(len)?;
        disk.check_space(self.node, len)?;
        let file = disk.file(self.node)?;
        if file.len() < len {
            file.set_len(len);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut disk = self.disk.lock();
        disk.begin(OpKind::Len, &self.path, 0, 0)?;
        Ok(disk.file(self.node)?.len() as u64)
    }

    /// As strict as real disks, in units of 512 bytes.
    fn set_direct_io(&self, on: bool) -> io::Result<Option<usize>> {
        let claimed = self.disk.lock().direct_io_align.filter(|_| on);
        self.direct.store(claimed.is_some(), Ordering::Release);
        Ok(claimed)
    }
}
