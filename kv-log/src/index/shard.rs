//! One shard of the index: many readers without a lock, one writer at a time.
//!
//! # Invariants
//!
//! 1. A writer holds `writer`. It makes `version` odd before its first change to an entry. After
//!    its last change, and after the change was counted, it makes `version` even again (a sequence
//!    lock; see Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?", 2012).
//! 2. A reader accepts its result only if `version` was even before and is the same afterwards:
//!    then it saw the shard between two changes. Entries are loaded with Acquire and stored with
//!    Release, so a reader that saw a part of a change also sees that `version` moved.
//! 3. A table that a larger one has replaced never changes again. It lives until every reader that
//!    was pinned at that time has unpinned. A location that such a reader finds in it was right
//!    when the table was replaced, and that was during the reader's look-up.
//! 4. A commit changes a shard while it holds the commit lock. It locks the shard before and
//!    unlocks it after. So `version` is odd before a later change is made. A reader that sees the
//!    later change, in any shard, and then looks here, waits for this one. So readers see changes
//!    in the order in which they were committed.
//! 5. When compaction replaces a location, both locations lead to the same record, and to no other
//!    while a reader is pinned. So a relocation does not move the version, and readers need not
//!    look again.
//!
//! Readers never make a writer wait. A reader waits while a writer has begun and not finished a
//! change: for a batch, from its first index change in the shard until its last record is in the
//! log.

use std::io;
use std::ptr;

use super::entry::Entry;
use super::replaced::Replaced;
use super::table::{Place, Table};
use crate::reclaim::Guard;
use crate::segments::Location;
use crate::sync::{AtomicPtr, AtomicUsize, Mutex, MutexGuard, Ordering, back_off};

/// It has cache lines of its own, so that changes to one shard do not slow readers of the next.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Shard {
    /// From `Box::into_raw`. It lies apart from the fields that every change writes, because every
    /// reader loads it.
    table: AtomicPtr<Table>,
    changes: Changes,
}

/// So many times, a copy of a shard is tried while writers go on.
const COPIES_BESIDE_WRITERS: usize = 4;

/// The result of one short look at a tag.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TagMatch {
    /// A key with this tag is present. It is most often the wanted one.
    Likely(Location),
    Absent,
    /// A writer changes the shard.
    Unsure,
}

/// The fields that every change writes.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Changes {
    /// Odd while entries change.
    version: AtomicUsize,
    writer: Mutex<()>,
    /// Entries taken. Changed by the writer.
    len: AtomicUsize,
    /// Bytes of the present keys and their values. Changed by the writer.
    pair_bytes: AtomicUsize,
}

impl Default for Shard {
    fn default() -> Self {
        let table = AtomicPtr::new(Box::into_raw(Box::new(Table::new())));
        Shard { table, changes: Changes::default() }
    }
}

impl Shard {
    /// The location with this tag that is `wanted`. May ask about a location more than once, and
    /// about outdated ones; all lead to records while `guard` lives.
    #[inline]
    pub(super) fn find(
        &self,
        tag: u64,
        guard: &Guard,
        mut wanted: impl FnMut(Location) -> bool,
    ) -> Option<Location> {
        let mut turns = 0;
        loop {
            // Acquire pairs with the Release in `LockedShard::drop`: the reader sees all entries
            // and sums of the changes up to this version.
            let version = self.changes.version.load(Ordering::Acquire);
            if version.is_multiple_of(2) {
                let found = self.table(guard).find(tag, &mut wanted);
                // The Acquire loads of the entries keep this load behind them: see invariant 2.
                if self.changes.version.load(Ordering::Relaxed) == version {
                    return found.map(|(_, location)| location);
                }
            }
            back_off(&mut turns);
        }
    }

    /// As [`find`](Self::find), of any location with this tag, and without waiting.
    #[expect(clippy::inline_always, reason = "a look-up has no instruction to spare")]
    #[inline(always)]
    pub(super) fn match_tag(&self, tag: u64, guard: &Guard) -> TagMatch {
        let version = self.changes.version.load(Ordering::Acquire);
        if !version.is_multiple_of(2) {
            return TagMatch::Unsure;
        }
        let found = self.table(guard).find(tag, |_| true);
        // As in `find`.
        if self.changes.version.load(Ordering::Relaxed) != version {
            return TagMatch::Unsure;
        }
        found.map_or(TagMatch::Absent, |(_, location)| TagMatch::Likely(location))
    }

