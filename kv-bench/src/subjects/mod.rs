//! What `kv-bench engine` measures: our engines, tables that persist nothing, and the stores that people
//! use today. One file each; all are driven through [`Subject`], with the same keys, values and order.
//!
//! Stores of others are compiled in with `--features peers`, RocksDB (C++) with `--features rocksdb`.

mod dashmap;
#[cfg(feature = "peers")]
mod fjall;
mod kv_engine;
#[cfg(feature = "peers")]
mod lmdb;
mod locked_map;
mod papaya;
#[cfg(feature = "peers")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "peers")]
mod sled;

pub(crate) use kv_engine::KvEngine;

use crate::engines::{Contender, EngineName, Policy};
use crate::failure::Failure;
use kv_core::Engine;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is called with a value, where it lies.
pub(crate) type Visit<'a> = dyn FnMut(&[u8]) + 'a;

/// A store or a table, as far as it is measured. Every method may be called from several threads, and a
/// change is visible to all of them when its call returns.
pub(crate) trait Subject: Send + Sync {
    /// Stores `value` under `key`.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure>;

    /// Shows the value, in the cheapest way there is: borrowed, wherever it can be.
    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure>;

    /// Gets a value that outlives the call and any later change, and shows it.
    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure>;

    /// Removes `key`.
    fn delete(&self, key: &[u8]) -> Result<(), Failure>;

    /// How many keys are there. Not measured: it may look at all of them.
    fn count(&self) -> Result<u64, Failure>;

    /// Makes durable what was changed so far; nothing in a volatile table.
    fn sync(&self) -> Result<(), Failure>;

    /// Closes in order.
    fn close(self: Box<Self>) -> Result<(), Failure>;

    /// The engine behind it, if it is one of ours: for its statistics.
    fn engine(&self) -> Option<&dyn Engine> {
        None
    }
}

/// When a durable subject's changes become durable. Volatile ones do not care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// Ours: in the background, 100 ms or 8 MiB. Others: written without sync.
    Background,
    /// Each change when its call returns.
    Synced,
}

/// All subjects, compiled in or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SubjectName {
    Log,
    Naive,
    Dashmap,
    Papaya,
    LockedMap,
    Lmdb,
    Fjall,
    Redb,
    Sled,
    Rocksdb,
}

impl SubjectName {
    /// Durable stores of others.
    pub(crate) const PEERS: [SubjectName; 5] =
        [SubjectName::Lmdb, SubjectName::Fjall, SubjectName::Redb, SubjectName::Sled, SubjectName::Rocksdb];
    /// Tables that persist nothing.
    pub(crate) const VOLATILE: [SubjectName; 3] =
        [SubjectName::Dashmap, SubjectName::Papaya, SubjectName::LockedMap];

    /// For people.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            SubjectName::Log => "kv-log",
            SubjectName::Naive => "kv-naive",
            SubjectName::Dashmap => "dashmap",
            SubjectName::Papaya => "papaya",
            SubjectName::LockedMap => "HashMap in a lock",
            SubjectName::Lmdb => "LMDB",
            SubjectName::Fjall => "fjall",
            SubjectName::Redb => "redb",
            SubjectName::Sled => "sled",
            SubjectName::Rocksdb => "RocksDB",
        }
    }

    /// Whether it survives its process.
    pub(crate) fn is_durable(self) -> bool {
        !Self::VOLATILE.contains(&self)
    }

    /// Whether this program can run it.
    pub(crate) fn is_compiled_in(self) -> bool {
        match self {
            SubjectName::Rocksdb => cfg!(feature = "rocksdb"),
            name => !Self::PEERS.contains(&name) || cfg!(feature = "peers"),
        }
    }

    /// Opens it, with its files in `dir`, which exists.
    pub(crate) fn open(self, dir: &Path, mode: Mode) -> Result<Box<dyn Subject>, Failure> {
        let ours = |engine, background| {
            let policy = if mode == Mode::Synced { Policy::Always } else { background };
            Ok(Box::new(KvEngine::new(Contender::new(engine, policy).open(dir)?)) as Box<dyn Subject>)
        };
        match self {
            SubjectName::Log => ours(EngineName::Log, Policy::Default),
            SubjectName::Naive => ours(EngineName::Naive, Policy::Default),
            SubjectName::Dashmap => Ok(Box::new(dashmap::Table::default())),
            SubjectName::Papaya => Ok(Box::new(papaya::Table::default())),
            SubjectName::LockedMap => Ok(Box::new(locked_map::Table::default())),
            #[cfg(feature = "peers")]
            SubjectName::Lmdb => Ok(Box::new(lmdb::Store::open(dir, mode)?)),
            #[cfg(feature = "peers")]
            SubjectName::Fjall => Ok(Box::new(fjall::Store::open(dir, mode)?)),
            #[cfg(feature = "peers")]
            SubjectName::Redb => Ok(Box::new(redb::Store::open(dir, mode)?)),
            #[cfg(feature = "peers")]
            SubjectName::Sled => Ok(Box::new(sled::Store::open(dir, mode)?)),
            #[cfg(feature = "rocksdb")]
            SubjectName::Rocksdb => Ok(Box::new(rocksdb::Store::open(dir, mode)?)),
            #[cfg(not(all(feature = "peers", feature = "rocksdb")))]
            name => Err(Failure::Worker(format!("{} is not compiled in", name.label()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [SubjectName; 10] = [
        SubjectName::Log,
        SubjectName::Naive,
        SubjectName::Dashmap,
        SubjectName::Papaya,
        SubjectName::LockedMap,
        SubjectName::Lmdb,
        SubjectName::Fjall,
        SubjectName::Redb,
        SubjectName::Sled,
        SubjectName::Rocksdb,
    ];

    fn shown(found: impl FnOnce(&mut Visit<'_>) -> Result<bool, Failure>) -> Option<Vec<u8>> {
        let mut value = None;
        let there = found(&mut |bytes| value = Some(bytes.to_vec())).unwrap();
        assert_eq!(there, value.is_some());
        value
    }

    #[test]
    fn every_subject_stores_replaces_and_removes() {
        for name in ALL.into_iter().filter(|name| name.is_compiled_in()) {
            for mode in [Mode::Background, Mode::Synced] {
                let dir = tempfile::tempdir().unwrap();
                let subject = name.open(dir.path(), mode).unwrap();
                for round in [b"first", b"again"] {
                    for key in 0..20u8 {
                        subject.put(&[key], round).unwrap();
                    }
                }
                subject.delete(&[3]).unwrap();
                assert_eq!(subject.count().unwrap(), 19, "{name:?}");
                for key in [0, 19] {
                    assert_eq!(shown(|visit| subject.read(&[key], visit)).unwrap(), b"again");
                    assert_eq!(shown(|visit| subject.get(&[key], visit)).unwrap(), b"again");
                }
                for key in [3, 20] {
                    assert_eq!(shown(|visit| subject.read(&[key], visit)), None);
                    assert_eq!(shown(|visit| subject.get(&[key], visit)), None);
                }
                subject.sync().unwrap();
                subject.close().unwrap();
                let subject = name.open(dir.path(), mode).unwrap();
                let left = if name.is_durable() { 19 } else { 0 };
                assert_eq!(subject.count().unwrap(), left, "{name:?}");
            }
        }
    }

    #[test]
    fn what_is_not_compiled_in_says_so() {
        for name in ALL.into_iter().filter(|name| !name.is_compiled_in()) {
            let complaint = name.open(Path::new("nowhere"), Mode::Synced).err().unwrap().to_string();
            assert!(complaint.contains(name.label()), "{complaint}");
        }
    }
}
