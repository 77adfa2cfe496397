//! The state at an LSN, read from its files on all processors.
//!
//! The state is in parts ([`partition`](crate::partition)).

use foldhash::fast::RandomState;
use kv_core::parts::Pairs;
use kv_core::{Lsn, Result, Value};
use kv_wal_format::{Record, RecordKind};
use parking_lot::Mutex;
use std::collections::HashMap;

use crate::manifest::{PastFile, PastFiles};
use crate::partition::{PARTS, Partition};
use crate::progress::Work;

/// A version of a key: the LSN of its change, and its value. `None`: it was deleted.
type Found = (u64, Option<Value>);

/// The newest version of each key, of the keys with some hashes.
#[derive(Debug, Default)]
struct Part {
    newest: HashMap<Vec<u8>, Found, RandomState>,
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
        let needed: Vec<&PastFile> = files.needed_at(lsn).collect();
        let partition = Partition::default();
        let parts: Vec<Mutex<Part>> = (0..PARTS).map(|_| Mutex::default()).collect();
        work.run(&needed, |file, bytes| {
            files.read(file, bytes)?;
            let mut changes: [Vec<Record<'_>>; PARTS] = Default::default();
            files.check(file, bytes, lsn, |record| {
                if let Some(changes) = changes.get_mut(partition.part_of(record.key)) {
                    changes.push(record);
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
        let versions = self.parts.iter().flat_map(|part| &part.newest);
        let mut puts: Vec<Record<'_>> = versions
            .filter_map(|(key, (lsn, value))| Some(Record::put(*lsn, key, value.as_deref()?)))
            .collect();
        // The puts of a batch share an LSN. The order of a table is not reproducible.
        puts.sort_unstable_by_key(|put| (put.lsn, put.key));
        puts
    }
}

/// A past state is read from the parts as they are: no table of all pairs is built.
impl Pairs for State {
    fn get(&self, key: &[u8]) -> Option<&Value> {
        let (_, value) = self.parts.get(self.partition.part_of(key))?.newest.get(key)?;
        value.as_ref()
    }

    fn pairs(&self) -> Box<dyn Iterator<Item = (&[u8], &Value)> + '_> {
        let versions = self.parts.iter().flat_map(|part| &part.newest);
        Box::new(versions.filter_map(|(key, (_, value))| Some((key.as_slice(), value.as_ref()?))))
    }
}

impl Part {
    /// Takes the newer ones of these changes.
    fn add(&mut self, changes: Vec<Record<'_>>) {
        for record in changes {
            let value = || (record.kind == RecordKind::Put).then(|| Value::from(record.value));
            match self.newest.get_mut(record.key) {
                // Several files may hold a record.
                Some(known) if known.0 >= record.lsn => {}
                Some(known) => *known = (record.lsn, value()),
                None => drop(self.newest.insert(record.key.to_vec(), (record.lsn, value()))),
            }
        }
    }
}
