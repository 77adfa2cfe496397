use super::{Dir, DirLock, File, Fs, LockKind, OpenMode};
use crate::{Error, Op, Result};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whole reads and writes on top of any [`File`]: short transfers and interruptions are carried on.
pub trait FileExt: File {
    /// Writes all of `buf` at `offset`.
    ///
    /// # Errors
    /// As the system answers; `WriteZero` when it takes nothing more.
    fn write_all_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.write_at(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    buf = buf.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads at `offset` until `buf` is full or the file ends; returns how many bytes were read.
    ///
    /// # Errors
    /// As the system answers.
    fn read_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl<F: File + ?Sized> FileExt for F {}

/// Operations on paths, on top of any [`Fs`]: for tools and tests. An engine opens its directory
/// once and uses [`DirExt`].
pub trait FsExt: Fs {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// As the system answers.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let (dir, name) = self.place(path)?;
        dir.open(&name, mode)
    }

    /// Removes the file at `path`.
    ///
    /// # Errors
    /// As the system answers.
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        dir.remove_file(&name)
    }

    /// Names of the entries of the directory at `path`, sorted.
    ///
    /// # Errors
    /// As the system answers.
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.open_dir(path)?.list()
    }

    /// The directory of `path`, opened, and the last name.
    ///
    /// # Errors
    /// `InvalidInput` where `path` ends in no name; as the system answers.
    fn place(&self, path: &Path) -> io::Result<(Arc<dyn Dir>, String)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        let parent = parent_of(path).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.open_dir(parent)?, name))
    }

    /// The whole content of the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        let (dir, name) = self.place(path).map_err(|error| Error::io(Op::Open, path, error))?;
        dir.read_file(&name, u64::MAX)
    }

    /// Creates `path` and its missing parents, durably. Existing directories are fine, also those
    /// that another process creates meanwhile, or created before it died.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn create_dir_durably(&self, path: &Path) -> Result<()> {
        create_entry_durably(self, path)?;
        // It may be a file, or not this process's to read.
        self.open_dir(path).map(drop).map_err(|error| Error::io(Op::Open, path, error))
    }

    /// The directory at `path`, opened; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn open_dir_if_exists(&self, path: &Path) -> Result<Option<Arc<dyn Dir>>> {
        match self.open_dir(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(Op::Open, path, error)),
        }
    }

    /// The names in the directory at `path`; `None` when there is no such directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn list_if_exists(&self, path: &Path) -> Result<Option<Vec<String>>> {
        self.open_dir_if_exists(path)?.map(|dir| dir.names()).transpose()
    }
}

impl<F: Fs + ?Sized> FsExt for F {}

/// Operations that engines repeat in their directory, with the path in the error.
pub trait DirExt: Dir {
    /// The path of the file `name`, for messages.
    fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The names of the entries, sorted.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn names(&self) -> Result<Vec<String>> {
        self.list().map_err(|error| Error::io(Op::List, self.path(), error))
    }

    /// The whole content of the file `name`.
    ///
    /// # Errors
    /// [`Error::Corruption`] when it is longer than `len_max` bytes; then it was not read.
    /// [`Error::Io`].
    fn read_file(&self, name: &str, len_max: u64) -> Result<Vec<u8>> {
        let path = self.path_of(name);
        let file = self.open(name, OpenMode::Read).map_err(|error| Error::io(Op::Open, &path, error))?;
        let len = file.len().map_err(|error| Error::io(Op::Measure, &path, error))?;
        let Some(len) = usize::try_from(len).ok().filter(|_| len <= len_max) else {
            let fault = format!("the file is {len} bytes long, and such a file has at most {len_max}");
            return Err(Error::corruption(&path, len_max, fault));
        };
        let mut content = Vec::new();
        let no_memory = |_| Error::io(Op::AllocateMemory, &path, io::ErrorKind::OutOfMemory.into());
        content.try_reserve_exact(len).map_err(no_memory)?;
        content.resize(len, 0);
        let read = file.read_full_at(&mut content, 0).map_err(|error| Error::io(Op::Read, &path, error))?;
        content.truncate(read);
        Ok(content)
    }

