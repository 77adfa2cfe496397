//! The state of the table at one moment, taken while writers go on.
//!
//! A cut at LSN `s` begins with the gate held exclusively: no writer is in flight, and the table holds
//! exactly the changes up to `s`. Then shards are copied one after the other, each under its read lock, and
//! entries newer than `s` are left out. What is missing is what writers replaced or removed before its
//! shard was copied; they keep it here first, under the write lock of the shard:
//!
//! | a writer finds, under the shard's lock | and does | the cut has the entry from |
//! |---|---|---|
//! | no entry, or one newer than `s` | nothing | nowhere: the key was absent at `s`, or an earlier writer has kept it |
//! | an entry up to `s`, shard not copied yet | keeps it | here; the copy finds something newer, or nothing |
//! | an entry up to `s`, shard copied | nothing | the copy |
//!
//! `shards_copied` moves under the shard's read lock and is looked at under its write lock, so writer and
//! copy agree on the row, and every entry of the cut comes exactly once. What comes after the first
//! replacement or removal of a key is newer than `s`: only the first writer of a key keeps an entry.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::table::{Entry, Position, Table};

/// What writers must know of a running cut.
#[derive(Debug, Default)]
pub(crate) struct CutState {
    /// The LSN of the running cut. 0: none runs, or of an empty table; no entry has an LSN that low.
    lsn: AtomicU64,
    /// Shards below this index are copied.
    shards_copied: AtomicUsize,
    kept: Mutex<Vec<(Box<[u8]>, Entry)>>,
}

impl CutState {
    /// Keeps an entry about to be replaced or removed, if the running cut needs it. With the gate held, and
    /// under the write lock of `shard`.
    #[inline]
    pub(crate) fn keep(&self, key: &[u8], entry: &Entry, shard: impl FnOnce() -> usize) {
        if entry.lsn <= self.lsn.load(Ordering::Relaxed) {
            self.keep_unless_copied(key, entry, shard());
        }
    }

    #[cold]
    fn keep_unless_copied(&self, key: &[u8], entry: &Entry, shard: usize) {
        if shard >= self.shards_copied.load(Ordering::Relaxed) {
            self.kept.lock().push((Box::from(key), entry.clone()));
        }
    }
}

/// A running cut; it ends when dropped. One at a time: the leader of a snapshot has it.
#[derive(Debug)]
pub(crate) struct Cut<'a> {
    table: &'a Table,
    state: &'a CutState,
    /// What the cut contains: all changes up to here, and none beyond.
    pub(crate) position: Position,
}

impl<'a> Cut<'a> {
    /// Begins a cut at `position`. With the gate held exclusively.
    pub(crate) fn begin(table: &'a Table, state: &'a CutState, position: Position) -> Self {
        // A cut that was given up may have left something.
        state.kept.lock().clear();
        state.shards_copied.store(0, Ordering::Relaxed);
        state.lsn.store(position.lsn.get(), Ordering::Relaxed);
        Cut { table, state, position }
    }

