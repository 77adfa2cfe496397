//! All subjects by name, and how the bench opens each.

use super::kv_engine::KvEngine;
use super::policy::Policy;
use super::subject::Subject;
use super::{dashmap, locked_map, papaya, scc};
#[cfg(feature = "peers")]
use super::{fjall, lmdb, redb, sled};
use crate::failure::Failure;
use clap::ValueEnum;
use kv_core::{Engine, EngineFactory, Env, OpenOptions};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// All subjects, compiled in or not. The command line knows the engines of this workspace by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SubjectName {
    /// The log-structured engine.
    Log,
    /// The hash table with snapshots.
    Naive,
    #[value(skip)]
    Dashmap,
    #[value(skip)]
    Papaya,
    #[value(skip)]
    Scc,
    #[value(skip)]
    LockedMap,
    #[value(skip)]
    Lmdb,
    #[value(skip)]
    Fjall,
    #[value(skip)]
    Redb,
    #[value(skip)]
    Sled,
    #[value(skip)]
    Rocksdb,
}

impl SubjectName {
    /// The durable stores of other projects.
    pub(crate) const FOREIGN: [SubjectName; 5] =
        [SubjectName::Lmdb, SubjectName::Fjall, SubjectName::Redb, SubjectName::Sled, SubjectName::Rocksdb];
    /// The tables that persist nothing.
    pub(crate) const VOLATILE: [SubjectName; 4] =
        [SubjectName::Dashmap, SubjectName::Papaya, SubjectName::Scc, SubjectName::LockedMap];

    /// The subject's name in tables.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            SubjectName::Log => "kv-log",
            SubjectName::Naive => "kv-naive",
            SubjectName::Dashmap => "dashmap",
            SubjectName::Papaya => "papaya",
            SubjectName::Scc => "scc",
            SubjectName::LockedMap => "HashMap in a lock",
            SubjectName::Lmdb => "LMDB",
            SubjectName::Fjall => "fjall",
            SubjectName::Redb => "redb",
            SubjectName::Sled => "sled",
            SubjectName::Rocksdb => "RocksDB",
        }
    }

    /// Whether its data survive its process.
    pub(crate) fn is_durable(self) -> bool {
        !Self::VOLATILE.contains(&self)
    }

    /// Whether this build of the program can run it.
    pub(crate) fn is_compiled_in(self) -> bool {
        match self {
            SubjectName::Rocksdb => cfg!(feature = "rocksdb"),
            name => !Self::FOREIGN.contains(&name) || cfg!(feature = "peers"),
        }
    }

    /// The subject under `policy`.
    pub(crate) const fn under(self, policy: Policy) -> Setup {
        Setup { subject: self, policy }
    }

    /// The subject as the comparison runs it by default: `kv-naive` with the middle threshold of
    /// the study, all others with the default policy.
    pub(crate) fn standard(self) -> Setup {
        match self {
            SubjectName::Naive => self.under(Policy::MaxLogSize(1 << 20)),
            name => name.under(Policy::Default),
        }
    }

    fn factory(self) -> Option<&'static dyn EngineFactory> {
        match self {
            SubjectName::Log => Some(&kv_log::LogFactory),
            SubjectName::Naive => Some(&kv_naive::NaiveFactory),
            _ => None,
        }
    }
}

/// A subject under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) subject: SubjectName,
    pub(crate) policy: Policy,
}

impl Setup {
    /// `log (100 ms or 8 MiB)`.
    pub(crate) fn label(self) -> String {
        let name = self.subject.factory().map_or(self.subject.label(), EngineFactory::name);
        format!("{name} ({})", self.policy.label())
    }

    /// Opens the subject, with its files in `dir`. Foreign stores need an existing directory.
    pub(crate) fn open(self, dir: &Path) -> Result<Box<dyn Subject>, Failure> {
        #[cfg(any(feature = "peers", feature = "rocksdb"))]
        let synced = self.policy == Policy::Always;
        match self.subject {
            SubjectName::Log | SubjectName::Naive => Ok(Box::new(KvEngine(self.open_engine(dir)?))),
            SubjectName::Dashmap => Ok(Box::new(dashmap::Table::default())),
            SubjectName::Papaya => Ok(Box::new(papaya::Table::default())),
            SubjectName::Scc => Ok(Box::new(scc::Table::default())),
            SubjectName::LockedMap => Ok(Box::new(locked_map::Table::default())),
            #[cfg(feature = "peers")]
            SubjectName::Lmdb => Ok(Box::new(lmdb::Store::open(dir, synced)?)),
            #[cfg(feature = "peers")]
            SubjectName::Fjall => Ok(Box::new(fjall::Store::open(dir, synced)?)),
            #[cfg(feature = "peers")]
            SubjectName::Redb => Ok(Box::new(redb::Store::open(dir, synced)?)),
            #[cfg(feature = "peers")]
            SubjectName::Sled => Ok(Box::new(sled::Store::open(dir, synced)?)),
            #[cfg(feature = "rocksdb")]
            SubjectName::Rocksdb => Ok(Box::new(super::rocksdb::Store::open(dir, synced)?)),
            #[cfg(not(all(feature = "peers", feature = "rocksdb")))]
            name => Err(Failure::Worker(format!("{} is not compiled in", name.label()))),
        }
    }

    /// Opens an engine of this workspace, with its files in `dir`.
    pub(crate) fn open_engine(self, dir: &Path) -> Result<Arc<dyn Engine>, Failure> {
        let options = OpenOptions { persistence: self.policy.build(), ..OpenOptions::default() };
        let factory = self.subject.factory();
        let factory = factory.ok_or_else(|| Failure::Worker(format!("{} is no engine", self.label())))?;
        Ok(factory.open(dir, &Env::os(), &options)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::subject::Visit;
    use super::*;

    fn all() -> impl Iterator<Item = SubjectName> {
        let ours = [SubjectName::Log, SubjectName::Naive];
        ours.into_iter().chain(SubjectName::VOLATILE).chain(SubjectName::FOREIGN)
    }

    fn shown(found: impl FnOnce(&mut Visit<'_>) -> Result<bool, Failure>) -> Option<Vec<u8>> {
        let mut value = None;
        let there = found(&mut |bytes| value = Some(bytes.to_vec())).unwrap();
        assert_eq!(there, value.is_some());
        value
    }

    #[test]
    fn every_subject_stores_replaces_and_removes() {
        for name in all().filter(|name| name.is_compiled_in()) {
            for policy in [Policy::Default, Policy::Always] {
                let dir = tempfile::tempdir().unwrap();
                let subject = name.under(policy).open(dir.path()).unwrap();
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
                let subject = name.under(policy).open(dir.path()).unwrap();
                let left = if name.is_durable() { 19 } else { 0 };
                assert_eq!(subject.count().unwrap(), left, "{name:?}");
            }
        }
    }

    #[test]
    fn a_subject_that_is_not_compiled_in_says_so() {
        for name in all().filter(|name| !name.is_compiled_in()) {
            let complaint = name.standard().open(Path::new("nowhere")).err().unwrap().to_string();
            assert!(complaint.contains(name.label()), "{complaint}");
        }
    }

    #[test]
    fn labels_name_the_engine_and_its_policy() {
        assert_eq!(SubjectName::Log.standard().label(), "log (100 ms or 8 MiB)");
        assert_eq!(SubjectName::Naive.standard().label(), "naive (every 1 MiB)");
        assert!(SubjectName::Dashmap.standard().open_engine(Path::new("nowhere")).is_err());
    }
}
