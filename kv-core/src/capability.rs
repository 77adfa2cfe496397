use crate::{Lsn, Result};

/// Engines that can write a checkpoint, so that the next open starts from it.
///
/// A checkpoint is a copy: nothing depends on it. The next open loads it, and applies the changes
/// behind it. If it is damaged, of another version or missing, the open does without it, and says
/// so in [`RecoveryReport::checkpoint_fault`](crate::RecoveryReport::checkpoint_fault).
pub trait Checkpoint {
    /// Writes a durable checkpoint of the present state; returns the LSN behind which the next open
    /// has to apply changes. All changes up to it are durable. Other operations go on.
    ///
    /// # Errors
    /// As for [`Engine::sync`](crate::Engine::sync). If only the file of the checkpoint cannot be
    /// written, nothing was changed, and the engine is not poisoned.
    fn checkpoint(&self) -> Result<Lsn>;
}

/// Engines that can compact on request.
pub trait Compact {
    /// Compacts until the policy's answer would not change: everything that can be given back now
    /// is given back. Blocks until done; other operations go on.
    ///
    /// # Errors
    /// As for [`Engine::sync`](crate::Engine::sync).
    fn compact(&self) -> Result<CompactionReport>;
}

/// The report of one call of [`Compact::compact`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionReport {
    /// Segments rewritten.
    pub victims: u64,
    /// Segments written in their place.
    pub outputs: u64,
    /// Bytes of survivors copied.
    pub copied_bytes: u64,
    /// Bytes given back on disk. A file that past states still need, or that a backup links, gives
    /// nothing back.
    pub freed_bytes: u64,
    /// Files that are not needed any more and could not be removed; see
    /// [`Stats::leftover_files`](crate::Stats::leftover_files).
    pub leftover_files: u64,
}
