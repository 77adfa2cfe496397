//! The hash table.
//!
//! A writer holds the gate shared while it takes an LSN and changes one entry, under that entry's lock. A
//! batch, and the moment at which a snapshot begins or ends, hold it exclusively: so a snapshot that
//! begins at LSN `s` begins with exactly the changes up to `s` in the table, and no writer in flight.
//!
//! While a snapshot at `s` runs, a writer that replaces or removes an entry with an LSN up to `s` first keeps
//! the old value aside, under the entry's lock. The snapshot reads the table shard by shard, skips entries
//! newer than `s`, and then takes what was kept aside. An entry replaced after its shard was read comes twice,
//! both times with the same LSN and value.
//!
//! A sequence number, odd while a batch is applied, makes readers look again: they see all of it or nothing.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use foldhash::fast::RandomState;
use kv_core::{Batch, Change, Lsn};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A value and the LSN of the change that brought it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) value: Arc<[u8]>,
    pub(crate) lsn: u64,
}

/// Whether changes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Closed,
}

/// A key and its value.
type Pair = (Box<[u8]>, Arc<[u8]>);

type Map<S> = DashMap<Box<[u8]>, Entry, S>;

#[derive(Debug)]
pub(crate) struct Table {
    map: Map<RandomState>,
    gate: RwLock<Gate>,
    /// Odd while a batch is applied.
    batches: AtomicU64,
    next_lsn: AtomicU64,
    /// The LSN recovered, and the highest one of earlier openings.
    recovered: Lsn,
    floor: Lsn,
    /// LSN of the snapshot that runs; 0: none does, or of an empty table.
    snapshot_lsn: AtomicU64,
    kept_aside: Mutex<HashMap<Box<[u8]>, Entry>>,
    changes: AtomicU64,
    changed_bytes: AtomicU64,
    live_bytes: AtomicU64,
}

/// How far changes have come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    pub(crate) lsn: Lsn,
    /// Since open.
    pub(crate) changes: u64,
    /// Keys and values of those, bytes.
    pub(crate) bytes: u64,
}

impl Table {
    /// A table with the recovered entries; LSNs go on above `floor`.
    pub(crate) fn new(entries: HashMap<Box<[u8]>, Entry>, recovered: Lsn, floor: Lsn) -> Self {
        let map = DashMap::with_capacity_and_hasher(entries.len(), RandomState::default());
        let mut live_bytes = 0;
        for (key, entry) in entries {
            live_bytes += (key.len() + entry.value.len()) as u64;
            map.insert(key, entry);
        }
        Table {
            map,
            gate: RwLock::new(Gate::Open),
            batches: AtomicU64::new(0),
            next_lsn: AtomicU64::new(floor.get() + 1),
            recovered,
            floor,
            snapshot_lsn: AtomicU64::new(0),
            kept_aside: Mutex::default(),
            changes: AtomicU64::new(0),
            changed_bytes: AtomicU64::new(0),
            live_bytes: AtomicU64::new(live_bytes),
        }
    }

