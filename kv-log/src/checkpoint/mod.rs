//! Checkpoints: the index on disk, so that an open need not read the log.
//!
//! | to | file |
//! |---|---|
//! | encode and check the file | `format.rs` |
//! | write one while writers go on | `write.rs` |
//! | read the file on all processors | `read.rs` |
//! | fill the index from one | `load.rs` |
//! | bring segments into memory in the background | `warm_up.rs` |
//!
//! A checkpoint *covers* the segments that were durable when it began: of the log's, a prefix. It
//! holds the entries that point into them, and the *horizon*: the newest LSN at that moment. Every
//! change above the horizon lies in a segment that the checkpoint does not cover, and replay reads
//! those as a whole.
//!
//! The shards are copied one after the other, so the copy is no snapshot. That does no harm:
//!
//! - An entry that points into a covered segment leads to a change up to the horizon. If a later
//!   change replaced it before the copy, the entry is missing. After the last copy, the
//!   checkpointer makes the log durable up to its end, and only then names the checkpoint in the
//!   manifest. So replay finds the later change.
//! - If a later change replaced it after the copy, replay finds that change, and displaces the
//!   entry.
//! - A compaction would move entries, so none runs meanwhile.
//!
//! A compaction after the checkpoint replaces covered segments by new ones. An open drops the
//! entries that point into the replaced segments. The survivors of these segments are in segments
//! that the checkpoint does not cover. A tombstone outlives every older dead put in a file (see
//! `compaction/disk.rs`), so replay finds the tombstone of each entry that is dead.

mod format;
mod load;
mod read;
mod warm_up;
mod write;

pub(crate) use format::parse;
pub(crate) use load::{Loaded, load};
pub(crate) use read::LEN_MAX;
pub(crate) use warm_up::WarmUp;
pub(crate) use write::Checkpointer;

#[cfg(all(test, not(shuttle)))]
mod tests;