    /// Calls `copy` with the table and [`pair_bytes`](Self::pair_bytes), again and again until no
    /// change was made meanwhile. What the last call saw is the state between two changes. After
    /// four calls, writers wait for one more.
    pub(super) fn copy(&self, guard: &Guard, mut copy: impl FnMut(&Table, usize)) {
        for _ in 0..COPIES_BESIDE_WRITERS {
            // The loads have the order of those in `find`.
            let version = self.changes.version.load(Ordering::Acquire);
            if version.is_multiple_of(2) {
                copy(self.table(guard), self.pair_bytes());
                if self.changes.version.load(Ordering::Relaxed) == version {
                    return;
                }
            }
        }
        let locked = self.lock();
        copy(locked.table(), self.pair_bytes());
    }

    /// The current table, or one that was current while this reader was pinned.
    #[inline]
    pub(super) fn table<'g>(&self, _guard: &'g Guard) -> &'g Table {
        // Acquire pairs with the swap in `grow`: the table is complete.
        // SAFETY: the pointer came from `Box::into_raw`. `grow` defers the drop of a replaced table
        // until every reader that was pinned at that time has unpinned. A reader that is pinned
        // later does not load it.
        unsafe { &*self.table.load(Ordering::Acquire) }
    }

    /// The cache line that every look-up and every change looks at first.
    #[inline]
    pub(super) fn line(&self) -> *const u8 {
        ptr::from_ref(&self.changes).cast()
    }

    /// Number of present keys.
    pub(super) fn len(&self) -> usize {
        self.changes.len.load(Ordering::Relaxed)
    }

    /// Bytes of the present keys and their values.
    pub(super) fn pair_bytes(&self) -> usize {
        // An estimate that was too low may have come below 0.
        let bytes = self.changes.pair_bytes.load(Ordering::Acquire);
        if bytes > isize::MAX as usize { 0 } else { bytes }
    }

    pub(super) fn lock(&self) -> LockedShard<'_> {
        LockedShard { _writer: self.changes.writer.lock(), shard: self, changing: false }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        // SAFETY: no reader is left, and `grow` has handed over the tables that were replaced
        // before.
        drop(unsafe { Box::from_raw(self.table.load(Ordering::Relaxed)) });
    }
}

/// A shard, locked for changes. They become visible together, when it is dropped.
#[derive(Debug)]
pub(crate) struct LockedShard<'a> {
    shard: &'a Shard,
    _writer: MutexGuard<'a, ()>,
    /// Whether `version` is odd.
    changing: bool,
}

impl LockedShard<'_> {
    fn table(&self) -> &Table {
        // SAFETY: tables are replaced only by the holder of `writer`, through `&mut self`.
        unsafe { &*self.shard.table.load(Ordering::Relaxed) }
    }

    /// As [`Shard::find`], with the place.
    #[inline]
    pub(super) fn find(&self, tag: u64, wanted: impl FnMut(Location) -> bool) -> Option<(Place, Location)> {
        self.table().find(tag, wanted)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.table().iter()
    }

    /// Makes room for more entries. Changes nothing that a reader sees. A table that is too small
    /// goes to `replaced`.
    ///
    /// # Errors
    /// The system has no memory for a larger table.
    #[inline]
    pub(super) fn reserve(&mut self, entries: usize, replaced: &Replaced) -> io::Result<()> {
        let len = self.shard.len() + entries;
        if len > self.table().max_len() { self.grow(len, replaced) } else { Ok(()) }
    }

    /// Adds the entry of an absent key. The caller has [reserved](Self::reserve) room for it.
    pub(super) fn insert(&mut self, entry: Entry) {
        let len = self.shard.len();
        debug_assert!(len < self.table().max_len(), "no room was reserved");
        self.shard.changes.len.store(len + 1, Ordering::Relaxed);
        self.begin();
        self.table().insert(entry);
    }

    /// Adds the entries of absent keys. The caller has [reserved](Self::reserve) room for them.
    pub(super) fn fill(&mut self, entries: impl Iterator<Item = Entry>) {
        self.begin();
        let room = self.table().max_len() - self.shard.len();
        let entries = entries.zip(0..).map(|(entry, before)| {
            debug_assert!(before < room, "no room was reserved");
            entry
        });
        let len = self.shard.len() + self.table().fill(entries);
        self.shard.changes.len.store(len, Ordering::Relaxed);
    }

    pub(super) fn replace(&mut self, at: Place, entry: Entry) {
        self.begin();
        self.table().replace(at, entry);
    }

    /// Replaces an entry by one that leads to the same record elsewhere.
    pub(super) fn relocate(&mut self, at: Place, entry: Entry) {
        self.table().replace(at, entry);
    }

    pub(super) fn remove(&mut self, at: Place) {
        self.shard.changes.len.store(self.shard.len() - 1, Ordering::Relaxed);
        self.begin();
        self.table().remove(at);
    }

    #[cold]
    fn grow(&mut self, len: usize, replaced: &Replaced) -> io::Result<()> {
        let larger = Box::into_raw(Box::new(self.table().grown(len)?));
        let bytes = self.table().allocated_bytes();
        let smaller = self.shard.table.swap(larger, Ordering::AcqRel);
        let smaller = std::sync::atomic::AtomicPtr::new(smaller);
        // SAFETY: the pointer came from `Box::into_raw`, only this place takes it back, and no
        // reader that is pinned from now on finds it.
        replaced.free_later(bytes, move || drop(unsafe { Box::from_raw(smaller.into_inner()) }));
        Ok(())
    }

    /// Counts the bytes of added and removed pairs.
    pub(super) fn count_pairs(&mut self, added: usize, removed: usize) {
        self.begin();
        let pair_bytes = &self.shard.changes.pair_bytes;
        let after = pair_bytes.load(Ordering::Relaxed).wrapping_add(added).wrapping_sub(removed);
        // Release as for entries: a copy that sees it also sees that `version` moved.
        pair_bytes.store(after, Ordering::Release);
    }

    /// Replaces an estimate of the bytes of the present pairs.
    pub(super) fn set_pair_bytes(&self, bytes: usize) {
        self.shard.changes.pair_bytes.store(bytes, Ordering::Relaxed);
    }

    fn begin(&mut self) {
        if !self.changing {
            self.changing = true;
            // Relaxed suffices: the Release stores of the entries, which follow, publish it.
            let version = self.shard.changes.version.load(Ordering::Relaxed);
            self.shard.changes.version.store(version + 1, Ordering::Relaxed);
        }
    }
}

