//! Shared memory: named objects in memory that outlive the process.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;

/// The shared memory of a machine: named objects, as of `shm_open`.
///
/// # Contract
/// - An object survives the death of the process, with every byte that a thread had stored.
/// - No object survives the end of the machine: a power cut, a crash of the kernel, a reboot. After
///   each of them the [boot id](Self::boot_id) is another.
/// - The memory of an object is reserved when it is created. So no store to mapped memory fails
///   later for want of memory.
/// - Only the user that created an object can open it.
///
/// The caller maps the file that it gets. Two mappings of one object, in one process or in several,
/// show the same bytes.
pub trait SharedMemory: Debug + Send + Sync {
    /// The directory of the objects, for messages.
    fn path(&self) -> &Path;

    /// The number that this boot of the machine drew.
    ///
    /// # Errors
    /// As the system answers.
    fn boot_id(&self) -> io::Result<u128>;

    /// Creates an object of `len` zeros, and reserves their memory. After an error there is no new
    /// object.
    ///
    /// # Errors
    /// `AlreadyExists` if there is an object or anything else of this name. `StorageFull` if there
    /// is no memory. As the system answers.
    fn create(&self, name: &str, len: u64) -> io::Result<File>;

    /// Opens an object of this user.
    ///
    /// # Errors
    /// `NotFound`. `PermissionDenied` if it belongs to another user, if others may open it, or if
    /// it is a link. As the system answers.
    fn open(&self, name: &str) -> io::Result<File>;

    /// Removes an object. Its memory is free once no process maps it.
    ///
    /// # Errors
    /// As the system answers.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all objects, sorted, those of other users and programs included.
    ///
    /// # Errors
    /// As the system answers.
    fn list(&self) -> io::Result<Vec<String>>;
}
