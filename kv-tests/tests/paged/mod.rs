//! A second home of mutants: a correct engine of another architecture than the reference engine,
//! and the same engine with one deliberate defect.
//!
//! The store is a sorted map in memory, split into leaves. Its files:
//!
//! | file | holds |
//! |---|---|
//! | `CONTROL` | the number of the present generation, and the LSNs that it may give out |
//! | `snap-000007` | all keys and values at the beginning of generation 7 |
//! | `wal-000007` | the changes since then |
//! | `RESERVE` | space for the next generation on a full disk |
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
mod tree;
mod wal;

pub(crate) use defect::Defect;
pub(crate) use open::PagedFactory;
