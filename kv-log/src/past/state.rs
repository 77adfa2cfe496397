//! The state at an LSN, read from its files on all processors.
//!
//! The state is in parts ([`partition`](crate::partition)).

use kv_core::parts::Pairs;
use kv_core::{Lsn, Result};
use kv_wal_format::{Record, RecordKind};
use parking_lot::Mutex;
use std::cmp::Reverse;

use crate::manifest::{PastFile, PastFiles};
use crate::partition::{HashedKey, KeyTable, PARTS, Partition};
use crate::progress::Work;

/// The newest version of a key. A new key has LSN 0, which no change has.
#[derive(Debug, Default)]
struct Version {
    lsn: u64,
    /// Where the value is. `None`: the key was deleted.
    value: Option<Place>,
}

/// The place of a value in its part.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    len: usize,
}

/// The newest version of each key, of the keys with some hashes.
#[derive(Debug, Default)]
struct Part {
    newest: KeyTable<Version>,
    /// The bytes of the values, and of some that were replaced.
    values: Vec<u8>,
}

/// The newest version of each key.
#[derive(Debug)]
pub(super) struct State {
    parts: Vec<Part>,
    partition: Partition,
}

impl State {
    /// The state at `lsn`. `work` advances by the bytes of the files.
    ///
    /// # Errors
    /// A needed file is missing or damaged; the caller of `work` ended it.
    pub(super) fn read(files: &PastFiles, lsn: Lsn, work: &Work<'_>) -> Result<Self> {
        let mut needed: Vec<&PastFile> = files.needed_at(lsn).collect();
        // The newest first: few values are replaced then.
        needed.sort_unstable_by_key(|file| Reverse(file.id));
        let partition = Partition::default();
        let parts: Vec<Mutex<Part>> = (0..PARTS).map(|_| Mutex::default()).collect();
        work.run(&needed, |file, bytes| {
            files.read(file, bytes)?;
            let mut changes: [Vec<(HashedKey<'_>, Record<'_>)>; PARTS] = Default::default();
            files.check(file, bytes, lsn, |record| {
                let key = partition.hash(record.key);
                if let Some(changes) = changes.get_mut(key.part()) {
                    changes.push((key, record));
                }
            })?;
            for (part, changes) in parts.iter().zip(changes) {
                part.lock().add(changes);
            }
            work.advance(file.len);
            Ok(())
        })?;
        Ok(State { parts: parts.into_iter().map(Mutex::into_inner).collect(), partition })
    }

    /// A put for each pair, in the order of LSNs, as a compaction writes them.
    pub(super) fn puts(&self) -> Vec<Record<'_>> {
        let mut puts: Vec<Record<'_>> = self.parts.iter().flat_map(Part::puts).collect();
        // The puts of a batch share an LSN. The order of a table is not reproducible.
        puts.sort_unstable_by_key(|put| (put.lsn, put.key));
        puts
    }
}

/// A past state is read from the parts as they are: no table of all pairs is built.
impl Pairs for State {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let key = self.partition.hash(key);
        let part = self.parts.get(key.part())?;
        part.value(part.newest.get(key)?)
    }

    fn pairs(&self) -> Box<dyn Iterator<Item = (&[u8], &[u8])> + '_> {
        Box::new(self.parts.iter().flat_map(Part::puts).map(|put| (put.key, put.value)))
    }
}

impl Part {
    /// Takes the newer ones of these changes of one file.
    fn add(&mut self, changes: Vec<(HashedKey<'_>, Record<'_>)>) {
        for (key, record) in changes.into_iter().rev() {
            let known = self.newest.get_or_default(key);
            // Several files may hold a record.
            if known.lsn < record.lsn {
                let (start, len) = (self.values.len(), record.value.len());
                let value = (record.kind == RecordKind::Put).then_some(Place { start, len });
                self.values.extend_from_slice(record.value);
                *known = Version { lsn: record.lsn, value };
            }
        }
    }

    fn value(&self, version: &Version) -> Option<&[u8]> {
        let Place { start, len } = version.value?;
        self.values.get(start..)?.get(..len)
    }

    /// A put for each key that was not deleted.
    fn puts(&self) -> impl Iterator<Item = Record<'_>> {
        self.newest
            .iter()
            .filter_map(|(key, version)| Some(Record::put(version.lsn, key, self.value(version)?)))
    }
}
