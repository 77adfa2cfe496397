//! The snapshot file: a segment of kind `Snapshot`, one put for each entry in no particular order,
//! and a seal with their count. Its header's `segment_id` is the LSN it stands at: checksums depend
//! on it, so bytes of an older snapshot are never taken for records of this one. Its `base_lsn` is
//! always 0. So an entry takes as many bytes in every snapshot, and after deletes no snapshot is
//! longer than the one before. The reserve relies on this.
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

pub(crate) use read::{Loaded, read};
pub(crate) use write::write;

/// The file's name.
pub(crate) const SNAPSHOT: &str = "SNAPSHOT";
/// Its name while it is written.
pub(crate) const TEMPORARY: &str = "SNAPSHOT.tmp";

/// The base LSN of every snapshot.
const BASE_LSN: u64 = 0;

#[cfg(test)]
mod tests;
