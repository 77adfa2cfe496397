use crate::{Lsn, Result};
use std::path::Path;

/// Engines that can write a checkpoint, so that the next open starts from it.
pub trait Checkpoint {
    /// Writes a durable checkpoint of the present state; returns the LSN it stands at.
    ///
    /// # Errors
    /// As for [`Engine::sync`](crate::Engine::sync).
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
    /// Bytes given back on disk.
    pub freed_bytes: u64,
    /// Files that are not needed any more and could not be removed; see
    /// [`Stats::leftover_files`](crate::Stats::leftover_files).
    pub leftover_files: u64,
}

/// Engines that can restore a past state.
pub trait PointInTime {
    /// The moments that can be restored.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed), or an I/O error.
    fn recovery_window(&self) -> Result<RecoveryWindow>;

    /// Builds a new store in `into` with the state as of `target`; this store is not touched.
    /// Returns the LSN restored.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) when `target` lies outside the
    /// window or `into` is not empty; I/O errors.
    fn restore(&self, target: RestoreTarget, into: &Path) -> Result<Lsn>;
}

/// From where to where a store can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryWindow {
    /// The oldest restorable change.
    pub first_lsn: Lsn,
    /// The newest.
    pub last_lsn: Lsn,
    /// Wall-clock time of the oldest, milliseconds since the Unix epoch.
    pub first_unix_time_ms: u64,
    /// Of the newest.
    pub last_unix_time_ms: u64,
}

/// A moment to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreTarget {
    /// Every change up to and including this one.
    Lsn(Lsn),
    /// The last change known to have been made at or before this time, milliseconds since the Unix
    /// epoch.
    UnixTimeMs(u64),
}
