//! A second home of mutants: a correct engine of another architecture than the reference engine,
//! and the same engine with one deliberate defect.
//!
//! The store is a sorted map in memory, split into leaves. Its files:
//!
//! | file | holds |
//! |---|---|
//! | `CONTROL` | the number of the present generation, the LSNs that it may give out, and the opening |
//! | `snap-000007` | all keys and values at the beginning of generation 7 |
//! | `wal-000007` | the changes since then |
//! | `RESERVE` | space for the next generation on a full disk |
//!
//! An engine that is process-safe hands each change to the operating system before its call
//! returns, or keeps it in shared memory.
//!
//! A replacement of `CONTROL` switches from one generation to the next. Every open begins a
//! generation, and so writes again all bytes that it does not know to be synced.
//!
//! | module | job |
//! |---|---|
//! | `tree` | the sorted map |
//! | `format`, `control`, `wal`, `snapshot` | the bytes of the files |
//! | `generation` | writes the files |
//! | `commit`, `dump` | a change's way; group commit |
//! | `tail` | the changes in shared memory |
//! | `open` | recovery and creation |
//! | `engine`, `reads` | the contract's methods |
//! | `defect`, `scratch` | the deliberate defects, and state that only they use |

mod commit;
mod control;
mod defect;
mod dump;
mod engine;
mod format;
mod generation;
mod open;
mod reads;
mod scratch;
mod snapshot;
mod tail;
mod tree;
mod wal;

pub(crate) use defect::Defect;
pub(crate) use open::PagedFactory;
