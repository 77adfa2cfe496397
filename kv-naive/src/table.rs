//! The hash table.
//!
//! **The gate.** A writer holds it shared while it takes an LSN and changes one entry, both under the lock
//! of the entry's shard. A batch, and the moment at which a [cut](crate::cut) begins, hold it exclusively.
//!
//! **Log order.** A change takes its LSN under the lock of its shard, and is in the table before that is let go: who
//! reads the key meanwhile waits, so no reader sees a later change and not this one. `last_lsn` may name a put an
//! instant before it can be read. A snapshot is a cut: no writer is in flight when it begins, and so it holds all changes
//! up to its LSN and none beyond.
//!
//! **Batches** become visible at once: a sequence number is odd while one is applied. A reader that meets
//! an odd or changed number looks again behind the gate, so it waits for one batch at most. Otherwise
//! readers write to nothing but the lock of a shard and, if they share the value, its reference count.
//!
//! Lock order: gate, shard, entries kept for a cut.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use foldhash::fast::SeedableRandomState;
use kv_core::{Background, Batch, Change, Error, Lsn, Result, Value};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cut::{Cut, CutState};

/// A value and the LSN of the change that brought it.
///
/// Not a [`Value`]: its reference count is a third allocation for each key and, at every look-up, a cache
/// line more; that made `read` about 1.6 times slower.
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

/// Keeps what writers change off the cache lines that readers read.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CacheLine<T>(T);

#[derive(Debug, Default)]
struct Totals {
    next_lsn: AtomicU64,
    /// Keys and values of changes since open, bytes.
    changed_bytes: AtomicU64,
    /// Keys and values present, bytes.
    live_bytes: AtomicU64,
}

/// How far changes have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lsn: Lsn,
    /// Since open.
    pub(crate) changes: u64,
    /// Keys and values of those, bytes.
    pub(crate) bytes: u64,
}

/// Many, because cuts and scans copy a shard at a time, and its writers wait for no more than that.
const SHARDS: usize = 256;

/// Longest value that `get` copies, bytes: up to here a copy costs no more than a shared `Value`.
const COPIED_LEN_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Table {
    map: DashMap<Box<[u8]>, Entry, SeedableRandomState>,
    /// The LSN recovered, and the highest one of earlier openings.
    recovered: Lsn,
    floor: Lsn,
    longest_loaded_key: usize,
    cut: CutState,
    /// Odd while a batch is applied.
    batches: CacheLine<AtomicU64>,
    gate: CacheLine<RwLock<Gate>>,
    totals: CacheLine<Totals>,
}

