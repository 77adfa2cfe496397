use crate::{Target, Window};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

/// The result of an engine's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation that the operating system refused. Its `Display` completes "cannot … PATH".
///
/// An engine names an operation of its own by text, which becomes [`Op::Other`] unless it is the
/// text of another variant:
///
/// ```
/// use kv_core::Op;
///
/// assert_eq!(Op::from("write"), Op::Write);
/// assert_eq!(Op::from("defragment"), Op::Other("defragment"));
/// assert_eq!(Op::Measure.to_string(), "measure");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Opening a file or directory.
    Open,
    /// Creating a file.
    Create,
    /// Creating a directory.
    CreateDir,
    /// Locking the directory of a store.
    Lock,
    /// Confirming that the open store is still the one at its path.
    Confirm,
    /// Listing a directory.
    List,
    /// Asking for a file's length.
    Measure,
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Reserving space for a file.
    Reserve,
    /// Setting a file's length.
    Truncate,
    /// Switching a file between direct and cached I/O.
    SetAccess,
    /// Making a file or directory durable.
    Sync,
    /// Giving a file the name of another.
    Rename,
    /// Removing a file.
    Remove,
    /// Allocating memory for the content of a file.
    AllocateMemory,
    /// Allocating memory for the index of a store.
    GrowIndex,
    /// Starting a thread of a store.
    StartThread,
    /// Any other operation, in an engine's own words.
    Other(&'static str),
}

impl Op {
    /// Every operation that has a name here.
    const NAMED: [Op; 18] = [
        Op::Open,
        Op::Create,
        Op::CreateDir,
        Op::Lock,
        Op::Confirm,
        Op::List,
        Op::Measure,
        Op::Read,
        Op::Write,
        Op::Reserve,
        Op::Truncate,
        Op::SetAccess,
        Op::Sync,
        Op::Rename,
        Op::Remove,
        Op::AllocateMemory,
        Op::GrowIndex,
        Op::StartThread,
    ];

    const fn text(self) -> &'static str {
        match self {
            Op::Open => "open",
            Op::Create => "create",
            Op::CreateDir => "create directory",
            Op::Lock => "lock",
            Op::Confirm => "go on with",
            Op::List => "list",
            Op::Measure => "measure",
            Op::Read => "read",
            Op::Write => "write",
            Op::Reserve => "reserve space for",
            Op::Truncate => "truncate",
            Op::SetAccess => "set the way of access to",
            Op::Sync => "sync",
            Op::Rename => "rename",
            Op::Remove => "remove",
            Op::AllocateMemory => "allocate memory for",
            Op::GrowIndex => "allocate memory for the index of",
            Op::StartThread => "start a thread for",
            Op::Other(text) => text,
        }
    }
}