impl Drop for LockedShard<'_> {
    fn drop(&mut self) {
        if self.changing {
            let version = self.shard.changes.version.load(Ordering::Relaxed);
            // Release pairs with the Acquire in `Shard::find` and `Shard::match_tag`.
            self.shard.changes.version.store(version + 1, Ordering::Release);
        }
    }
}

/// Random orders of steps: `RUSTFLAGS="--cfg shuttle" cargo test -p kv-log --release --lib model`.
/// The steps are sequentially consistent, because shuttle has no weaker memory. Loom 0.7 leaves out
/// orders here: it does not see past an earlier load of the storing thread itself.
#[cfg(all(test, shuttle))]
mod model {
    use super::*;
    use crate::reclaim::pin;
    use crate::sync::AtomicU64;
    use shuttle::thread;
    use std::sync::Arc;

    fn check(model: impl Fn() + Send + Sync + 'static) {
        // Not every order: a reader can wait forever if the writer never gets a turn.
        shuttle::check_random(model, 20_000);
    }

    /// Homes in the first bucket.
    const TAG: u64 = 1;

    fn location(number: usize) -> Location {
        Location::new(0, number * 8)
    }

    fn find(shard: &Shard, number: usize) -> bool {
        shard.find(TAG, &pin(), |found| found == location(number)).is_some()
    }

    fn insert(shard: &mut LockedShard<'_>, number: usize) {
        shard.reserve(1, &Replaced::default()).expect("a model has memory");
        shard.insert(Entry::new(TAG, location(number)));
    }

    fn remove(shard: &mut LockedShard<'_>, number: usize) {
        let (at, _) = shard.find(TAG, |found| found == location(number)).expect("it was put there");
        shard.remove(at);
    }

    #[test]
    fn changes_of_two_shards_become_visible_together_and_counted() {
        check(|| {
            let store = Arc::new((Shard::default(), Shard::default(), AtomicU64::new(0)));
            let writer = Arc::clone(&store);
            let writer = thread::spawn(move || {
                let (mut one, mut other) = (writer.0.lock(), writer.1.lock());
                insert(&mut one, 1);
                insert(&mut other, 2);
                writer.2.store(1, Ordering::Relaxed);
            });
            if find(&store.0, 1) {
                assert_eq!(store.2.load(Ordering::Relaxed), 1, "visible before it was counted");
                assert!(find(&store.1, 2), "half of a batch");
            }
            writer.join().unwrap();
            assert!(find(&store.0, 1) && find(&store.1, 2));
        });
    }