impl Table {
    /// An empty table. In inline mode its order is the same in every run, so that runs can be reproduced.
    pub(crate) fn new(background: Background) -> Self {
        let hasher = match background {
            Background::Threads => SeedableRandomState::random(),
            Background::Inline => SeedableRandomState::fixed(),
        };
        let mut table = Table {
            map: DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher, SHARDS),
            recovered: Lsn::ZERO,
            floor: Lsn::ZERO,
            longest_loaded_key: 0,
            cut: CutState::default(),
            batches: CacheLine::default(),
            gate: CacheLine(RwLock::new(Gate::Open)),
            totals: CacheLine::default(),
        };
        table.start(Lsn::ZERO, Lsn::ZERO);
        table
    }

    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self::new(Background::Inline)
    }

    /// Adds a recovered entry; `false` when its key is there already.
    pub(crate) fn load(&mut self, key: &[u8], entry: Entry) -> bool {
        *self.totals.0.live_bytes.get_mut() += (key.len() + entry.value.len()) as u64;
        self.longest_loaded_key = self.longest_loaded_key.max(key.len());
        self.map.insert(Box::from(key), entry).is_none()
    }

    /// The table is as of `recovered`; LSNs go on above `floor`.
    pub(crate) fn start(&mut self, recovered: Lsn, floor: Lsn) {
        (self.recovered, self.floor) = (recovered, floor);
        *self.totals.0.next_lsn.get_mut() = floor.next().get();
    }

    /// Length of the longest key that was loaded, bytes.
    pub(crate) fn longest_loaded_key(&self) -> usize {
        self.longest_loaded_key
    }

    /// The value of `key`, never from the middle of a batch.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<Value> {
        self.view(key, |value| match value.len() {
            ..=COPIED_LEN_MAX => Value::from(&**value),
            _ => Value::from_owner(Arc::clone(value)),
        })
    }

    /// The value of `key`, shared with the table; never from the middle of a batch.
    #[inline]
    pub(crate) fn share(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        self.view(key, Arc::clone)
    }

    /// What `see` makes of the value of `key`, under the lock of its shard.
    #[inline]
    fn view<R>(&self, key: &[u8], see: impl Fn(&Arc<[u8]>) -> R) -> Option<R> {
        let before = self.batches.0.load(Ordering::Acquire);
        if before.is_multiple_of(2) {
            let seen = self.look_up(key, &see);
            // Who sees a change of a batch, through the shard's lock, sees here that the batch had begun.
            if self.batches.0.load(Ordering::Acquire) == before {
                return seen;
            }
        }
        self.view_behind_gate(key, &see)
    }

    #[cold]
    fn view_behind_gate<R>(&self, key: &[u8], see: impl Fn(&Arc<[u8]>) -> R) -> Option<R> {
        let _no_batch = self.gate.0.read();
        self.look_up(key, see)
    }

    #[inline]
    fn look_up<R>(&self, key: &[u8], see: impl Fn(&Arc<[u8]>) -> R) -> Option<R> {
        self.map.get(key).map(|entry| see(&entry.value))
    }

    /// Stores a value.
    #[inline]
    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let (key, value) = (Box::from(key), Arc::from(value));
        let gate = self.gate.0.read();
        check_open(*gate)?;
        Ok(Lsn::new(self.insert(key, value, || self.take_lsn())))
    }

    /// Removes a key; `None` when it is not there.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        let gate = self.gate.0.read();
        check_open(*gate)?;
        Ok(self.remove(key, || self.take_lsn()).map(Lsn::new))
    }

    /// Applies a batch under one LSN; `None` when it changes nothing.
    pub(crate) fn apply(&self, batch: &Batch) -> Result<Option<Lsn>> {
        let mut changes = batch.effective_changes();
        let gate = self.gate.0.write();
        check_open(*gate)?;
        changes.retain(|change| match change {
            Change::Put { .. } => true,
            Change::Delete { key } => self.map.contains_key(key.as_slice()),
        });
        if changes.is_empty() {
            return Ok(None);
        }
        let lsn = self.totals.0.next_lsn.load(Ordering::Relaxed);
        self.batches.0.fetch_add(1, Ordering::AcqRel);
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    self.insert(Box::from(key.as_slice()), Arc::from(value.as_slice()), || lsn);
                }
                Change::Delete { key } => {
                    self.remove(key, || lsn);
                }
            }
        }
        // Only now: nobody shall hear of the LSN before the batch can be read.
        self.totals.0.next_lsn.store(lsn + 1, Ordering::SeqCst);
        self.batches.0.fetch_add(1, Ordering::AcqRel);
        Ok(Some(Lsn::new(lsn)))
    }

    /// Stores a value under the LSN that `take_lsn` gives under the shard's lock. The gate is held.
    #[inline]
    fn insert(&self, key: Box<[u8]>, value: Arc<[u8]>, take_lsn: impl FnOnce() -> u64) -> u64 {
        let (key_len, value_len) = (key.len() as u64, value.len() as u64);
        // What is replaced goes back to the allocator after the shard's lock is released.
        let (lsn, replaced) = match self.map.entry(key) {
            MapEntry::Occupied(mut slot) => {
                self.cut.keep(slot.key(), slot.get(), || self.map.determine_map(slot.key()));
                let lsn = take_lsn();
                (lsn, Some(slot.insert(Entry { value, lsn })))
            }
            MapEntry::Vacant(slot) => {
                let lsn = take_lsn();
                slot.insert(Entry { value, lsn });
                (lsn, None)
            }
        };
        let replaced_len = replaced.as_ref().map_or(0, |entry| key_len + entry.value.len() as u64);
        let totals = &self.totals.0;
        totals.changed_bytes.fetch_add(key_len + value_len, Ordering::Relaxed);
        totals.live_bytes.fetch_add((key_len + value_len).wrapping_sub(replaced_len), Ordering::Relaxed);
        lsn
    }

    /// Removes a key under the LSN that `take_lsn` gives under the shard's lock. The gate is held.
    fn remove(&self, key: &[u8], take_lsn: impl FnOnce() -> u64) -> Option<u64> {
        let mut lsn = None;
        let (key, entry) = self.map.remove_if(key, |key, entry| {
            self.cut.keep(key, entry, || self.map.determine_map(key));
            lsn = Some(take_lsn());
            true
        })?;
        let (key_len, value_len) = (key.len() as u64, entry.value.len() as u64);
        self.totals.0.changed_bytes.fetch_add(key_len, Ordering::Relaxed);
        self.totals.0.live_bytes.fetch_sub(key_len + value_len, Ordering::Relaxed);
        lsn
    }

    /// `SeqCst` because the writer then looks whether the worker watches; see `worker.rs`.
    #[inline]
    fn take_lsn(&self) -> u64 {
        self.totals.0.next_lsn.fetch_add(1, Ordering::SeqCst)
    }

    /// Takes no more changes; returns the LSN of the last one.
    pub(crate) fn close(&self) -> Lsn {
        *self.gate.0.write() = Gate::Closed;
        self.last_lsn()
    }

    /// Begins a cut of the table as it is now.
    pub(crate) fn begin_cut(&self) -> Cut<'_> {
        let _no_writer = self.gate.0.write();
        Cut::begin(self, &self.cut, self.position())
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.map.shards().len()
    }

    /// A copy of one shard, not from the middle of a batch; `copied` is called under the shard's lock.
    /// Values are shared with the table, keys are copied.
    pub(crate) fn copy_shard<F: FnOnce()>(
        &self,
        shard: usize,
        copied: F,
    ) -> impl Iterator<Item = (Box<[u8]>, Entry)> + use<F> {
        let _no_batch = self.gate.0.read();
        let copy = self.map.shards().get(shard).map(|shard| {
            let shard = shard.read();
            let copy = (*shard).clone();
            copied();
            copy
        });
        copy.into_iter().flatten().map(|(key, entry)| (key, entry.into_inner()))
    }

    #[inline]
    pub(crate) fn position(&self) -> Position {
        let last = self.totals.0.next_lsn.load(Ordering::SeqCst) - 1;
        Position {
            lsn: self.visible(last),
            changes: last - self.floor.get(),
            bytes: self.totals.0.changed_bytes.load(Ordering::Relaxed),
        }
    }

    #[inline]
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.visible(self.totals.0.next_lsn.load(Ordering::Acquire) - 1)
    }

    /// Before the first change the newest LSN is the recovered one, which may lie below the floor.
    #[inline]
    fn visible(&self, last: u64) -> Lsn {
        if last == self.floor.get() { self.recovered } else { Lsn::new(last) }
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.totals.0.live_bytes.load(Ordering::Relaxed)
    }

    /// Estimated memory of the slots: a pair and a control byte each.
    pub(crate) fn slot_bytes(&self) -> u64 {
        let slot = size_of::<(Box<[u8]>, Entry)>() + 1;
        // A table grows when seven eighths of its slots are taken.
        (self.map.capacity() * slot * 8 / 7) as u64
    }
}

