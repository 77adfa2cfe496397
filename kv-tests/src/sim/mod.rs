//! A simulated disk: an [`Fs`](kv_core::Fs) in memory that can lose power, kill its process and
//! inject faults.
//!
//! The model that every crash case relies on:
//!
//! - **File data** is in the cache until a sync of the file. At a power cut each unsynced 512-byte
//!   sector is independently kept, lost or torn. A lost sector has its content as of the last sync,
//!   or zeros or stale bytes where there was none.
//! - **File length** is independent of the data: any length that the file had since its last sync,
//!   or one between.
//! - **Directory entries** (creations, renames, removals) are pending until a sync of their
//!   directory. At a power cut each pending one is independently kept or lost. A rename is atomic:
//!   the old name or the new one, never both and never neither. A kept entry may name a file whose
//!   data is lost.
//! - **A failed file sync** leaves its bytes readable, and no later sync writes them.
//! - **A failed directory sync** leaves its names visible, and no later sync makes them durable. A
//!   new change of the same name can become durable. The creation of a directory stays pending,
//!   because an engine cannot repeat it.
//! - **A directory handle** stays with its directory. Its lock notices that the directory was
//!   removed or the lock file replaced: [`SimFs::move_dir`].
//! - **Process death** keeps every completed operation, and releases the locks.
//! - **Shared memory** belongs to the machine of the disk. The death of the process keeps each byte
//!   that a thread had stored. A power cut drops all objects, and the next boot has another id.
//!   Creating or removing an object counts as a mutation, but faults of the disk do not strike it.
//!
//! A seed determines all draws. The disk counts and logs all operations, so a crash can be placed
//! at each of them: [`SimFs::cut_after`].
//!
//! ```
//! use kv_core::Fs;
//! use kv_core::fs::{FileExt, FsExt, OpenMode};
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
mod gate;
mod op;
mod power_cut;
mod shared_memory;
#[cfg(test)]
mod tests;

pub use fault::{Fault, FaultKind, Repeat};
pub use fs::SimFs;
pub use gate::{Edge, Gate, Stop};
pub use op::{OpKind, OpRecord};
pub use power_cut::PowerCut;
