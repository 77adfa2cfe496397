#![allow(clippy::disallowed_methods, reason = "this module is the one user of `std::fs`")]

use super::{Dir, DirId, DirLock, File, Fs, LockKind, OpenMode};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, fcntl_getfl, flock, fstat, statat};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, getrlimit};
use std::any::Any;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the file through which [`OsFs`] locks a directory. It is left behind on purpose:
/// removing it would race with the next opener.
pub const LOCK_FILE: &str = "LOCK";

/// Bytes. Disks ask for multiples of their logical block size, which is 512 or 4096.
#[cfg(target_os = "linux")]
const DIRECT_IO_ALIGN: usize = 4096;

/// The flag of an open file whose transfers pass by the system's cache.
#[cfg(target_os = "linux")]
const DIRECT: OFlags = OFlags::DIRECT;
#[cfg(not(target_os = "linux"))]
const DIRECT: OFlags = OFlags::empty();

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

impl Fs for OsFs {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
        Ok(Arc::new(OsDir { fd, path: path.to_path_buf() }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    #[cfg(target_os = "linux")]
    fn shared_memory(&self) -> Option<Arc<dyn super::SharedMemory>> {
        Some(Arc::new(super::OsSharedMemory::new()))
    }
}

#[derive(Debug)]
struct OsDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl OsDir {
    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<fs::File> {
        let flags = flags | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, NEW_FILE_MODE))?;
        Ok(fs::File::from(fd))
    }
}

impl Dir for OsDir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn id(&self) -> io::Result<DirId> {
        let found = retry_on_intr(|| fstat(&self.fd))?;
        Ok(DirId { device: found.st_dev, inode: found.st_ino })
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let flags = match mode {
            OpenMode::Read => OFlags::RDONLY,
            OpenMode::ReadWrite => OFlags::RDWR,
            OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            OpenMode::CreateOrTruncate => OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
        };
        Ok(Box::new(OsFile(self.open_at(name, flags)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::renameat(&self.fd, from, &self.fd, to))?)
    }

    fn link(&self, name: &str, into: &dyn Dir, other_name: &str) -> io::Result<()> {
        let into: &dyn Any = into;
        let Some(into) = into.downcast_ref::<OsDir>() else { return Err(io::ErrorKind::Unsupported.into()) };
        let linked =
            retry_on_intr(|| rustix::fs::linkat(&self.fd, name, &into.fd, other_name, AtFlags::empty()));
        linked.map_err(|error| match error {
            // A file system without links, or a file that has as many names as it can have.
            Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK => io::ErrorKind::Unsupported.into(),
            error => error.into(),
        })
    }