fn check_open(gate: Gate) -> Result<()> {
    match gate {
        Gate::Open => Ok(()),
        Gate::Closed => Err(Error::Closed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_table_takes_no_changes() {
        let table = Table::empty();
        table.put(b"k", b"v").unwrap();
        assert_eq!(table.close(), Lsn::new(1));
        let mut batch = Batch::new();
        batch.put(b"k", b"w");
        assert!(matches!(table.put(b"k", b"w"), Err(Error::Closed)));
        assert!(matches!(table.delete(b"k"), Err(Error::Closed)));
        assert!(matches!(table.apply(&batch), Err(Error::Closed)));
        assert_eq!(table.get(b"k").as_deref(), Some(b"v".as_slice()));
    }

    #[test]
    fn lsns_go_on_above_the_floor_and_totals_follow() {
        let mut table = Table::empty();
        assert!(table.load(b"k", Entry { value: Arc::from(b"123".as_slice()), lsn: 5 }));
        assert!(!table.load(b"k", Entry { value: Arc::from([]), lsn: 6 }));
        table.start(Lsn::new(7), Lsn::new(100));
        assert_eq!(table.position(), Position { lsn: Lsn::new(7), changes: 0, bytes: 0 });
        assert_eq!(table.delete(b"absent").unwrap(), None);
        assert_eq!(table.last_lsn(), Lsn::new(7));
        assert_eq!(table.put(b"other", b"v").unwrap(), Lsn::new(101));
        assert_eq!(table.position(), Position { lsn: Lsn::new(101), changes: 1, bytes: 6 });
        let mut nothing = Batch::new();
        nothing.delete(b"absent").put(b"x", b"").delete(b"x");
        assert_eq!(table.apply(&nothing).unwrap(), None);
        assert_eq!(table.delete(b"other").unwrap(), Some(Lsn::new(102)));
        assert_eq!((table.len(), table.position().bytes), (1, 11));
    }

    #[test]
    fn a_batch_is_seen_whole_or_not_at_all() {
        let table = Table::empty();
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
                assert!(table.last_lsn().get() >= second);
                last = second;
            }
        });
    }
}
