//! A correct engine that is short enough to read in one go: the suite must pass it, and must fail
//! it with any [`Defect`] switched on. Start here when you write an engine of your own.
//!
//! A store is a sorted map behind one lock, and one file. The engine appends each change to the
//! file as a checksummed record. Bytes at the end that it cannot decode are a torn tail. A new file
//! with one record replaces the old one atomically: at every open, and each time the file has grown
//! to twice the size of the data. A reserve as long as that new file is the way out of a full disk.
//! The engine favours clarity over speed: readers wait for syncs.
//!
//! | file | holds |
//! |---|---|
//! | `open.rs` | the factory: check, lock, recover, begin a new epoch |
//! | `engine.rs` | the calls of the contract: reads, waits, close |
//! | `change.rs` | one change: LSN, record, map, answer |
//! | `dump.rs` | the way of records into the file, and compaction |
//! | `ticker.rs` | the thread that dumps by time and wakes tasks |
//! | `state.rs` | the state that callers and the ticker share |
//! | `place.rs` | the directory: its lock, its reserve, the replacement of its file |
//! | `log.rs` | the bytes of the file, without I/O |
//! | `defect.rs` | ways to be wrong, for the suite's own tests |

mod change;
mod defect;
mod dump;
mod engine;
mod log;
mod open;
mod place;
mod state;
mod ticker;

pub use defect::Defect;
pub use engine::Reference;
pub use open::ReferenceFactory;
