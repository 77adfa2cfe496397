#![allow(clippy::disallowed_methods, reason = "shared memory is no file of a store")]

use super::SharedMemory;
use super::os::check_size;
use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, fallocate, fstat, statfs};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where Linux mounts the tmpfs for shared memory.
const DIRECTORY: &str = "/dev/shm";

/// The number of the boot, as text.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// `f_type` of a tmpfs: TMPFS_MAGIC in statfs(2).
const TMPFS: u64 = 0x0102_1994;

/// Permissions of an object: its user may read and write it.
const MODE: Mode = Mode::from_raw_mode(0o600);

/// The permissions of the group and of others.
const OTHERS: u32 = 0o077;

/// The shared memory of Linux: files in a directory on a tmpfs.
#[derive(Clone, Debug)]
pub struct OsSharedMemory {
    dir: PathBuf,
}

impl OsSharedMemory {
    /// In `/dev/shm`.
    pub fn new() -> Self {
        Self::in_dir(Path::new(DIRECTORY))
    }

    /// In another directory on a tmpfs.
    pub fn in_dir(dir: &Path) -> Self {
        OsSharedMemory { dir: dir.to_path_buf() }
    }

    /// Refuses a directory on another file system: its files would go to a disk.
    fn check_tmpfs(&self) -> io::Result<()> {
        let kind = u64::try_from(retry_on_intr(|| statfs(&self.dir))?.f_type).unwrap_or_default();
        if kind == TMPFS { Ok(()) } else { Err(io::Error::new(io::ErrorKind::Unsupported, "it is no tmpfs")) }
    }

    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = self.dir.join(name);
        Ok(File::from(retry_on_intr(|| rustix::fs::open(&path, flags, MODE))?))
    }
}

impl Default for OsSharedMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl SharedMemory for OsSharedMemory {
    fn path(&self) -> &Path {
        &self.dir
    }

    fn boot_id(&self) -> io::Result<u128> {
        let text = fs::read_to_string(BOOT_ID)?;
        let digits: String = text.trim().split('-').collect();
        u128::from_str_radix(&digits, 16).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<File> {
        self.check_tmpfs()?;
        check_size(len)?;
        let file = self.open_with(name, OFlags::CREATE | OFlags::EXCL)?;
        match retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(file),
            Err(error) => {
                let _ = self.remove(name);
                Err(error.into())
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let refuse = |text: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        let file = match self.open_with(name, OFlags::empty()) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
                return refuse("it is a link");
            }
            opened => opened?,
        };
        let found = retry_on_intr(|| fstat(&file))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return refuse("it is no file");
        }
        if found.st_uid != rustix::process::geteuid().as_raw() {
            return refuse("it belongs to another user");
        }
        if found.st_mode & OTHERS != 0 {
            return refuse("other users may open it");
        }
        Ok(file)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<String>>>()?;
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

    /// A directory of its own on the tmpfs of this machine, if it has one.
    fn memory() -> Option<(tempfile::TempDir, OsSharedMemory)> {
        let dir = tempfile::tempdir_in(DIRECTORY).ok()?;
        let memory = OsSharedMemory::in_dir(dir.path());
        Some((dir, memory))
    }

    #[test]
    fn an_object_is_new_private_and_reserved() {
        let Some((dir, memory)) = memory() else { return };
        let object = memory.create("object", 10_000).unwrap();
        assert_eq!(object.metadata().unwrap().len(), 10_000);
        assert_eq!(object.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        object.write_all_at(b"hello", 9_000).unwrap();
        let mut read = [0; 5];
        memory.open("object").unwrap().read_exact_at(&mut read, 9_000).unwrap();
        assert_eq!(&read, b"hello");
        assert_eq!(memory.create("object", 1).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(memory.list().unwrap(), ["object"]);
        memory.remove("object").unwrap();
        assert_eq!(memory.open("object").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(dir.path().exists() && memory.boot_id().unwrap() == memory.boot_id().unwrap());
    }

    #[test]
    fn an_object_that_does_not_fit_leaves_nothing() {
        let Some((_dir, memory)) = memory() else { return };
        let error = memory.create("object", 1 << 50).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge), "{error}");
        assert!(memory.list().unwrap().is_empty());
    }

    #[test]
    fn links_and_open_permissions_are_refused() {
        let Some((dir, memory)) = memory() else { return };
        memory.create("object", 10).unwrap();
        symlink(dir.path().join("object"), dir.path().join("link")).unwrap();
        assert_eq!(memory.open("link").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(memory.create("link", 1).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::set_permissions(dir.path().join("object"), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(memory.open("object").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_directory_on_a_disk_is_refused() {
        let Ok(dir) = tempfile::tempdir_in(".") else { return };
        let memory = OsSharedMemory::in_dir(dir.path());
        let Err(error) = memory.create("object", 1) else { return };
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