    /// Replaces the file `name` by `content`, atomically and durably: after a power cut at any
    /// moment the file has its old content or the new one. Writes `name.tmp`, syncs it, renames it,
    /// syncs the directory.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: the file is as it was, and nothing more lies beside it. [`Error::Io`]:
    /// it has its old content or the new one.
    fn write_file_atomically(&self, name: &str, content: &[u8]) -> Result<()> {
        let temporary = format!("{name}.tmp");
        let path = self.path_of(&temporary);
        let file = self.create_anew(&temporary).map_err(|error| Error::io(Op::Create, &path, error))?;
        if let Err(error) = file.write_all_at(content, 0) {
            // Part of it may have found room.
            let _ = self.remove_file(&temporary);
            return Err(Error::io(Op::Write, &path, error));
        }
        file.sync_all().map_err(|error| Error::sync(&path, error))?;
        drop(file);
        self.replace_durably(&temporary, name)
    }

    /// Creates the file `name`. A file that a crash has left there loses this name. It is not cut:
    /// its bytes may have another name.
    ///
    /// # Errors
    /// As the system answers.
    fn create_anew(&self, name: &str) -> io::Result<Box<dyn File>> {
        match self.open(name, OpenMode::CreateNew) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove_file(name)?;
                self.open(name, OpenMode::CreateNew)
            }
            created => created,
        }
    }

    /// Gives the synced file `from` the name `to`, durably. On a failure `from` is removed.
    ///
    /// # Errors
    /// [`Error::Io`], never [`Error::DiskFull`]: not every file system tells whether the renaming
    /// happened.
    fn replace_durably(&self, from: &str, to: &str) -> Result<()> {
        if let Err(error) = self.rename(from, to) {
            let _ = self.remove_file(from);
            return Err(Error::Io { op: Op::Rename, path: self.path_of(from), source: Arc::new(error) });
        }
        self.sync_durably()
    }

    /// Makes the entries durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn sync_durably(&self) -> Result<()> {
        self.sync().map_err(|error| Error::sync(self.path(), error))
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// [`Error::Locked`] when another holder excludes it; [`Error::Io`].
    fn lock_or_refuse(&self, kind: LockKind) -> Result<Box<dyn DirLock>> {
        self.lock(kind)
            .map_err(|error| Error::io(Op::Lock, self.path(), error))?
            .ok_or_else(|| Error::Locked { path: self.path().to_path_buf() })
    }
}

impl<D: Dir + ?Sized> DirExt for D {}

/// Creates `path` if it is missing, and makes its entry durable.
///
/// The entry of the parent is durable before `path` is created. So a creator that dies leaves one
/// entry that is not durable, the deepest one, and the next creator syncs it.
fn create_entry_durably(fs: &(impl Fs + ?Sized), path: &Path) -> Result<()> {
    let Some(parent) = parent_of(path).filter(|parent| *parent != path) else { return Ok(()) };
    match fs.open_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_entry_durably(fs, parent)?;
            match fs.create_dir(path) {
                // Another process may die before it comes to the sync below.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => created.map_err(|error| Error::io(Op::CreateDir, path, error))?,
            }
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        opened => drop(opened.map_err(|error| Error::io(Op::Open, path, error))?),
    }
    match fs.open_dir(parent) {
        Ok(dir) => dir.sync().or_else(unless_unsyncable).map_err(|error| Error::sync(parent, error)),
        // A directory that this process may enter and not read is not its own to sync.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(Error::io(Op::Open, parent, error)),
    }
}

/// A file system that takes no new entries may be unable to sync a directory.
fn unless_unsyncable(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        _ => Err(error),
    }
}