impl From<&'static str> for Op {
    fn from(text: &'static str) -> Self {
        Op::NAMED.into_iter().find(|op| op.text() == text).unwrap_or(Op::Other(text))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Why an operation failed. A variant exists where a caller would act differently.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation. A failed change to the store's files poisons the
    /// engine, unless the error [is a refusal](Self::is_refusal). A failed read does not, nor does
    /// a failure in the directory of a backup or a restore, or in the file of a checkpoint.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The attempted operation.
        op: Op,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// No space is left on the device, in the user's quota, or under the process's limit of file
    /// sizes. Free some, or raise the limit; then try again, or reopen the store if it takes no
    /// more changes by now: durable changes are safe.
    #[error(
        "cannot {op} {}: {} ({source}); {}, and reopen the store if it takes no more changes",
        path.display(), Exhausted::by(source).finding(), Exhausted::by(source).remedy()
    )]
    DiskFull {
        /// The attempted operation.
        op: Op,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// Stored bytes differ from the written ones. Nothing was changed or cut off. Restore the file
    /// from a backup, or inspect it before you do anything else.
    #[error("{} is damaged at byte {offset}: {detail}", path.display())]
    Corruption {
        /// The damaged file; for a missing one, its path.
        path: PathBuf,
        /// Where in the file, bytes from its start.
        offset: u64,
        /// The fault there, and the remedy.
        detail: String,
    },
    /// The directory is not a store of this engine.
    #[error("{} is not a store of this engine: {detail}", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// The findings, and the remedy.
        detail: String,
    },
    /// The store was written in another version of the format. Open it with a release that reads
    /// that version.
    #[error("{} has format version {found}, this release reads version {supported}; use a release that reads version {found}", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this release reads.
        supported: u32,
    },
    /// A key, value or batch is over its limit; nothing was changed.
    #[error("the {what} is {len} bytes long, the limit is {limit} (see Limits to raise it)")]
    TooLarge {
        /// `"key"`, `"value"` or `"batch"`.
        what: &'static str,
        /// Its length, bytes.
        len: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// An argument or option makes no sense; the text says which and why.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The directory is open in another engine, of this process or another.
    #[error("{} is open elsewhere; close the other handle or process first", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// An earlier write or sync failed, or a thread panicked, so the engine takes no more changes;
    /// reads go on. Reopen the store to recover everything that was durable.
    #[error("the store takes no more changes after a failure; reopen it to recover ({cause})")]
    Poisoned {
        /// The failure.
        #[source]
        cause: Arc<Error>,
    },
    /// The engine was closed.
    #[error("the store is closed; open it again to use it")]
    Closed,
    /// The store was opened by the process that this one was forked from. It stays usable there. A
    /// child process opens a store of its own, or executes another program.
    #[error("the store was opened by the parent of this process; only the process that opened it may use it")]
    Forked,
    /// The store was opened for reading only; nothing was changed.
    #[error("the store is open for reading only; open it without read_only to change it")]
    ReadOnly,
    /// The store has as many segments as it can have. Nothing was changed. Delete something,
    /// compact, or reopen the store with larger segments.
    #[error("{} has {limit} segments, the most there can be; compact it, or reopen it with larger segment_bytes", path.display())]
    TooManySegments {
        /// The directory.
        path: PathBuf,
        /// The most there can be.
        limit: usize,
    },
    /// The store cannot go back to this state: it lies before or after its window, or no point has
    /// this name. Nothing was changed.
    #[error("cannot go to {target}: the past states reach {window}")]
    OutsideWindow {
        /// The target.
        target: Box<Target>,
        /// The states that can be reached.
        window: Box<Window>,
    },
    /// Process safety is required, and cannot be had, or the changes that a dead process left in
    /// shared memory cannot be read. Nothing was changed. Remove the cause, or open the store
    /// without that requirement.
    #[error("{} is not process-safe: {detail}", path.display())]
    NotProcessSafe {
        /// The directory of the store, or the object in shared memory.
        path: PathBuf,
        /// The cause.
        detail: String,
    },
    /// This engine, or this file system, does not do this.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
}