    /// The value of `key`, never from the middle of a batch.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        loop {
            let before = self.batches.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let value = self.map.get(key).map(|entry| Arc::clone(&entry.value));
                if self.batches.load(Ordering::Acquire) == before {
                    return value;
                }
            }
            std::thread::yield_now();
        }
    }

    /// Stores a value; `None` when the table is closed.
    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> Option<Lsn> {
        let (key, value) = (Box::from(key), Arc::from(value));
        let gate = self.gate.read();
        (*gate == Gate::Open).then(|| self.insert(key, value, None))
    }

    /// Removes a key, if it is there: its LSN, or the last one and false. `None` when the table is
    /// closed.
    pub(crate) fn delete(&self, key: &[u8]) -> Option<(Lsn, bool)> {
        let gate = self.gate.read();
        (*gate == Gate::Open).then(|| match self.remove(key, None) {
            Some(lsn) => (lsn, true),
            None => (self.last_lsn(), false),
        })
    }

    /// Applies a batch under one LSN: that, and true; or the last LSN and false, when it changes nothing.
    /// `None` when the table is closed.
    pub(crate) fn apply(&self, batch: &Batch) -> Option<(Lsn, bool)> {
        let mut changes = batch.effective_changes();
        let gate = self.gate.write();
        if *gate == Gate::Closed {
            return None;
        }
        changes.retain(|change| match change {
            Change::Put { .. } => true,
            Change::Delete { key } => self.map.contains_key(key.as_slice()),
        });
        if changes.is_empty() {
            return Some((self.last_lsn(), false));
        }
        let lsn = self.next_lsn.fetch_add(1, Ordering::AcqRel);
        self.batches.fetch_add(1, Ordering::AcqRel);
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    self.insert(Box::from(key.as_slice()), Arc::from(value.as_slice()), Some(lsn));
                }
                Change::Delete { key } => {
                    self.remove(key, Some(lsn));
                }
            }
        }
        self.batches.fetch_add(1, Ordering::AcqRel);
        self.changes.fetch_add(1, Ordering::Relaxed);
        Some((Lsn::new(lsn), true))
    }

    /// Takes no more changes; returns the LSN of the last one.
    pub(crate) fn close(&self) -> Lsn {
        *self.gate.write() = Gate::Closed;
        self.last_lsn()
    }

    /// Stores a value under the LSN of its batch, or one of its own. The gate is held.
    fn insert(&self, key: Box<[u8]>, value: Arc<[u8]>, batch_lsn: Option<u64>) -> Lsn {
        let len = key.len() + value.len();
        let key_len = key.len() as u64;
        let slot = self.map.entry(key);
        let lsn = self.lsn_for(batch_lsn);
        let entry = Entry { value, lsn };
        match slot {
            MapEntry::Occupied(mut slot) => {
                self.keep_aside(slot.key(), slot.get());
                let old = slot.insert(entry);
                self.live_bytes.fetch_sub(key_len + old.value.len() as u64, Ordering::Relaxed);
            }
            MapEntry::Vacant(slot) => drop(slot.insert(entry)),
        }
        self.live_bytes.fetch_add(len as u64, Ordering::Relaxed);
        self.changed_bytes.fetch_add(len as u64, Ordering::Relaxed);
        Lsn::new(lsn)
    }

    fn remove(&self, key: &[u8], batch_lsn: Option<u64>) -> Option<Lsn> {
        let mut lsn = 0;
        let (key, old) = self.map.remove_if(key, |key, old| {
            self.keep_aside(key, old);
            lsn = self.lsn_for(batch_lsn);
            true
        })?;
        self.live_bytes.fetch_sub((key.len() + old.value.len()) as u64, Ordering::Relaxed);
        self.changed_bytes.fetch_add(key.len() as u64, Ordering::Relaxed);
        Some(Lsn::new(lsn))
    }

    fn lsn_for(&self, batch_lsn: Option<u64>) -> u64 {
        batch_lsn.unwrap_or_else(|| {
            self.changes.fetch_add(1, Ordering::Relaxed);
            self.next_lsn.fetch_add(1, Ordering::AcqRel)
        })
    }

    /// Keeps a value that the running snapshot may still need. Under the entry's lock.
    #[inline]
    fn keep_aside(&self, key: &[u8], entry: &Entry) {
        if entry.lsn <= self.snapshot_lsn.load(Ordering::Relaxed) {
            self.kept_aside.lock().insert(Box::from(key), entry.clone());
        }
    }

    /// Begins a snapshot of the table as it is now.
    pub(crate) fn begin_snapshot(&self) -> Position {
        let _exclusive = self.gate.write();
        let position = self.position();
        self.snapshot_lsn.store(position.lsn.get(), Ordering::Relaxed);
        position
    }

    /// Visits every entry as of the snapshot, some twice; then ends it. A writer of a shard waits while that
    /// shard is visited.
    pub(crate) fn visit_snapshot<E>(
        &self,
        position: Position,
        mut visit: impl FnMut(&[u8], &Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let visited = self
            .map
            .iter()
            .filter(|pair| pair.lsn <= position.lsn.get())
            .try_for_each(|pair| visit(pair.key(), pair.value()));
        let kept_aside = {
            let _exclusive = self.gate.write();
            self.snapshot_lsn.store(0, Ordering::Relaxed);
            std::mem::take(&mut *self.kept_aside.lock())
        };
        visited?;
        kept_aside.iter().try_for_each(|(key, entry)| visit(key, entry))
    }

    /// All pairs, copied shard by shard.
    pub(crate) fn pairs(&self) -> Vec<Pair> {
        self.map.iter().map(|pair| (pair.key().clone(), Arc::clone(&pair.value))).collect()
    }

    pub(crate) fn position(&self) -> Position {
        Position {
            lsn: self.last_lsn(),
            changes: self.changes.load(Ordering::Relaxed),
            bytes: self.changed_bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn last_lsn(&self) -> Lsn {
        let last = Lsn::new(self.next_lsn.load(Ordering::Acquire) - 1);
        if last == self.floor { self.recovered } else { last }
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    /// Estimated memory of the table itself: a pair and a control byte a slot.
    pub(crate) fn slot_bytes(&self) -> u64 {
        let slot = size_of::<(Box<[u8]>, Entry)>() + 1;
        // A table grows when seven eighths of its slots are taken.
        (self.map.capacity() * slot * 8 / 7) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn empty() -> Table {
        Table::new(HashMap::new(), Lsn::ZERO, Lsn::ZERO)
    }

    fn snapshot(table: &Table, position: Position) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut state = BTreeMap::new();
        let visited = table.visit_snapshot(position, |key, entry| {
            assert!(entry.lsn <= position.lsn.get());
            if let Some(old) = state.insert(key.to_vec(), entry.value.to_vec()) {
                assert_eq!(old, *entry.value, "a key came twice with two values");
            }
            Ok::<(), ()>(())
        });
        visited.unwrap();
        state
    }

    #[test]
    fn a_snapshot_is_the_state_at_its_beginning() {
        let table = empty();
        for key in 0..20u8 {
            table.put(&[key], b"old").unwrap();
        }
        let before: BTreeMap<_, _> = (0..20u8).map(|key| (vec![key], b"old".to_vec())).collect();
        let position = table.begin_snapshot();
        for (key, value) in [(1, "new"), (1, "newer"), (99, "fresh")] {
            table.put(&[key], value.as_bytes()).unwrap();
        }
        assert!(table.delete(&[2]).unwrap().1);
        assert!(table.delete(&[3]).unwrap().1);
        table.put(&[3], b"back").unwrap();
        let mut batch = Batch::new();
        batch.put(&[4], b"batch").delete(&[5]).delete(&[77]).put(&[4], b"again");
        assert_eq!(table.apply(&batch), Some((Lsn::new(27), true)));
        assert_eq!(snapshot(&table, position), before);
        assert_eq!(table.last_lsn(), Lsn::new(27));
        assert_eq!(table.position().changes, 27);

        // The next one keeps nothing of this one.
        let position = table.begin_snapshot();
        let after = snapshot(&table, position);
        assert_eq!(after.get(&vec![1]), Some(&b"newer".to_vec()));
        assert_eq!((after.len(), after.get(&vec![4])), (19, Some(&b"again".to_vec())));
        assert_eq!(table.live_bytes(), after.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum::<u64>());
    }

    #[test]
    fn snapshots_under_concurrent_writers_are_points_in_time() {
        // Writers put ever larger numbers under their key, one after the other: at any LSN the sum of all
        // numbers is the count of changes.
        let table = empty();
        std::thread::scope(|scope| {
            for writer in 0..3u8 {
                let table = &table;
                scope.spawn(move || {
                    for number in 1..=3000u64 {
                        table.put(&[writer], &number.to_le_bytes()).unwrap();
                        table.put(&[100 + writer, number.to_le_bytes()[0]], b"").unwrap();
                        if number % 7 == 0 {
                            assert!(table.delete(&[100 + writer, number.to_le_bytes()[0]]).unwrap().1);
                        }
                    }
                });
            }
            for _ in 0..200 {
                let position = table.begin_snapshot();
                let state = snapshot(&table, position);
                let changes: u64 = (0..3u8)
                    .filter_map(|writer| state.get(&vec![writer]))
                    .map(|number| u64::from_le_bytes(number.as_slice().try_into().unwrap()))
                    // Each number stands for its put, maybe the put that follows, and the deletes.
                    .map(|number| 2 * number + number / 7)
                    .sum();
                let slack = changes.abs_diff(position.changes);
                assert!(slack <= 6, "{changes} {position:?}");
            }
        });
    }

    #[test]
    fn a_closed_table_takes_no_changes() {
        let table = empty();
        table.put(b"k", b"v").unwrap();
        assert_eq!(table.close(), Lsn::new(1));
        let mut batch = Batch::new();
        batch.put(b"k", b"w");
        assert_eq!((table.put(b"k", b"w"), table.delete(b"k"), table.apply(&batch)), (None, None, None));
        assert_eq!(table.get(b"k").as_deref(), Some(b"v".as_slice()));
    }

    #[test]
    fn a_batch_is_seen_whole_or_not_at_all() {
        let table = empty();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=5000u64 {
                    let mut batch = Batch::new();
                    for key in 0..8u8 {
                        batch.put(&[key], &number.to_le_bytes());
                    }
                    table.apply(&batch).unwrap();
                }
            });
            let read = |key: u8| {
                table.get(&[key]).map_or(0, |value| u64::from_le_bytes((*value).try_into().unwrap()))
            };
            let mut last = 0;
            while last < 5000 {
                let first = read(0);
                let second = read(7);
                assert!(second >= first && first >= last, "{last} {first} {second}");
                last = second;
            }
        });
    }
}