/// The parent directory; the current one for a bare name.
fn parent_of(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OsFs;

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let handle = OsFs.open_dir(dir.path()).unwrap();
        handle.write_file_atomically("x", b"one").unwrap();
        handle.write_file_atomically("x", b"two!").unwrap();
        assert_eq!(OsFs.read_file(&dir.path().join("x")).unwrap(), b"two!");
        assert_eq!(OsFs.list(dir.path()).unwrap(), ["x"]);
    }

    #[test]
    fn a_leftover_that_is_a_link_leaves_the_bytes_of_the_other_name() {
        let dir = tempfile::tempdir().unwrap();
        let handle = OsFs.open_dir(dir.path()).unwrap();
        handle.write_file_atomically("x", b"one").unwrap();
        handle.link("x", &*handle, "y.tmp").unwrap();
        handle.write_file_atomically("y", b"two").unwrap();
        assert_eq!(handle.read_file("x", 9).unwrap(), b"one");
        assert_eq!(handle.read_file("y", 9).unwrap(), b"two");
        assert_eq!(handle.names().unwrap(), ["x", "y"]);
    }

    #[test]
    fn directories_are_created_with_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        assert_eq!(OsFs.list_if_exists(&deep).unwrap(), None);
        OsFs.create_dir_durably(&deep).unwrap();
        OsFs.create_dir_durably(&deep).unwrap();
        assert_eq!(OsFs.list_if_exists(&deep).unwrap(), Some(vec![]));
        OsFs.open_dir(dir.path()).unwrap().write_file_atomically("file", b"").unwrap();
        let error = OsFs.create_dir_durably(&dir.path().join("file")).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_directory_on_a_file_system_of_the_kernel_needs_no_sync() {
        let sync = OsFs.open_dir(Path::new("/proc")).unwrap().sync();
        assert_eq!(sync.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        OsFs.create_dir_durably(Path::new("/proc/self")).unwrap();
    }

    #[test]
    fn paths_with_dots_and_racing_creators_are_fine() {
        let dir = tempfile::tempdir().unwrap();
        OsFs.create_dir_durably(&dir.path().join("a/./b/../c")).unwrap();
        assert_eq!(OsFs.list(&dir.path().join("a")).unwrap(), ["b", "c"]);
        for round in 0..50 {
            let deep = dir.path().join(format!("{round}/x/y/z"));
            std::thread::scope(|scope| {
                let creators = [(); 4].map(|()| scope.spawn(|| OsFs.create_dir_durably(&deep)));
                for creator in creators {
                    creator.join().unwrap().unwrap();
                }
            });
        }
    }

    #[test]
    fn a_file_that_is_longer_than_it_can_be_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        OsFs.open(&dir.path().join("x"), OpenMode::CreateNew).unwrap().set_len(1 << 40).unwrap();
        let error = OsFs.open_dir(dir.path()).unwrap().read_file("x", 100).unwrap_err();
        assert!(matches!(error, Error::Corruption { offset: 100, .. }), "{error}");
    }

    /// A file that takes one byte a time and is interrupted before each.
    #[derive(Debug, Default)]
    struct Reluctant(std::sync::Mutex<(Vec<u8>, bool)>);

    impl File for Reluctant {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let mut state = self.0.lock().unwrap();
            state.1 = !state.1;
            if state.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match (buf.first_mut(), state.0.get(usize::try_from(offset).unwrap())) {
                (Some(to), Some(from)) => {
                    *to = *from;
                    Ok(1)
                }
                _ => Ok(0),
            }
        }
        fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
            let mut state = self.0.lock().unwrap();
            state.1 = !state.1;
            if state.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            assert_eq!(state.0.len() as u64, offset);
            state.0.push(buf[0]);
            Ok(1)
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
        fn sync_all(&self) -> io::Result<()> {
            Ok(())
        }
        fn set_len(&self, _len: u64) -> io::Result<()> {
            Ok(())
        }
        fn allocate(&self, _len: u64) -> io::Result<()> {
            Ok(())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().0.len() as u64)
        }
        fn set_direct_io(&self, _on: bool) -> io::Result<Option<usize>> {
            Ok(None)
        }
    }

    #[test]
    fn short_transfers_and_interruptions_are_carried_on() {
        let file = Reluctant::default();
        file.write_all_at(b"hello", 0).unwrap();
        let mut buf = [0; 9];
        assert_eq!(file.read_full_at(&mut buf, 0).unwrap(), 5);
        assert_eq!(&buf, b"hello\0\0\0\0");
        assert_eq!(file.read_full_at(&mut buf, 3).unwrap(), 2);
    }
}
