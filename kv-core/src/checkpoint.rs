//! When an engine writes a checkpoint. A policy decides, the engine executes.

use std::fmt;
use std::time::Duration;

/// The facts since the last checkpoint, or since the open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointView {
    /// Bytes that were added to the log, and those that the open replayed: an open from the last
    /// checkpoint would read them.
    pub log_bytes: u64,
    /// Changes that were made.
    pub changes: u64,
    /// Time that has passed.
    pub elapsed: Duration,
    /// An estimate of the bytes of a checkpoint now.
    pub checkpoint_bytes: u64,
}

/// Decides when an engine writes a checkpoint in the background.
///
/// An engine asks from time to time while changes come. The more often it writes, the less an open
/// replays after a crash.
pub trait CheckpointPolicy: fmt::Debug + Send + Sync {
    /// Whether to write one now.
    ///
    /// The engine may hold locks during the call, so it must not call the store.
    fn is_due(&self, view: &CheckpointView) -> bool;

    /// Whether an orderly close writes one.
    fn at_close(&self) -> bool {
        true
    }
}

/// A checkpoint after so many bytes of log.
///
/// ```
/// use kv_core::{AfterLogBytes, CheckpointPolicy, CheckpointView};
///
/// let policy = AfterLogBytes { least: 1000, per_checkpoint_byte: 8 };
/// let view = |log_bytes, checkpoint_bytes| CheckpointView { log_bytes, checkpoint_bytes, ..Default::default() };
/// assert!(policy.is_due(&view(1000, 10)) && !policy.is_due(&view(999, 10)));
/// assert!(policy.is_due(&view(8000, 1000)) && !policy.is_due(&view(7999, 1000)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterLogBytes {
    /// The least bytes of log.
    pub least: u64,
    /// The least bytes of log for each byte of the checkpoint. It bounds the share of checkpoints
    /// in all that is written.
    pub per_checkpoint_byte: u64,
}

impl Default for AfterLogBytes {
    /// 64 MiB, and 8 bytes for each byte of the checkpoint.
    fn default() -> Self {
        AfterLogBytes { least: 64 << 20, per_checkpoint_byte: 8 }
    }
}

impl CheckpointPolicy for AfterLogBytes {
    fn is_due(&self, view: &CheckpointView) -> bool {
        view.log_bytes >= self.least.max(view.checkpoint_bytes.saturating_mul(self.per_checkpoint_byte))
    }
}

/// A checkpoint after so much time, if there were changes.
///
/// ```
/// use kv_core::{AfterTime, CheckpointPolicy, CheckpointView};
/// use std::time::Duration;
///
/// let policy = AfterTime(Duration::from_secs(60));
/// let view = |changes, secs| CheckpointView { changes, elapsed: Duration::from_secs(secs), ..Default::default() };
/// assert!(policy.is_due(&view(1, 60)) && !policy.is_due(&view(1, 59)) && !policy.is_due(&view(0, 60)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterTime(pub Duration);

impl CheckpointPolicy for AfterTime {
    fn is_due(&self, view: &CheckpointView) -> bool {
        view.changes > 0 && view.elapsed >= self.0
    }
}

/// No checkpoint but those that a caller asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnRequest;

impl CheckpointPolicy for OnRequest {
    fn is_due(&self, _: &CheckpointView) -> bool {
        false
    }

    fn at_close(&self) -> bool {
        false
    }
}
