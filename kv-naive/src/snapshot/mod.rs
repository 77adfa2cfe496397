//! The snapshot file: a segment of kind `Snapshot`, one put for each entry in no particular order,
//! and a seal with their count. Its header's `segment_id` is the LSN it stands at: checksums depend
//! on it, so bytes of an older snapshot are never taken for records of this one. Its `base_lsn`
//! follows from that LSN, so that the records of the newest changes have small headers.
//!
//! On disk after a power cut between any two system calls of writing one:
//!
//! | after | `SNAPSHOT` | `SNAPSHOT.tmp` |
//! |---|---|---|
//! | creating or cutting `SNAPSHOT.tmp` | the previous one | absent, empty, or the rest of an earlier crash |
//! | each write | the previous one | any part of it |
//! | sync of the file | the previous one | absent, or whole |
//! | rename | the previous one, or the new one, whole | absent, or whole |
//! | sync of the directory | the new one | absent |
//!
//! Only then does the durable LSN move. Opening the store removes `SNAPSHOT.tmp`.

mod read;
mod write;

use kv_wal_format::SMALL_LSN_DELTA_MAX;

pub(crate) use read::{Loaded, read};
pub(crate) use write::write;

/// The file's name.
pub(crate) const SNAPSHOT: &str = "SNAPSHOT";
/// Its name while it is written.
pub(crate) const TEMPORARY: &str = "SNAPSHOT.tmp";

/// The base LSN of a snapshot that stands at `lsn`.
fn base_lsn(lsn: u64) -> u64 {
    lsn.saturating_sub(SMALL_LSN_DELTA_MAX)
}

#[cfg(test)]
mod tests;
