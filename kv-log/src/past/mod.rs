//! Past states: the records of files that the window still needs, replayed up to an LSN.
//!
//! | file | holds |
//! |---|---|
//! | `files.rs` | passes over the files of the store and of the archive |
//! | `state.rs` | the state at an LSN, read on all processors |
//! | `reachable.rs` | the past as it can be reached at one moment: resolves targets, reads states |
//! | `moments.rs` | the calls of [`PointInTime`](kv_core::PointInTime) on an open store |
//! | `closed.rs` | the same calls on the files of a closed store |
//! | `backup.rs` | the files of all states, copied to another directory |
//! | `restore.rs` | a past state as a new store |
//!
//! The state at an LSN is made of the records up to it: for each key, the one with the highest LSN
//! counts. The records of an archived segment take part if the segment was replaced after the LSN.

mod backup;
mod closed;
mod files;
mod moments;
mod reachable;
mod restore;
mod state;

pub use closed::ClosedPast;