impl Error {
    /// An I/O error with its context; a full disk becomes [`Error::DiskFull`].
    ///
    /// ```
    /// use kv_core::{Error, Op};
    /// use std::{io, path::Path};
    ///
    /// let no_space = io::Error::from(io::ErrorKind::StorageFull);
    /// let error = Error::io(Op::Write, Path::new("store/log"), no_space);
    /// assert!(matches!(error, Error::DiskFull { op: Op::Write, .. }));
    /// ```
    pub fn io(op: impl Into<Op>, path: &Path, source: io::Error) -> Self {
        let (op, path, source) = (op.into(), path.to_path_buf(), Arc::new(source));
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::DiskFull { op, path, source }
            }
            _ => Error::Io { op, path, source },
        }
    }

    /// A failed sync of a file or directory. It is never [`Error::DiskFull`], not even after
    /// ENOSPC: the bytes that the sync should have saved are lost, and free space does not bring
    /// them back.
    pub fn sync(path: &Path, source: io::Error) -> Self {
        Error::Io { op: Op::Sync, path: path.to_path_buf(), source: Arc::new(source) }
    }

    /// Whether the error is a refusal: the engine was short of something, changed nothing, and may
    /// succeed later. See *Refusals* in the [contract](crate::Engine).
    ///
    /// The resource is space on the disk, segments, memory, shared memory or file descriptors. A
    /// failed sync or rename is never a refusal, with any error code: it may have taken effect in
    /// part.
    ///
    /// ```
    /// use kv_core::{Error, Op};
    /// use std::{io, path::Path};
    ///
    /// let no_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
    /// assert!(Error::io(Op::Create, Path::new("segment"), no_memory()).is_refusal());
    /// assert!(!Error::sync(Path::new("segment"), no_memory()).is_refusal());
    /// ```
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Io { op: Op::Sync | Op::Rename, .. } => false,
            Error::DiskFull { .. } | Error::TooManySegments { .. } | Error::NotProcessSafe { .. } => true,
            Error::Io { source, .. } => {
                source.kind() == io::ErrorKind::OutOfMemory || is_too_many_open_files(source)
            }
            _ => false,
        }
    }

    /// The failure itself: the cause of [`Poisoned`](Error::Poisoned), else this error. Unlike
    /// [`is_refusal`](Self::is_refusal), the methods below look at it, because they ask for the
    /// cause and not for the remedy.
    ///
    /// ```
    /// use kv_core::Error;
    /// use std::{io, path::Path, sync::Arc};
    ///
    /// let full = Error::sync(Path::new("store/log"), io::ErrorKind::StorageFull.into());
    /// let poisoned = Error::Poisoned { cause: Arc::new(full) };
    /// assert!(poisoned.is_disk_full() && !poisoned.is_refusal());
    /// ```
    pub fn root_cause(&self) -> &Error {
        let mut error = self;
        while let Error::Poisoned { cause } = error {
            error = cause;
        }
        error
    }

    /// The answer of the operating system, if the failure is one of its errors.
    pub fn os_error(&self) -> Option<&io::Error> {
        match self.root_cause() {
            Error::Io { source, .. } | Error::DiskFull { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Whether the disk, the quota, or the limit of file sizes is exhausted.
    pub fn is_disk_full(&self) -> bool {
        let kind = self.os_error().map(io::Error::kind);
        matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
        )
    }

    /// Whether the process may not do this with the file, or the file system is read-only.
    pub fn is_permission_denied(&self) -> bool {
        let kind = self.os_error().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem))
    }

    /// Whether the process, or the whole system, has as many open files as it may have.
    pub fn is_out_of_files(&self) -> bool {
        self.os_error().is_some_and(is_too_many_open_files)
    }

    /// A damaged file, with its fault and the usual remedy: a backup. An engine that knows a better
    /// remedy builds [`Error::Corruption`] itself.
    pub fn corruption(path: &Path, offset: u64, fault: impl fmt::Display) -> Self {
        let detail = format!("{fault}; restore this file, or the whole store, from a backup");
        Error::Corruption { path: path.to_path_buf(), offset, detail }
    }
}

/// The resource that an error of [`Error::DiskFull`] is short of.
#[derive(Clone, Copy)]
enum Exhausted {
    Disk,
    Quota,
    FileSize,
}

impl Exhausted {
    fn by(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::QuotaExceeded => Exhausted::Quota,
            io::ErrorKind::FileTooLarge => Exhausted::FileSize,
            _ => Exhausted::Disk,
        }
    }

    fn finding(self) -> &'static str {
        match self {
            Exhausted::Disk => "the disk is full",
            Exhausted::Quota => "the quota is used up",
            Exhausted::FileSize => "the file would exceed the limit of file sizes",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Exhausted::Disk => "free some space",
            Exhausted::Quota => "free some space or raise the quota",
            Exhausted::FileSize => "raise the limit",
        }
    }
}

