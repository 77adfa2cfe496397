//! kv-naive: its directory and its files.

pub(crate) mod directory;
pub(crate) mod identity;
pub(crate) mod past;
pub(crate) mod snapshot;
pub(crate) mod store;
