#![allow(clippy::disallowed_methods, reason = "this module is the one user of `std::fs`")]

use super::{DirLock, File, Fs, OpenMode};
use std::fs::{self, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Name of the file through which [`OsFs`] locks a directory. It is left behind on purpose: removing
/// it would race with the next opener.
pub const LOCK_FILE: &str = "LOCK";

/// Bytes. Disks ask for multiples of their logical block size, which is 512 or 4096.
#[cfg(target_os = "linux")]
const DIRECT_IO_ALIGN: usize = 4096;

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

impl Fs for OsFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
            OpenMode::CreateOrTruncate => options.read(true).write(true).create(true).truncate(true),
        };
        Ok(Box::new(OsFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Option<Box<dyn DirLock>>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(LOCK_FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(OsDirLock { _file: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// The lock belongs to the open file: closing it, or the death of the process, releases it.
#[derive(Debug)]
struct OsDirLock {
    _file: fs::File,
}

impl DirLock for OsDirLock {}

#[derive(Debug)]
struct OsFile(fs::File);

impl File for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        match rustix::io::retry_on_intr(|| fallocate(&self.0, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(()),
            // The file system cannot reserve: a sparse file of the length is the next best.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                if self.len()? < len {
                    self.set_len(len)
                } else {
                    Ok(())
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    #[cfg(target_os = "linux")]
    fn set_direct_io(&self, on: bool) -> io::Result<Option<usize>> {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        let mut flags = fcntl_getfl(&self.0)?;
        if flags.contains(OFlags::DIRECT) != on {
            flags.set(OFlags::DIRECT, on);
            match fcntl_setfl(&self.0, flags) {
                Ok(()) => {}
                // The file system knows no direct I/O.
                Err(rustix::io::Errno::INVAL) if on => return Ok(None),
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
