use std::fmt;
use std::path::PathBuf;

/// A kind of operation on the simulated disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// An existing file was opened.
    Open,
    /// A file was created, or cut to zero on opening.
    Create,
    /// A file was moved.
    Rename,
    /// A file was given another name beside its own.
    Link,
    /// A file was removed.
    Remove,
    /// A directory was created.
    CreateDir,
    /// A directory was listed.
    List,
    /// A directory was synced.
    SyncDir,
    /// A directory was locked.
    LockDir,
    /// A file was read.
    Read,
    /// A file was written.
    Write,
    /// A file was synced.
    Sync,
    /// A file was cut or extended.
    SetLen,
    /// Space was reserved.
    Allocate,
    /// A file was measured.
    Len,
}

impl OpKind {
    /// Whether it may change the disk, or the content that survives a crash.
    pub fn is_mutation(self) -> bool {
        use OpKind::{Allocate, Create, CreateDir, Link, Remove, Rename, SetLen, Sync, SyncDir, Write};
        matches!(
            self,
            Create | Rename | Link | Remove | CreateDir | SyncDir | Write | Sync | SetLen | Allocate
        )
    }

    /// Whether it moves the bytes of a file.
    pub fn is_transfer(self) -> bool {
        matches!(self, OpKind::Read | OpKind::Write)
    }

    /// Whether it makes something durable.
    pub fn is_sync(self) -> bool {
        matches!(self, OpKind::Sync | OpKind::SyncDir)
    }

    /// Whether it takes space.
    pub fn takes_space(self) -> bool {
        use OpKind::{Allocate, Create, CreateDir, Link, Write};
        matches!(self, Write | Create | CreateDir | Link | Allocate)
    }
}

/// One operation on the simulated disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpRecord {
    /// The kind.
    pub kind: OpKind,
    /// The file or directory; for a rename or a link, the new path.
    pub path: PathBuf,
    /// The offset in the file, bytes.
    pub offset: u64,
    /// The number of bytes; for `SetLen` and `Allocate` the new length.
    pub len: u64,
}

impl fmt::Display for OpRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.path.display())?;
        if self.len > 0 { write!(f, " [{}, +{})", self.offset, self.len) } else { Ok(()) }
    }
}