/// Whether the process, or the whole system, has as many open files as it may have. The standard
/// library has no kind for it.
fn is_too_many_open_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_where_and_what_to_do() {
        let full = Error::io(Op::Write, Path::new("/db/log"), io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(full, Error::DiskFull { .. }));
        assert!(full.to_string().contains("/db/log") && full.to_string().contains("free some space"));
        let other = Error::sync(Path::new("/db/log"), io::Error::other("boom"));
        assert_eq!(other.to_string(), "cannot sync /db/log: boom");
        let too_late = Error::sync(Path::new("/db"), io::ErrorKind::StorageFull.into());
        assert!(matches!(too_late, Error::Io { .. }), "{too_late}");
        let damaged = Error::corruption(Path::new("/db/seg"), 96, "bad checksum").to_string();
        assert!(damaged.starts_with("/db/seg is damaged at byte 96: bad checksum; restore"), "{damaged}");
        let poisoned = Error::Poisoned { cause: Arc::new(other) };
        assert!(poisoned.to_string().contains("cannot sync /db/log: boom"));
    }

    #[test]
    fn an_operation_is_found_by_its_text() {
        for (number, op) in Op::NAMED.into_iter().enumerate() {
            assert_eq!(Op::from(op.text()), op);
            assert_eq!(Op::NAMED.iter().position(|other| other.text() == op.text()), Some(number));
        }
        let own = Error::io("defragment", Path::new("/db"), io::Error::other("boom"));
        assert_eq!(own.to_string(), "cannot defragment /db: boom");
        assert!(matches!(own, Error::Io { op: Op::Other("defragment"), .. }));
    }

    #[test]
    fn the_cause_is_found_below_a_poisoned_store() {
        type Asks = fn(&Error) -> bool;
        let causes: [(Asks, &[Errno]); 3] = [
            (Error::is_disk_full, &[Errno::NOSPC, Errno::DQUOT, Errno::FBIG]),
            (Error::is_permission_denied, &[Errno::ACCESS, Errno::PERM, Errno::ROFS]),
            (Error::is_out_of_files, &[Errno::MFILE, Errno::NFILE]),
        ];
        for (number, (_, errnos)) in causes.iter().enumerate() {
            for errno in *errnos {
                let refused = Error::io(Op::Write, Path::new("f"), (*errno).into());
                let failed = Error::sync(Path::new("f"), (*errno).into());
                let poisoned = Error::Poisoned { cause: Arc::new(failed.clone()) };
                for error in [refused, failed, poisoned] {
                    for (other, (asks, _)) in causes.iter().enumerate() {
                        assert_eq!(asks(&error), other == number, "{error}");
                    }
                }
            }
        }
        assert!(Error::Closed.os_error().is_none() && !Error::Closed.is_disk_full());
        assert!(matches!(Error::Closed.root_cause(), Error::Closed));
    }

    #[test]
    fn a_shortage_is_a_refusal_and_every_other_failure_is_not() {
        let (path, io) = (Path::new("f"), |errno: Errno| io::Error::from(errno));
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::NOMEM, Errno::MFILE, Errno::NFILE] {
            let refused = Error::io(Op::Create, path, io(errno));
            assert!(refused.is_refusal(), "{refused}");
            for failed in [
                Error::sync(path, io(errno)),
                Error::Io { op: Op::Rename, path: path.to_path_buf(), source: Arc::new(io(errno)) },
            ] {
                assert!(!failed.is_refusal(), "{failed}");
            }
        }
        assert!(Error::TooManySegments { path: path.to_path_buf(), limit: 9 }.is_refusal());
        for failed in [Error::io(Op::Write, path, io(Errno::IO)), Error::Closed, Error::ReadOnly] {
            assert!(!failed.is_refusal(), "{failed}");
        }
    }
}
