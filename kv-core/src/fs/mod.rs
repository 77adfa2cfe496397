//! The only door to the disk.
//!
//! Engines do all I/O through [`Fs`], [`Dir`] and [`File`], so a test can hand them a simulated
//! disk that loses power at any operation. [`OsFs`] is the real one. An engine opens its directory
//! once and names its files relative to that handle.

mod ext;
mod os;
#[cfg(target_os = "linux")]
mod os_shared_memory;
mod shared_memory;

pub use ext::{DirExt, FileExt, FsExt};
pub use os::{LOCK_FILE, OsFs};
#[cfg(target_os = "linux")]
pub use os_shared_memory::OsSharedMemory;
pub use shared_memory::SharedMemory;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Whether a file of this name is put into directories by systems and tools of their own accord:
/// `lost+found`, `.DS_Store`, `.gitkeep`, … A directory that holds nothing else is as good as empty
/// for a new store, which leaves such files alone.
pub fn is_system_file(name: &str) -> bool {
    const NAMES: [&str; 5] =
        ["lost+found", "Thumbs.db", "desktop.ini", "System Volume Information", "$RECYCLE.BIN"];
    name.starts_with('.') || NAMES.contains(&name)
}

/// Whether [`Dir::link`] answered that a file cannot have a name there, so that the caller has to
/// copy it.
pub fn has_no_links(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::CrossesDevices)
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A new file, for reading and writing; fails with `AlreadyExists` when there is one.
    CreateNew,
    /// A new, empty file for reading and writing, or the existing one cut to zero length.
    CreateOrTruncate,
}

/// A file system: the way to a directory.
///
/// # Contract
/// This survives a power cut:
///
/// - the data of a file as of its last [`sync_data`](File::sync_data) or
///   [`sync_all`](File::sync_all), with the length that is needed to read that data;
/// - a created, renamed or removed directory entry, once [`sync`](Dir::sync) was called on its
///   directory afterwards.
///
/// Everything else may survive in any part. After a failed sync nothing is known of the bytes or
/// entries that it should have covered. A second sync that succeeds proves nothing about them.
pub trait Fs: Debug + Send + Sync {
    /// Opens a directory.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory; as the system answers.
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>>;

    /// Creates one directory whose parent exists; durable after a [`sync`](Dir::sync) of the
    /// parent.
    ///
    /// # Errors
    /// As the system answers: `AlreadyExists`, `NotFound` (of the parent), …
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The shared memory of the machine whose files these are. `None`: it has none, or this file
    /// system does not know. Default none.
    fn shared_memory(&self) -> Option<Arc<dyn SharedMemory>> {
        None
    }
}

/// The identity of a directory on this machine. It stays when the directory is renamed. A copy has
/// another one. Another directory may get it once this one is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirId {
    /// The number of the device.
    pub device: u64,
    /// The number of the directory on that device.
    pub inode: u64,
}

/// An open directory.
///
/// Every operation acts on the directory that was opened. Its path may lead elsewhere by then,
/// because the process changed its working directory, or because another directory took the place
/// of this one. Names are single names, without a separator.
pub trait Dir: Any + Debug + Send + Sync {
    /// The path it was opened under. For messages only: it may lead elsewhere by now.
    fn path(&self) -> &Path;

    /// The identity of the directory.
    ///
    /// # Errors
    /// As the system answers.
    fn id(&self) -> io::Result<DirId>;

    /// Opens a file.
    ///
    /// # Errors
    /// As the system answers.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn File>>;

    /// Gives a file the name of another, which it replaces atomically; durable after
    /// [`sync`](Self::sync).
    ///
    /// # Errors
    /// As the system answers.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives the bytes of a file another name, in this directory or in `into`; durable after a
    /// [`sync`](Self::sync) of that directory. Both names lead to the same bytes, until one is
    /// removed or given to another file. Bytes that are durable under one are durable under both.
    /// Default: `Unsupported`.
    ///
    /// # Errors
    /// `AlreadyExists` when the other name is taken; `Unsupported` or `CrossesDevices` as
    /// [`has_no_links`] tells; as the system answers.
    fn link(&self, _name: &str, _into: &dyn Dir, _other_name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Number of the names of a file, those in other directories included. Its bytes take space
    /// until the last one is removed. Default 1.
    ///
    /// # Errors
    /// As the system answers.
    fn link_count(&self, _name: &str) -> io::Result<u64> {
        Ok(1)
    }

    /// Removes a name of a file; durable after [`sync`](Self::sync).
    ///
    /// # Errors
    /// As the system answers.
    fn remove_file(&self, name: &str) -> io::Result<()>;

    /// Names of the entries, sorted.
    ///
    /// # Errors
    /// As the system answers.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes the entries durable.
    ///
    /// # Errors
    /// As the system answers.
    fn sync(&self) -> io::Result<()>;

    /// Takes a lock of the directory, held until the returned value is dropped or the process ends;
    /// `None` when another holder excludes it. An exclusive lock may leave a file named
    /// [`LOCK_FILE`] in the directory; a shared one writes nothing.
    ///
    /// # Errors
    /// As the system answers.
    fn lock(&self, kind: LockKind) -> io::Result<Option<Box<dyn DirLock>>>;
}

/// The kind of a directory's lock: shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// One holder: a writer.
    Exclusive,
    /// Any number of holders of this kind: readers.
    Shared,
}

/// A held lock of a directory; dropping it releases it. A process that was forked from the holder
/// does not release it.
pub trait DirLock: Debug + Send + Sync {
    /// Checks that the lock still protects the directory: the directory was not removed, and the
    /// lock file at its name is the one that was locked.
    ///
    /// # Errors
    /// `NotFound` when the directory or the lock file is gone or was replaced; as the system
    /// answers.
    fn check(&self) -> io::Result<()>;

    /// Whether the directory was removed, so that nobody can open it again. In doubt, `false`.
    fn is_dir_removed(&self) -> bool {
        false
    }
}

/// An open file. Offsets and lengths are bytes; all methods may be called from several threads.
pub trait File: Debug + Send + Sync {
    /// Reads at `offset`; returns how many bytes were read, 0 at the end. May read less than asked.
    ///
    /// # Errors
    /// As the system answers, `Interrupted` included.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`; returns how many bytes were written. May write less than given. A write
    /// past the end fills the gap with zeros.
    ///
    /// # Errors
    /// As the system answers, `Interrupted` included.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes the data durable, and as much of the metadata as is needed to read it.
    ///
    /// # Errors
    /// As the system answers. Never call it again to repair a failure.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes data and metadata durable.
    ///
    /// # Errors
    /// As for [`sync_data`](File::sync_data).
    fn sync_all(&self) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// As the system answers.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves space so that the file is at least `len` long and writes below `len` do not run out
    /// of space; new bytes read as zeros. Where the system cannot reserve, zeros are written.
    ///
    /// # Errors
    /// As the system answers.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// The file's length.
    ///
    /// # Errors
    /// As the system answers.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As for [`len`](File::len).
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Switches direct I/O on or off: transfers that pass by the system's cache. They are off at
    /// first. Returns the number, bytes, that their addresses, offsets and lengths must be
    /// multiples of. `None`: transfers go through the cache, since it was switched off or the
    /// system has no other way. When bytes are durable does not depend on it.
    ///
    /// # Errors
    /// As the system answers.
    fn set_direct_io(&self, on: bool) -> io::Result<Option<usize>>;
}
