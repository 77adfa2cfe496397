//! The mutants' home: an engine with deliberate defects, for the tests of this suite. The suite
//! must pass it without a defect, and must fail it with any one [`Defect`] switched on. To learn
//! how to write an engine, read `examples/tiny-engine` instead.
//!
//! A store is a sorted map behind one lock, and one file. The engine appends each change to the
//! file as a checksummed record. Undecodable bytes at the end are a torn tail. A new file with one
//! record replaces the old one atomically: at every open, and each time the file has grown to twice
//! the size of the data. A reserve as long as that new file is the way out of a full disk. Readers
//! wait for syncs.
//!
//! | file | holds |
//! |---|---|
//! | `open.rs` | the factory: check, lock, recover, begin a new epoch |
//! | `engine.rs` | the calls of the contract: reads, waits, close |
//! | `change.rs` | one change: LSN, record, map, answer |
//! | `pending.rs` | the questions to the policy |
//! | `dump.rs` | the way of records into the file, and compaction |
//! | `ticker.rs` | the thread that dumps by time and wakes tasks |
//! | `state.rs` | the state that callers and the ticker share |
//! | `place.rs` | the directory: its lock, its reserve, the replacement of its file |
//! | `log.rs` | the bytes of the file, without I/O |
//! | `past.rs`, `moments.rs` | the past states and points that are kept, and the calls that reach them |
//! | `together.rs`, `visits.rs`, `waits.rs`, `cursor.rs` | syncs beside callers, waits for callbacks, scans of the live map: for defects |
//! | `stored.rs` | what defects make of a change on its way to the file |
//! | `defect.rs` | ways to be wrong, for the suite's own tests |

mod change;
mod cursor;
mod defect;
mod dump;
mod engine;
mod log;
mod moments;
mod open;
mod past;
mod pending;
mod place;
mod state;
mod stored;
mod ticker;
mod together;
mod visits;
mod waits;

pub use defect::Defect;
pub use engine::Reference;
pub use open::ReferenceFactory;
