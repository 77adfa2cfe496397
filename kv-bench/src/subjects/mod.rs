//! The stores and tables under measurement, one file each. [`Subject`] drives them all with the
//! same keys, values and order.
//!
//! `--features peers` compiles the foreign stores in, `--features rocksdb` RocksDB (C++).

mod dashmap;
#[cfg(feature = "peers")]
mod fjall;
mod kv_engine;
#[cfg(feature = "peers")]
mod lmdb;
mod locked_map;
mod papaya;
mod policy;
#[cfg(feature = "peers")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod scc;
mod setup;
#[cfg(feature = "peers")]
mod sled;
mod subject;

pub(crate) use kv_engine::KvEngine;
pub(crate) use policy::Policy;
pub(crate) use setup::{Setup, SubjectName};
pub(crate) use subject::Subject;
