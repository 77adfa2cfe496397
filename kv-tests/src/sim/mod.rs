//! A simulated disk: an [`Fs`](kv_core::Fs) in memory that loses power, dies and fails on command.
//!
//! The model, and the judge of every crash case:
//!
//! - **File data** is in the cache until the file is synced. At a power cut each unsynced 512-byte sector is
//!   independently kept, lost (as of the last sync; zeros or stale bytes where there was none) or torn.
//! - **File length** is independent of the data: any length the file had since its last sync, or one
//!   between.
//! - **Directory entries** (creations, renames, removals) are pending until their directory is synced. At a
//!   power cut each pending one is independently kept or lost. A rename is atomic: the old name or the
//!   new one, never both and never neither. A kept entry may name a file whose data is lost.
//! - **A failed file sync** leaves its bytes readable and takes them off the list of what a later sync writes.
//! - **A directory handle** stays with its directory, and its lock tells when that was removed or its lock file replaced:
//!   [`SimFs::move_dir`].
//! - **Process death** keeps every completed operation, and releases the locks.
//!
//! Everything is drawn from a seed, and all operations are counted and logged, so a crash can be placed
//! at each of them: [`SimFs::cut_after`].
//!
//! ```
//! use kv_core::{FileExt, Fs, FsExt, OpenMode};
//! use kv_tests::sim::{PowerCut, SimFs};
//! use std::path::Path;
//!
//! let disk = SimFs::new();
//! let file = disk.open(Path::new("/log"), OpenMode::CreateNew).unwrap();
//! file.write_all_at(b"hello", 0).unwrap();
//! file.sync_data().unwrap();
//! // The directory was not synced, so the worst cut takes the file away.
//! assert!(disk.power_cut(PowerCut::LOSE_ALL).list(Path::new("/")).unwrap().is_empty());
//! disk.open_dir(Path::new("/")).unwrap().sync().unwrap();
//! assert_eq!(disk.power_cut(PowerCut::LOSE_ALL).list(Path::new("/")).unwrap(), ["log"]);
//! ```

mod disk;
mod fault;
mod file;
mod fs;
mod op;
mod power_cut;
#[cfg(test)]
mod tests;

pub use fault::{Fault, FaultKind, Repeat};
pub use fs::SimFs;
pub use op::{OpKind, OpRecord};
pub use power_cut::PowerCut;