    fn link_count(&self, name: &str) -> io::Result<u64> {
        Ok(self.open_at(name, OFlags::RDONLY)?.metadata()?.nlink())
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()))?)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::fsync(&self.fd))?)
    }

    /// Locks the directory itself first, where the file system can: such a lock survives the
    /// removal of the lock file. Network file systems lock files only.
    fn lock(&self, kind: LockKind) -> io::Result<Option<Box<dyn DirLock>>> {
        // Each lock opens the directory again. The kernel would take a second lock of the same open
        // directory for the first one, and release both together.
        let dir = self.open_at(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        if !try_flock(&dir, kind).or_else(unless_unsupported)? {
            return Ok(None);
        }
        // Dropped on every way out: it releases the lock of the directory.
        let mut lock = OsDirLock { dir, file: None, pid: std::process::id() };
        let flags = match kind {
            LockKind::Exclusive => OFlags::RDWR | OFlags::CREATE,
            LockKind::Shared => OFlags::RDONLY,
        };
        let file = match self.open_at(LOCK_FILE, flags) {
            // A reader creates nothing.
            Err(error) if kind == LockKind::Shared && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Box::new(lock)));
            }
            opened => opened?,
        };
        if !try_flock(&file, kind)? {
            return Ok(None);
        }
        lock.file = Some(file);
        match lock.check() {
            Ok(()) => Ok(Some(Box::new(lock))),
            // Another process removed the lock file between the two calls.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Permissions of a new file, before the process's umask.
const NEW_FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// Tries to lock an open file or directory; `false` when another holder excludes it.
fn try_flock(fd: impl AsFd, kind: LockKind) -> io::Result<bool> {
    let operation = match kind {
        LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        LockKind::Shared => FlockOperation::NonBlockingLockShared,
    };
    match retry_on_intr(|| flock(fd.as_fd(), operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A file system that does not lock directories locks the file instead.
fn unless_unsupported(error: io::Error) -> io::Result<bool> {
    const UNSUPPORTED: [Errno; 6] =
        [Errno::BADF, Errno::INVAL, Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::ISDIR];
    match error.raw_os_error() {
        Some(number) if UNSUPPORTED.iter().any(|known| known.raw_os_error() == number) => Ok(true),
        _ => Err(error),
    }
}

/// The locks belong to the open files. They are released explicitly: a child process that is about
/// to execute another program still shares the open files for a moment.
#[derive(Debug)]
struct OsDirLock {
    dir: fs::File,
    file: Option<fs::File>,
    /// The process that took the lock. A forked child shares the open files, and must not unlock
    /// them.
    pid: u32,
}

impl DirLock for OsDirLock {
    fn check(&self) -> io::Result<()> {
        let gone = |text: &str| Err(io::Error::new(io::ErrorKind::NotFound, text));
        if is_removed(&self.dir)? {
            return gone("the directory was removed");
        }
        let Some(file) = &self.file else { return Ok(()) };
        let locked = retry_on_intr(|| fstat(file))?;
        let named = retry_on_intr(|| statat(&self.dir, LOCK_FILE, AtFlags::SYMLINK_NOFOLLOW));
        match named {
            Ok(named) if (named.st_dev, named.st_ino) == (locked.st_dev, locked.st_ino) => Ok(()),
            Ok(_) => gone("the lock file was replaced"),
            Err(Errno::NOENT) => gone("the lock file was removed"),
            Err(error) => Err(error.into()),
        }
    }

    fn is_dir_removed(&self) -> bool {
        is_removed(&self.dir).unwrap_or(false)
    }
}

fn is_removed(dir: &fs::File) -> io::Result<bool> {
    Ok(retry_on_intr(|| fstat(dir))?.st_nlink == 0)
}

impl Drop for OsDirLock {
    fn drop(&mut self) {
        if std::process::id() == self.pid {
            if let Some(file) = &self.file {
                let _ = flock(file, FlockOperation::Unlock);
            }
            let _ = flock(&self.dir, FlockOperation::Unlock);
        }
    }
}

/// Refuses a file size over the limit of the process (`ulimit -f`). The system would refuse it with
/// a signal, whose default action ends the process.
pub(super) fn check_size(end: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if end > limit => Err(Errno::FBIG.into()),
        _ => Ok(()),
    }
}

#[derive(Debug)]
struct OsFile(fs::File);

impl OsFile {
    /// Extends the file to `len` bytes by zeros that take their space now.
    fn write_zeros(&self, len: u64) -> io::Result<()> {
        let was_direct = fcntl_getfl(&self.0)?.contains(DIRECT);
        self.set_direct_io(false)?;
        let written = self.write_zeros_through_cache(len);
        self.set_direct_io(was_direct)?;
        written
    }

    fn write_zeros_through_cache(&self, len: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut end = self.len()?;
        while end < len {
            let count = usize::try_from(len - end).unwrap_or(usize::MAX).min(ZEROS.len());
            self.0.write_all_at(ZEROS.get(..count).unwrap_or_default(), end)?;
            end += count as u64;
        }
        Ok(())
    }
}

impl File for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        check_size(offset.saturating_add(buf.len() as u64))?;
        self.0.write_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        check_size(len)?;
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        check_size(len)?;
        match retry_on_intr(|| fallocate(&self.0, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(len),
            Err(error) => Err(error.into()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    #[cfg(target_os = "linux")]
    fn set_direct_io(&self, on: bool) -> io::Result<Option<usize>> {
        use rustix::fs::fcntl_setfl;
        let mut flags = fcntl_getfl(&self.0)?;
        if flags.contains(OFlags::DIRECT) != on {
            flags.set(OFlags::DIRECT, on);
            match fcntl_setfl(&self.0, flags) {
                Ok(()) => {}
                // The file system knows no direct I/O.
                Err(Errno::INVAL) if on => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(on.then_some(DIRECT_IO_ALIGN))
    }

    #[cfg(not(target_os = "linux"))]
    fn set_direct_io(&self, _on: bool) -> io::Result<Option<usize>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
