use super::{DirLock, File, Fs, OpenMode};
use crate::{Error, Result};
use std::io;
use std::path::Path;
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

/// What engines do with files again and again, done once and right, with the path in the error.
pub trait FsExt: Fs {
    /// The whole content of a file.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read).map_err(|error| Error::io("open", path, error))?;
        let len = file.len().map_err(|error| Error::io("measure", path, error))?;
        let len =
            usize::try_from(len).map_err(|_| Error::io("read", path, io::ErrorKind::FileTooLarge.into()))?;
        let mut content = vec![0; len];
        let read = file.read_full_at(&mut content, 0).map_err(|error| Error::io("read", path, error))?;
        content.truncate(read);
        Ok(content)
    }

    /// Replaces `dir/name` by `content`, atomically and durably: after a power cut at any moment the
    /// file has its old content or the new one. Writes `dir/name.tmp`, syncs it, renames it, syncs
    /// the directory.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: the file is as it was, and nothing more lies beside it. [`Error::Io`]: it has its old content or
    /// the new one.
    fn write_file_atomically(&self, dir: &Path, name: &str, content: &[u8]) -> Result<()> {
        let temporary = dir.join(format!("{name}.tmp"));
        let path = dir.join(name);
        let file = self
            .open(&temporary, OpenMode::CreateOrTruncate)
            .map_err(|error| Error::io("create", &temporary, error))?;
        if let Err(error) = file.write_all_at(content, 0) {
            // Part of it may have found room.
            let _ = self.remove_file(&temporary);
            return Err(Error::io("write", &temporary, error));
        }
        file.sync_all().map_err(|error| Error::sync(&temporary, error))?;
        drop(file);
        if let Err(error) = self.rename(&temporary, &path) {
            let _ = self.remove_file(&temporary);
            // Not every file system knows whether it was done after all: never DiskFull.
            return Err(Error::Io { op: "rename", path: temporary, source: Arc::new(error) });
        }
        self.sync_dir(dir).map_err(|error| Error::sync(dir, error))
    }

    /// Creates `dir` and its missing parents, durably. Existing directories are fine.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn create_dir_durably(&self, dir: &Path) -> Result<()> {
        match self.create_dir(dir) {
            Ok(()) => {}
            // A crash may have come between its creation and the sync of its parent, so sync again.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.list(dir).map_err(|error| Error::io("list", dir, error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = parent_of(dir)
                    .filter(|parent| *parent != dir)
                    .ok_or_else(|| Error::io("create directory", dir, error))?;
                self.create_dir_durably(parent)?;
                self.create_dir(dir).map_err(|error| Error::io("create directory", dir, error))?;
            }
            Err(error) => return Err(Error::io("create directory", dir, error)),
        }
        match parent_of(dir) {
            Some(parent) => match self.sync_dir(parent) {
                // Somebody else's directory may not be readable to us; then its entry is theirs.
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                    Err(Error::sync(parent, error))
                }
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// The names in a directory; `None` when there is no such directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn list_if_exists(&self, dir: &Path) -> Result<Option<Vec<String>>> {
        match self.list(dir) {
            Ok(names) => Ok(Some(names)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("list", dir, error)),
        }
    }

    /// Takes the lock of `dir`.
    ///
    /// # Errors
    /// [`Error::Locked`] when somebody holds it; [`Error::Io`].
    fn lock_dir_exclusive(&self, dir: &Path) -> Result<Box<dyn DirLock>> {
        self.lock_dir(dir)
            .map_err(|error| Error::io("lock", dir, error))?
            .ok_or_else(|| Error::Locked { path: dir.to_path_buf() })
    }
}

impl<F: Fs + ?Sized> FsExt for F {}

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
        OsFs.write_file_atomically(dir.path(), "x", b"one").unwrap();
        OsFs.write_file_atomically(dir.path(), "x", b"two!").unwrap();
        assert_eq!(OsFs.read_file(&dir.path().join("x")).unwrap(), b"two!");
        assert_eq!(OsFs.list(dir.path()).unwrap(), ["x"]);
    }

    #[test]
    fn directories_are_created_with_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        assert_eq!(OsFs.list_if_exists(&deep).unwrap(), None);
        OsFs.create_dir_durably(&deep).unwrap();
        OsFs.create_dir_durably(&deep).unwrap();
        assert_eq!(OsFs.list_if_exists(&deep).unwrap(), Some(vec![]));
        OsFs.write_file_atomically(dir.path(), "file", b"").unwrap();
        let error = OsFs.create_dir_durably(&dir.path().join("file")).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }

    #[test]
    fn the_lock_is_exclusive_and_released_on_drop() {
        let dir = tempfile::tempdir().unwrap();
        let lock = OsFs.lock_dir_exclusive(dir.path()).unwrap();
        assert!(matches!(OsFs.lock_dir_exclusive(dir.path()), Err(Error::Locked { .. })));
        drop(lock);
        OsFs.lock_dir_exclusive(dir.path()).unwrap();
    }

    #[test]
    fn allocated_space_reads_as_zeros_and_writes_past_the_end_fill_gaps() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsFs.open(&dir.path().join("x"), OpenMode::CreateNew).unwrap();
        file.allocate(4096).unwrap();
        assert_eq!(file.len().unwrap(), 4096);
        file.write_all_at(b"end", 5000).unwrap();
        let mut buf = vec![1; 6000];
        assert_eq!(file.read_full_at(&mut buf, 0).unwrap(), 5003);
        assert!(buf.iter().take(5000).all(|byte| *byte == 0));
        assert_eq!(buf.get(5000..5003), Some(b"end".as_slice()));
        let again = OsFs.open(&dir.path().join("x"), OpenMode::CreateNew).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn direct_io_writes_what_reads_through_the_cache_find() {
        // In the working directory: the system's place for temporary files may be memory.
        let dir = tempfile::tempdir_in(".").unwrap();
        let file = OsFs.open(&dir.path().join("x"), OpenMode::CreateNew).unwrap();
        file.write_all_at(b"through the cache", 0).unwrap();
        let Some(align) = file.set_direct_io(true).unwrap() else { return };
        let mut buffer = vec![7; 3 * align];
        let start = buffer.as_ptr().align_offset(align);
        let blocks = buffer.get_mut(start..start + 2 * align).unwrap();
        file.write_all_at(blocks, align as u64).unwrap();
        let refused = file.write_at(blocks.get(..100).unwrap(), 0).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(file.set_direct_io(false).unwrap(), None);
        let mut read = vec![0; 4 * align];
        assert_eq!(file.read_full_at(&mut read, 0).unwrap(), 3 * align);
        assert_eq!(read.get(..17), Some(b"through the cache".as_slice()));
        assert!(read.get(align..3 * align).unwrap().iter().all(|byte| *byte == 7));
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
