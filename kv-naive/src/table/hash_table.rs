use dashmap::mapref::entry::Entry as MapEntry;
use kv_core::parts::Position;
use kv_core::{Background, Batch, Change, Lsn, Result, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cut::{Cut, CutState};
use super::shards::{CacheLine, Entry, Gate, Shards};

#[derive(Debug, Default)]
struct Totals {
    next_lsn: AtomicU64,
    /// Keys and values of changes since open, bytes.
    changed_bytes: AtomicU64,
    /// Keys and values present, bytes.
    live_bytes: AtomicU64,
}

/// Longest value that `get` copies, bytes: up to here a copy costs no more than a shared `Value`.
const COPIED_LEN_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Table {
    shards: Shards,
    /// The LSN recovered, and the highest one of earlier openings.
    recovered: Lsn,
    floor: Lsn,
    longest_loaded_key: usize,
    cut: CutState,
    /// Odd while a batch is applied.
    batches: CacheLine<AtomicU64>,
    totals: CacheLine<Totals>,
}

impl Table {
    /// An empty table. In inline mode its order is the same in every run, so that runs can be
    /// reproduced.
    pub(crate) fn new(background: Background) -> Self {
        let mut table = Table {
            shards: Shards::new(background),
            recovered: Lsn::ZERO,
            floor: Lsn::ZERO,
            longest_loaded_key: 0,
            cut: CutState::default(),
            batches: CacheLine::default(),
            totals: CacheLine::default(),
        };
        table.start(Lsn::ZERO, Lsn::ZERO);
        table
    }

    /// Adds a recovered entry; `false` when its key is there already.
    pub(crate) fn load(&mut self, key: &[u8], entry: Entry) -> bool {
        *self.totals.0.live_bytes.get_mut() += (key.len() + entry.value.len()) as u64;
        self.longest_loaded_key = self.longest_loaded_key.max(key.len());
        self.shards.map.insert(Box::from(key), entry).is_none()
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

    /// The answer of `see` for the value of `key`, under the lock of its shard.
    #[inline]
    fn view<R>(&self, key: &[u8], see: impl Fn(&Arc<[u8]>) -> R) -> Option<R> {
        let before = self.batches.0.load(Ordering::Acquire);
        if before.is_multiple_of(2) {
            let seen = self.look_up(key, &see);
            // A reader that saw a change of a batch, through the shard's lock, sees here that the
            // batch had begun.
            if self.batches.0.load(Ordering::Acquire) == before {
                return seen;
            }
        }
        self.view_behind_gate(key, &see)
    }

    #[cold]
    fn view_behind_gate<R>(&self, key: &[u8], see: impl Fn(&Arc<[u8]>) -> R) -> Option<R> {
        let _no_batch = self.shards.gate.0.read();
        self.look_up(key, see)
    }

    #[inline]
    fn look_up<R>(&self, key: &[u8], see: impl Fn(&Arc<[u8]>) -> R) -> Option<R> {
        self.shards.map.get(key).map(|entry| see(&entry.value))
    }

    /// Stores a value.
    #[inline]
    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let (key, value) = (Box::from(key), Arc::from(value));
        let gate = self.shards.gate.0.read();
        gate.check_open()?;
        Ok(Lsn::new(self.insert(key, value, || self.take_lsn())))
    }

    /// Removes a key; `None` when it is not there.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        let gate = self.shards.gate.0.read();
        gate.check_open()?;
        Ok(self.remove(key, || self.take_lsn()).map(Lsn::new))
    }

    /// Applies a batch under one LSN; `None` when it changes nothing.
    pub(crate) fn apply(&self, batch: &Batch) -> Result<Option<Lsn>> {
        let mut changes = batch.effective_changes();
        let gate = self.shards.gate.0.write();
        gate.check_open()?;
        changes.retain(|change| match change {
            Change::Put { .. } => true,
            Change::Delete { key } => self.shards.map.contains_key(key.as_slice()),
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
        // Only now: the batch must be readable before its LSN is known.
        self.totals.0.next_lsn.store(lsn + 1, Ordering::SeqCst);
        self.batches.0.fetch_add(1, Ordering::AcqRel);
        Ok(Some(Lsn::new(lsn)))
    }

    /// Stores a value under the LSN that `take_lsn` gives under the shard's lock. The gate is held.
    #[inline]
    fn insert(&self, key: Box<[u8]>, value: Arc<[u8]>, take_lsn: impl FnOnce() -> u64) -> u64 {
        let (key_len, value_len) = (key.len() as u64, value.len() as u64);
        // The replaced entry is freed after the shard's lock is released.
        let (lsn, replaced) = match self.shards.map.entry(key) {
            MapEntry::Occupied(mut slot) => {
                self.cut.keep(slot.key(), slot.get(), || self.shards.map.determine_map(slot.key()));
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
        let (key, entry) = self.shards.map.remove_if(key, |key, entry| {
            self.cut.keep(key, entry, || self.shards.map.determine_map(key));
            lsn = Some(take_lsn());
            true
        })?;
        let (key_len, value_len) = (key.len() as u64, entry.value.len() as u64);
        self.totals.0.changed_bytes.fetch_add(key_len, Ordering::Relaxed);
        self.totals.0.live_bytes.fetch_sub(key_len + value_len, Ordering::Relaxed);
        lsn
    }

    /// The fences in `NextAsk` and `Wake` order the change with the worker's look. This ordering is
    /// not weaker than they need.
    #[inline]
    fn take_lsn(&self) -> u64 {
        self.totals.0.next_lsn.fetch_add(1, Ordering::SeqCst)
    }

    /// Takes no more changes; returns the LSN of the last one.
    pub(crate) fn close(&self) -> Lsn {
        *self.shards.gate.0.write() = Gate::Closed;
        self.last_lsn()
    }

    /// Begins a cut of the table as it is now.
    pub(crate) fn begin_cut(&self) -> Cut<'_> {
        let _no_writer = self.shards.gate.0.write();
        Cut::begin(&self.shards, &self.cut, self.position())
    }

    /// Copies the entries for a scan, shard by shard.
    pub(crate) fn copy(&self) -> impl Iterator<Item = (Box<[u8]>, Entry)> {
        (0..self.shards.count()).flat_map(|shard| self.shards.copy(shard, || {}))
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
        self.shards.map.len()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.totals.0.live_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of replaced entries that a running snapshot still needs.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.cut.kept_bytes()
    }

    /// Estimated memory of the slots: a pair and a control byte each.
    pub(crate) fn slot_bytes(&self) -> u64 {
        let slot = size_of::<(Box<[u8]>, Entry)>() + 1;
        // A table grows when seven eighths of its slots are taken.
        (self.shards.map.capacity() * slot * 8 / 7) as u64
    }
}