    /// Visits every entry of the cut once, with no lock held. Holds a copy of one shard at a time.
    pub(crate) fn visit<E>(self, mut visit: impl FnMut(&[u8], &Entry) -> Result<(), E>) -> Result<(), E> {
        for shard in 0..self.table.shards() {
            let copied = self.table.copy_shard(shard, || {
                self.state.shards_copied.store(shard + 1, Ordering::Relaxed);
            });
            for (key, entry) in copied.filter(|(_, entry)| entry.lsn <= self.position.lsn.get()) {
                visit(&key, &entry)?;
            }
            let kept = std::mem::take(&mut *self.state.kept.lock());
            kept.iter().try_for_each(|(key, entry)| visit(key, entry))?;
        }
        Ok(())
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.state.lsn.store(0, Ordering::Relaxed);
        self.state.kept.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{Batch, Lsn};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// The state of a cut; a key that comes twice fails the test.
    fn state_of(cut: Cut<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let (mut state, lsn) = (BTreeMap::new(), cut.position.lsn.get());
        let visited = cut.visit(|key, entry| {
            assert!(entry.lsn <= lsn);
            assert_eq!(state.insert(key.to_vec(), entry.value.to_vec()), None, "a key came twice");
            Ok::<(), ()>(())
        });
        visited.unwrap();
        state
    }

    #[test]
    fn a_cut_is_the_state_at_its_beginning() {
        let table = Table::empty();
        for key in 0..20u8 {
            table.put(&[key], b"old").unwrap();
        }
        let before: BTreeMap<_, _> = (0..20u8).map(|key| (vec![key], b"old".to_vec())).collect();
        let cut = table.begin_cut();
        for (key, value) in [(1, "new"), (1, "newer"), (99, "fresh")] {
            table.put(&[key], value.as_bytes()).unwrap();
        }
        assert!(table.delete(&[2]).unwrap().is_some());
        assert!(table.delete(&[3]).unwrap().is_some());
        table.put(&[3], b"back").unwrap();
        assert!(table.delete(&[3]).unwrap().is_some());
        let mut batch = Batch::new();
        batch.put(&[4], b"batch").delete(&[5]).delete(&[77]).put(&[4], b"again");
        assert_eq!(table.apply(&batch).unwrap(), Some(Lsn::new(28)));
        assert_eq!(state_of(cut), before);

        // The next one keeps nothing of this one.
        let after = state_of(table.begin_cut());
        assert_eq!(after.get([1].as_slice()), Some(&b"newer".to_vec()));
        assert_eq!((after.len(), after.get([4].as_slice())), (18, Some(&b"again".to_vec())));
        assert_eq!(table.live_bytes(), after.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum::<u64>());
    }

    #[test]
    fn entries_replaced_while_shards_are_copied_come_once() {
        let table = Table::empty();
        for key in 0..2000u64 {
            table.put(&key.to_le_bytes(), b"old").unwrap();
        }
        let (mut visited, mut victims) = (BTreeSet::new(), (0..2000u64).rev());
        let result = table.begin_cut().visit(|key, entry| {
            assert!(visited.insert(key.to_vec()), "a key came twice");
            assert_eq!(&*entry.value, b"old");
            // Some victims lie in shards copied already, some in ones to come.
            let victim = victims.next().unwrap().to_le_bytes();
            if victim[0].is_multiple_of(2) {
                table.put(&victim, b"new").unwrap();
            } else {
                table.delete(&victim).unwrap();
                table.put(&victim, b"back").unwrap();
            }
            Ok::<(), ()>(())
        });
        result.unwrap();
        assert_eq!((visited.len(), table.len()), (2000, 2000));
    }

    #[test]
    fn a_cut_given_up_leaves_nothing() {
        let table = Table::empty();
        table.put(b"a", b"1").unwrap();
        let cut = table.begin_cut();
        table.put(b"a", b"2").unwrap();
        cut.visit(|_, _| Err(())).unwrap_err();
        table.put(b"a", b"3").unwrap();
        let state = state_of(table.begin_cut());
        assert_eq!(state, BTreeMap::from([(b"a".to_vec(), b"3".to_vec())]));
    }

    /// A put, a delete, or a batch of two.
    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u8),
        Delete(u8),
        Batch(u8, u8, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || 0..12u8;
        prop_oneof![
            (key(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
            key().prop_map(Step::Delete),
            (key(), key(), any::<u8>()).prop_map(|(put, gone, value)| Step::Batch(put, gone, value)),
        ]
    }

    fn take(step: &Step, table: &Table, model: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        match *step {
            Step::Put(key, value) => {
                table.put(&[key], &[value]).unwrap();
                model.insert(vec![key], vec![value]);
            }
            Step::Delete(key) => {
                let found = table.delete(&[key]).unwrap().is_some();
                assert_eq!(model.remove([key].as_slice()).is_some(), found);
            }
            Step::Batch(put, gone, value) => {
                let mut batch = Batch::new();
                batch.put(&[put], &[value]).delete(&[gone]);
                table.apply(&batch).unwrap();
                model.insert(vec![put], vec![value]);
                model.remove([gone].as_slice());
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_changes_during_a_cut_it_stays_the_state_at_its_beginning(
            before in vec(step(), 0..40),
            // Before the first shard is copied, and after each entry visited.
            at_once in vec(step(), 0..10),
            during in vec(vec(step(), 0..4), 0..12),
        ) {
            let (table, mut model) = (Table::empty(), BTreeMap::new());
            for step in &before {
                take(step, &table, &mut model);
            }
            let expected = model.clone();
            let (cut, mut state, mut during) = (table.begin_cut(), BTreeMap::new(), during.iter());
            for step in &at_once {
                take(step, &table, &mut model);
            }
            let visited = cut.visit(|key, entry| {
                assert_eq!(state.insert(key.to_vec(), entry.value.to_vec()), None, "a key came twice");
                during.next().into_iter().flatten().for_each(|step| take(step, &table, &mut model));
                Ok::<(), ()>(())
            });
            visited.unwrap();
            prop_assert_eq!(state, expected);
            prop_assert_eq!(state_of(table.begin_cut()), model);
        }
    }
}
