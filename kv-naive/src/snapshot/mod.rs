//! The snapshot file: a segment of kind `Snapshot`, with one put for each entry in no particular
//! order, and a seal with their count.
//!
//! The `segment_id` in its header is the LSN of its state. All checksums depend on it, so no reader
//! takes bytes of an older snapshot for records of this one. The `base_lsn` is always 0, so an
//! entry takes as many bytes in every snapshot. After deletes, no snapshot is longer than the one
//! before. The reserve relies on this.
//!
//! A store that keeps past states puts a mark before the entries. It tells a time by which all
//! changes in the snapshot had been made. Such a store keeps an old snapshot under the name
//! `SNAPSHOT.` and its LSN in 16 hexadecimal digits. That name is a second link, or a copy where
//! the file system has no links.
//!
//! The table shows the files on disk after a power cut between any two system calls of a new
//! snapshot. A store that keeps no past states leaves out the steps in italics.
//!
//! | after | `SNAPSHOT` | `SNAPSHOT.tmp` | `SNAPSHOT.<LSN of the previous one>` | those that expire |
//! |---|---|---|---|---|
//! | creating or cutting `SNAPSHOT.tmp` | the previous one | absent, empty, or the rest of an earlier crash | absent | there |
//! | each write | the previous one | any part of it | absent | there |
//! | sync of the file | the previous one | absent, or whole | absent | there |
//! | *link* | the previous one | absent, or whole | absent, or the same as `SNAPSHOT` | there |
//! | *sync of the directory* | the previous one | whole | the same as `SNAPSHOT` | there |
//! | rename | the previous one, or the new one, whole | absent, or whole | the previous one | there |
//! | sync of the directory | the new one | absent | the previous one | there |
//! | *each removal* | the new one | absent | the previous one | there, or some of them |
//! | *sync of the directory* | the new one | absent | the previous one | absent |
//!
//! The durable LSN moves after the sync that follows the rename. Opening the store removes
//! `SNAPSHOT.tmp`, a second name of `SNAPSHOT`, and snapshots that have expired.
//!
//! If a removal fails, the store replaces `POINTS` by a list that names that snapshot as expired.
//! Before this list is durable, a power cut leaves the snapshot like one that was not removed yet:
//! the opening asks the policy again. With the list it is no state of the window any more, whatever
//! the policy says then, and the opening removes it.

mod name;
mod read;
mod write;

pub(crate) use name::{kept_name, parse_kept_name};
pub(crate) use read::{Facts, Loaded, open, read, read_facts, read_open};
pub(crate) use write::{Head, write_pairs, write_temporary};

/// The file's name.
pub(crate) const SNAPSHOT: &str = "SNAPSHOT";
/// Its name while it is written.
pub(crate) const TEMPORARY: &str = "SNAPSHOT.tmp";

/// The base LSN of every snapshot.
const BASE_LSN: u64 = 0;

#[cfg(test)]
mod tests;
