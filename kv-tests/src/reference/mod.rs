//! A correct engine that is short enough to read in one go: the suite must pass it, and must fail it with
//! any [`Defect`] switched on. Start here when you write an engine of your own.
//!
//! A sorted map behind one lock, and one file that changes are appended to, each as a checksummed
//! record. What cannot be decoded at the end of the file is a torn tail. Every open, and every time the file
//! has grown to twice what it holds, a new file with one record replaces it atomically. A reserve as long as that new file
//! is the way out of a full disk. It favours clarity over speed: readers wait for syncs.
//!
//! | file | holds |
//! |---|---|
//! | `engine.rs` | the engine: changes, dumps, close |
//! | `open.rs` | the factory: check, lock, recover, begin a new epoch |
//! | `log.rs` | the bytes of the file, without I/O |
//! | `defect.rs` | ways to be wrong, for the suite's own tests |

mod defect;
mod engine;
mod log;
mod open;

pub use defect::Defect;
pub use engine::Reference;
pub use open::ReferenceFactory;
