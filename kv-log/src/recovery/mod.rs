//! Opening a store, and recovery: from its files to its index.

mod open;
mod orphans;
mod replay;
mod verdict;

pub(crate) use open::open;
