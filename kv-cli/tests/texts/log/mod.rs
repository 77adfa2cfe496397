//! kv-log: its directory and its files.

pub(crate) mod cold;
pub(crate) mod directory;
pub(crate) mod inspect;
pub(crate) mod manifest;
pub(crate) mod segments;
pub(crate) mod store;
