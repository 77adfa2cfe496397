//! The state of the table at one moment, taken while writers go on.
//!
//! A cut at LSN `s` begins with the gate held exclusively: no writer is in flight, and the table
//! holds exactly the changes up to `s`. Then the snapshot copies shard after shard, each under its
//! read lock, and leaves out entries newer than `s`. Writers may replace or remove entries before
//! their shard is copied. A writer first keeps such an entry here, under the write lock of the
//! shard:
//!
//! | a writer finds, under the shard's lock | and does | the cut has the entry from |
//! |---|---|---|
//! | no entry, or one newer than `s` | nothing | nowhere: the key was absent at `s`, or an earlier writer has kept it |
//! | an entry up to `s`, shard not copied yet | keeps it | here; the copy finds something newer, or nothing |
//! | an entry up to `s`, shard copied | nothing | the copy |
//!
//! `shards_copied` moves under the shard's read lock and is loaded under its write lock. So writer
//! and copy agree on the row, and the cut has every entry exactly once. After the first replacement
//! or removal of a key, its entries are newer than `s`, so only the first writer of a key keeps an
//! entry.

use kv_core::parts::Position;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::shards::{Entry, Shards};

/// The state of a running cut, for writers.
#[derive(Debug, Default)]
pub(crate) struct CutState {
    /// The LSN of the running cut. 0: none runs, or of an empty table; no entry has an LSN that
    /// low.
    lsn: AtomicU64,
    /// Shards below this index are copied.
    shards_copied: AtomicUsize,
    kept: Mutex<Vec<(Box<[u8]>, Entry)>>,
    /// Bytes of the keys and values in `kept`. Changes with `kept` locked.
    kept_bytes: AtomicU64,
}

impl CutState {
    /// Keeps an entry about to be replaced or removed, if the running cut needs it. With the gate
    /// held, and under the write lock of `shard`.
    #[inline]
    pub(crate) fn keep(&self, key: &[u8], entry: &Entry, shard: impl FnOnce() -> usize) {
        if entry.lsn <= self.lsn.load(Ordering::Relaxed) {
            self.keep_unless_copied(key, entry, shard());
        }
    }

    #[cold]
    fn keep_unless_copied(&self, key: &[u8], entry: &Entry, shard: usize) {
        if shard >= self.shards_copied.load(Ordering::Relaxed) {
            let mut kept = self.kept.lock();
            kept.push((Box::from(key), entry.clone()));
            self.kept_bytes.fetch_add((key.len() + entry.value.len()) as u64, Ordering::Relaxed);
        }
    }

    /// Takes the kept entries.
    fn take_kept(&self) -> Vec<(Box<[u8]>, Entry)> {
        let mut kept = self.kept.lock();
        self.kept_bytes.store(0, Ordering::Relaxed);
        std::mem::take(&mut *kept)
    }

    /// Bytes of the entries that writers have replaced, and that the running cut still needs.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Ordering::Relaxed)
    }
}

/// A running cut; it ends when dropped. One at a time: the leader of a snapshot has it.
#[derive(Debug)]
pub(crate) struct Cut<'a> {
    shards: &'a Shards,
    state: &'a CutState,
    /// The end of the cut: it contains all changes up to here, and none beyond.
    pub(crate) position: Position,
}

impl<'a> Cut<'a> {
    /// Begins a cut at `position`. With the gate held exclusively.
    pub(super) fn begin(shards: &'a Shards, state: &'a CutState, position: Position) -> Self {
        // A cut that was given up may have left something.
        state.take_kept();
        state.shards_copied.store(0, Ordering::Relaxed);
        state.lsn.store(position.lsn.get(), Ordering::Relaxed);
        Cut { shards, state, position }
    }

    /// Visits every entry of the cut once, with no lock held. Holds a copy of one shard at a time.
    pub(crate) fn visit<E>(self, mut visit: impl FnMut(&[u8], &Entry) -> Result<(), E>) -> Result<(), E> {
        for shard in 0..self.shards.count() {
            let copied = self.shards.copy(shard, || {
                self.state.shards_copied.store(shard + 1, Ordering::Relaxed);
            });
            for (key, entry) in copied.filter(|(_, entry)| entry.lsn <= self.position.lsn.get()) {
                visit(&key, &entry)?;
            }
            let kept = self.state.take_kept();
            kept.iter().try_for_each(|(key, entry)| visit(key, entry))?;
        }
        Ok(())
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.state.lsn.store(0, Ordering::Relaxed);
        self.state.take_kept();
    }
}