    /// As a commit: the shard, then the commit lock, which is unlocked first. A reader must wait
    /// for a change that is not visible yet, if a later one is.
    #[test]
    fn changes_are_seen_in_the_order_in_which_they_were_committed() {
        check(|| {
            let store = Arc::new((Shard::default(), Shard::default(), Mutex::new(0), AtomicU64::new(0)));
            let commit = |store: &(Shard, Shard, Mutex<usize>, AtomicU64), shard: &Shard| {
                let mut shard = shard.lock();
                let mut lsn = store.2.lock();
                *lsn += 1;
                insert(&mut shard, *lsn);
                store.3.store(*lsn as u64, Ordering::Release);
                drop(lsn);
            };
            let writer = |first: bool| {
                let store = Arc::clone(&store);
                thread::spawn(move || commit(&store, if first { &store.0 } else { &store.1 }))
            };
            let writers = [writer(true), writer(false)];
            let seen = |lsn: usize| find(&store.0, lsn) || find(&store.1, lsn);
            if seen(2) {
                assert_eq!(store.3.load(Ordering::Acquire), 2, "seen before it was counted");
                assert!(seen(1), "the second change without the first");
            }
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            assert!(seen(1) && seen(2));
        });
    }

    #[test]
    fn a_reader_that_hears_of_a_change_finds_it() {
        check(|| {
            let store = Arc::new((Shard::default(), AtomicU64::new(0)));
            let writer = Arc::clone(&store);
            let writer = thread::spawn(move || {
                let mut shard = writer.0.lock();
                insert(&mut shard, 1);
                // The newest change is published while its shard is still locked.
                writer.1.store(1, Ordering::Release);
            });
            if store.1.load(Ordering::Acquire) == 1 {
                assert!(find(&store.0, 1));
            }
            writer.join().unwrap();
        });
    }

    #[test]
    fn a_copy_is_a_state_between_two_changes() {
        check(|| {
            let shard = Arc::new(Shard::default());
            let writer = Arc::clone(&shard);
            let writer = thread::spawn(move || {
                for number in 1..=3 {
                    let mut locked = writer.lock();
                    insert(&mut locked, number);
                    locked.count_pairs(10, 0);
                }
                let mut locked = writer.lock();
                remove(&mut locked, 1);
                locked.count_pairs(0, 10);
            });
            let mut copied = (0, 0);
            shard.copy(&pin(), |table, pair_bytes| copied = (table.iter().count(), pair_bytes));
            assert_eq!(copied.0 * 10, copied.1);
            writer.join().unwrap();
        });
    }

    #[test]
    fn a_key_is_found_while_a_removal_moves_it() {
        check(|| {
            let shard = Arc::new(Shard::default());
            {
                let mut locked = shard.lock();
                (1..=3).for_each(|number| insert(&mut locked, number));
            }
            let writer = Arc::clone(&shard);
            let writer = thread::spawn(move || remove(&mut writer.lock(), 1));
            assert!(find(&shard, 3), "it was there all the time");
            writer.join().unwrap();
            assert!(find(&shard, 3) && find(&shard, 2) && !find(&shard, 1));
        });
    }

    #[test]
    fn a_key_is_found_while_the_table_grows_and_as_it_is_afterwards() {
        check(|| {
            let shard = Arc::new(Shard::default());
            insert(&mut shard.lock(), 1);
            let writer = Arc::clone(&shard);
            let writer = thread::spawn(move || {
                insert(&mut writer.lock(), 2);
                remove(&mut writer.lock(), 1);
            });
            let (first, second) = (find(&shard, 1), find(&shard, 2));
            let later = find(&shard, 1);
            assert!(first || !later, "a removed key came back");
            assert!(first || find(&shard, 2) || second, "removed before the other was put");
            writer.join().unwrap();
            assert!(!find(&shard, 1) && find(&shard, 2));
        });
    }

    #[test]
    fn a_relocated_key_is_found_at_one_of_its_places() {
        check(|| {
            let shard = Arc::new(Shard::default());
            insert(&mut shard.lock(), 1);
            let writer = Arc::clone(&shard);
            let writer = thread::spawn(move || {
                let mut shard = writer.lock();
                let (at, _) = shard.find(TAG, |found| found == location(1)).expect("it was put there");
                shard.relocate(at, Entry::new(TAG, location(2)));
            });
            let found = shard.find(TAG, &pin(), |found| found == location(1) || found == location(2));
            assert!(found.is_some());
            writer.join().unwrap();
            assert!(find(&shard, 2) && !find(&shard, 1));
        });
    }
}
