//! Opening a store, and recovery: from its files to its index.

mod open;
mod orphans;
mod recovered;
mod replay;
mod verdict;

pub(crate) use open::open;
pub(crate) use orphans::examine_all as examine_unnamed;
pub(crate) use verdict::{Before, Ending, Named, Scanned, Verdict, decide, sealed_ending, unsealed_ending};
