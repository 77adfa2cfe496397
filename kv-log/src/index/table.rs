//! The entries of one shard: open addressing in buckets of one cache line, so that most look-ups
//! cost one cache miss.
//!
//! The top of a key's tag names its home bucket. If that is full, the key goes to the next bucket
//! with an empty entry (linear probing, Knuth, "The Art of Computer Programming", volume 3, section
//! 6.4, by buckets). The taken entries of a bucket come first, so the first empty entry ends a
//! search. A removal moves a later entry that probed past the gap back into it, so there are no
//! markers for removed keys.
//!
//! One writer at a time changes the table, while readers look. [`Shard`](super::shard::Shard) tells
//! how.

use std::io;
use std::ptr::NonNull;

use super::entry::{Entry, TAG_BITS};
use crate::memory::{Mapped, Plain};
use crate::segments::Location;
use crate::sync::{AtomicU64, Ordering};

/// Few in a model, so that it soon has many buckets.
const ENTRIES_PER_BUCKET: usize = if cfg!(all(test, shuttle)) { 2 } else { 8 };

/// Of 8 entries in a bucket, 6.5 may be taken on average: then about a fifth of the keys are not at
/// home.
const LOAD_MAX: (usize, usize) = (13, 16);

/// A cache line of entries. 0 is an empty entry.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket([AtomicU64; ENTRIES_PER_BUCKET]);

// SAFETY: entries are numbers, and 0 is an empty one. (A model's entries are not numbers, but a
// model maps no memory.)
unsafe impl Plain for Bucket {}

/// From this many buckets on, they have a mapping of their own, which fills whole pages: 128 KiB.
/// The mapping of smaller tables took longer than their use: recovery of a million keys ran at half
/// its pace.
const MAPPED_MIN: usize = if cfg!(all(test, shuttle)) { usize::MAX } else { 2048 };

/// Buckets in a page.
const BUCKETS_PER_PAGE: usize = 64;

#[derive(Debug)]
pub(super) struct Table {
    /// In `map`, or from `Box::into_raw`.
    buckets: NonNull<[Bucket]>,
    map: Option<Mapped<Bucket>>,
}

// SAFETY: only the table uses the pointer, and it leads to atomics.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Drop for Table {
    fn drop(&mut self) {
        if self.map.is_none() {
            // SAFETY: it came from `Box::into_raw`, and only this takes it back.
            drop(unsafe { Box::from_raw(self.buckets.as_ptr()) });
        }
    }
}

/// Entries of so many buckets that may be taken.
#[inline]
fn max_len(buckets: usize) -> usize {
    buckets * ENTRIES_PER_BUCKET * LOAD_MAX.0 / LOAD_MAX.1
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    bucket: usize,
    index: usize,
}

impl Bucket {
    fn new() -> Self {
        Bucket(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    #[inline]
    fn get(&self, index: usize) -> Option<Entry> {
        // Acquire pairs with the Release store of the entry: a reader that sees a location sees the
        // record there, and the odd version of the shard.
        Entry::from_bits(self.entry(index).load(Ordering::Acquire))
    }

    fn set(&self, index: usize, entry: Option<Entry>) {
        self.entry(index).store(entry.map_or(0, Entry::bits), Ordering::Release);
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "callers count to the number of entries")]
    fn entry(&self, index: usize) -> &AtomicU64 {
        &self.0[index]
    }

    /// The entries with this tag, one bit each, and whether the bucket is full. An empty entry has
    /// the tag 0.
    ///
    /// It takes no branch on an entry. The place of an entry is random, so a processor would
    /// mispredict the end of a loop over the entries, and would wait there instead of overlapping
    /// the next look-up.
    #[inline]
    fn matches(&self, tag: u64) -> (u32, bool) {
        let (mut matches, wanted) = (0, tag << Location::BITS);
        // From the last entry to the first, each is shifted in.
        for index in (0..ENTRIES_PER_BUCKET).rev() {
            // As in `get`.
            let entry = self.entry(index).load(Ordering::Acquire);
            matches = (matches << 1) | u32::from(entry ^ wanted < 1 << Location::BITS);
        }
        (matches, self.is_full())
    }

    fn taken(&self) -> usize {
        (0..ENTRIES_PER_BUCKET).find(|index| self.get(*index).is_none()).unwrap_or(ENTRIES_PER_BUCKET)
    }

    fn is_full(&self) -> bool {
        self.get(ENTRIES_PER_BUCKET - 1).is_some()
    }
}

impl Table {
    pub(super) fn new() -> Self {
        let one = [Bucket::new()];
        Table { buckets: NonNull::from(Box::leak(Box::<[Bucket]>::from(one))), map: None }
    }

    /// # Errors
    /// The system has no memory for it.
    fn with_buckets(count: usize) -> io::Result<Self> {
        #[cfg(all(test, not(shuttle)))]
        gate::check()?;
        if count >= MAPPED_MIN
            && let Ok(mut map) = Mapped::zeroed(count)
        {
            return Ok(Table { buckets: NonNull::from(&mut *map), map: Some(map) });
        }
        let mut buckets = Vec::new();
        buckets.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        buckets.extend((0..count).map(|_| Bucket::new()));
        Ok(Table { buckets: NonNull::from(Box::leak(buckets.into_boxed_slice())), map: None })
    }

    #[inline]
    fn buckets(&self) -> &[Bucket] {
        // SAFETY: they live as long as the table, and change only as atomics do.
        unsafe { self.buckets.as_ref() }
    }

    /// Entries that may be taken before it has to grow; fewer than there are, so every search ends.
    pub(super) fn max_len(&self) -> usize {
        max_len(self.buckets().len())
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        let buckets = self.map.as_ref().map_or(size_of_val(self.buckets()), Mapped::allocated_bytes);
        buckets + size_of::<Self>()
    }

    /// A larger one with the same entries, and with room for `len`: by half, so that at least 54 %
    /// of them are taken, and a key costs at most 14.8 bytes. Homes keep their order, so both are
    /// walked from front to back.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub(super) fn grown(&self, len: usize) -> io::Result<Self> {
        let mut count = self.buckets().len();
        while max_len(count) < len {
            let larger = count * 3 / 2 + 1;
            let in_page = if larger < MAPPED_MIN { 1 } else { BUCKETS_PER_PAGE };
            count = larger / in_page * in_page;
        }
        let next = Table::with_buckets(count)?;
        next.fill(self.iter());
        Ok(next)
    }

    /// The first entry with this tag, in the order of probing, whose location is `wanted`.
    #[inline]
    pub(super) fn find(
        &self,
        tag: u64,
        mut wanted: impl FnMut(Location) -> bool,
    ) -> Option<(Place, Location)> {
        let mut at = self.home(tag);
        // Bounded, for a reader that looks while a writer changes the table.
        for _ in 0..self.buckets().len() {
            let bucket = self.bucket(at);
            let (mut matches, is_full) = bucket.matches(tag);
            while matches != 0 {
                let index = matches.trailing_zeros() as usize;
                // An empty entry ends the search: all later ones are empty, too.
                let location = bucket.get(index)?.location();
                if wanted(location) {
                    return Some((Place { bucket: at, index }, location));
                }
                matches &= matches - 1;
            }
            if !is_full {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// The cache line at which a search for `tag` begins.
    #[inline]
    pub(super) fn home_line(&self, tag: u64) -> *const u8 {
        std::ptr::from_ref(self.bucket(self.home(tag))).cast()
    }

    /// Puts the entry of an absent key into the first empty place. There must be one.
    pub(super) fn insert(&self, entry: Entry) {
        let mut at = self.home(entry.tag());
        while self.bucket(at).is_full() {
            at = self.next(at);
        }
        let bucket = self.bucket(at);
        bucket.set(bucket.taken(), Some(entry));
    }

    /// Inserts the entries of absent keys, and returns how many they were. It is fastest in the
    /// order of another table: then it need not look for the first empty place.
    pub(super) fn fill(&self, entries: impl Iterator<Item = Entry>) -> usize {
        let mut filled = 0;
        // `taken` entries of bucket `at` are taken. The buckets from `full_from` to the one before
        // are full. So an entry whose home is among them, or is `at`, goes into `at`.
        let (mut full_from, mut at, mut taken) = (0, 0, self.bucket(0).taken());
        for entry in entries {
            filled += 1;
            let home = self.home(entry.tag());
            if home > at || home < full_from {
                let follows = home == at + 1 && taken == ENTRIES_PER_BUCKET;
                full_from = if follows { full_from } else { home };
                (at, taken) = (home, self.bucket(home).taken());
            }
            while taken == ENTRIES_PER_BUCKET && at + 1 < self.buckets().len() {
                at += 1;
                taken = self.bucket(at).taken();
            }
            if taken == ENTRIES_PER_BUCKET {
                // The last bucket is full.
                self.insert(entry);
                taken = self.bucket(at).taken();
            } else {
                self.bucket(at).set(taken, Some(entry));
                taken += 1;
            }
        }
        filled
    }

    pub(super) fn replace(&self, at: Place, entry: Entry) {
        self.bucket(at.bucket).set(at.index, Some(entry));
    }

    /// Empties an entry, and fills the gap with a later entry that probed past its bucket.
    pub(super) fn remove(&self, at: Place) {
        let mut gap = at;
        loop {
            let bucket = self.bucket(gap.bucket);
            let last = bucket.taken() - 1;
            bucket.set(gap.index, bucket.get(last));
            bucket.set(last, None);
            let was_full = last == ENTRIES_PER_BUCKET - 1;
            let Some(from) = was_full.then(|| self.probed_past(gap.bucket)).flatten() else { return };
            bucket.set(last, self.bucket(from.bucket).get(from.index));
            gap = from;
        }
    }

    /// A later entry that would be in `bucket` if there had been room.
    fn probed_past(&self, bucket: usize) -> Option<Place> {
        let mut at = self.next(bucket);
        while at != bucket {
            let candidates = self.bucket(at);
            for index in 0..ENTRIES_PER_BUCKET {
                let entry = candidates.get(index)?;
                if self.distance(self.home(entry.tag()), at) >= self.distance(bucket, at) {
                    return Some(Place { bucket: at, index });
                }
            }
            at = self.next(at);
        }
        None
    }

    /// All entries, in the order of buckets.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        self.buckets().iter().flat_map(|bucket| (0..ENTRIES_PER_BUCKET).map_while(|index| bucket.get(index)))
    }

    /// The first bucket of a tag: its share of all tags, so that growing keeps the order.
    #[inline]
    fn home(&self, tag: u64) -> usize {
        ((u128::from(tag) * self.buckets().len() as u128) >> TAG_BITS) as usize
    }

    #[inline]
    fn next(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets().len() { 0 } else { bucket + 1 }
    }

    /// Steps from one bucket to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.buckets().len() - from }
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "`home` and `next` stay below the number of buckets")]
    fn bucket(&self, at: usize) -> &Bucket {
        &self.buckets()[at]
    }
}

/// Refuses memory to the tables of this thread's changes, for tests.
#[cfg(all(test, not(shuttle)))]
pub(crate) mod gate {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static IS_SHUT: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn shut(is_shut: bool) {
        IS_SHUT.set(is_shut);
    }

    pub(super) fn check() -> io::Result<()> {
        if IS_SHUT.get() { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn entry(tag: u64, number: usize) -> Entry {
        Entry::new(tag, Location::new(3, number * 8))
    }

    #[test]
    fn every_key_costs_at_most_sixteen_bytes_once_there_are_some() {
        let mut table = Table::new();
        let mut len = 0_usize;
        while len < 100_000 {
            if len == table.max_len() {
                table = table.grown(len + 1).unwrap();
                assert!(len < 64 || table.allocated_bytes() <= 16 * (len + 1), "{len}");
            }
            table.insert(entry((len as u64).wrapping_mul(0x9e37_79b9) & 0xff_ffff, len + 1));
            len += 1;
        }
        assert_eq!(table.iter().count(), 100_000);
    }

    /// Compares the table with a map. Few buckets and colliding tags crowd the last bucket, so that
    /// probing wraps around.
    #[test]
    fn finds_exactly_what_is_there() {
        let mut rng = fastrand::Rng::with_seed(7);
        for crowd in [1, 3, 1 << 22] {
            let mut table = Table::new();
            let mut model: HashMap<usize, u64> = HashMap::new();
            for step in 0..30_000 {
                let number = rng.usize(1..400);
                let at = model.get(&number).copied();
                match at {
                    None => {
                        if model.len() == table.max_len() {
                            table = table.grown(model.len() + 1).unwrap();
                        }
                        let tag = (1 << TAG_BITS) - 1 - rng.u64(0..crowd);
                        table.insert(entry(tag, number));
                        model.insert(number, tag);
                    }
                    // At times, more keys are removed than added.
                    Some(tag) if rng.usize(..10) < if step % 4000 < 2000 { 4 } else { 9 } => {
                        let wanted = entry(tag, number).location();
                        let (position, _) = table.find(tag, |location| location == wanted).unwrap();
                        table.remove(position);
                        model.remove(&number);
                    }
                    Some(tag) => {
                        let wanted = entry(tag, number).location();
                        let (position, _) = table.find(tag, |location| location == wanted).unwrap();
                        table.replace(position, entry(tag, number + 1000));
                        assert_eq!(table.find(tag, |location| location == wanted), None);
                        table.replace(position, entry(tag, number));
                    }
                }
                if step % 16 == 0 {
                    for (number, tag) in &model {
                        let wanted = entry(*tag, *number).location();
                        assert!(table.find(*tag, |location| location == wanted).is_some(), "step {step}");
                    }
                }
                assert_eq!(table.iter().count(), model.len());
            }
        }
    }

    #[test]
    fn an_empty_entry_is_not_found_by_its_tag() {
        let table = Table::new().grown(20).unwrap();
        assert_eq!(table.find(0, |_| true), None);
        // As many as a bucket holds, and one more: the next bucket is searched, too.
        for number in 1..=ENTRIES_PER_BUCKET + 1 {
            let wanted = entry(0, number).location();
            table.insert(entry(0, number));
            assert_eq!(table.find(0, |location| location == wanted).map(|(_, found)| found), Some(wanted));
            assert_eq!(table.find(0, |_| false), None);
        }
    }

    /// From a table of any size, also if many homes are in the last bucket, and in any order.
    #[test]
    fn a_filled_table_holds_exactly_the_entries() {
        let mut rng = fastrand::Rng::with_seed(3);
        for round in 0..200 {
            let crowd = *rng.choice(&[1, 3, 1 << 23]).unwrap();
            let len = rng.usize(1..300);
            let from = Table::new().grown(len * rng.usize(1..3)).unwrap();
            let tag = || (1 << TAG_BITS) - 1 - rng.u64(0..crowd);
            let mut entries: Vec<Entry> =
                std::iter::repeat_with(tag).take(len).zip(1..).map(|(tag, at)| entry(tag, at)).collect();
            for entry in &entries {
                from.insert(*entry);
            }
            if round % 2 == 0 {
                entries = from.iter().collect();
            }
            let table = Table::new().grown(len).unwrap();
            let (one, two) = entries.split_at(len / 3);
            assert_eq!(
                (table.fill(one.iter().copied()), table.fill(two.iter().copied())),
                (one.len(), two.len())
            );
            assert_eq!(table.iter().count(), len);
            for entry in entries {
                let is_it = |location| location == entry.location();
                assert!(table.find(entry.tag(), is_it).is_some(), "round {round}");
            }
        }
    }

    #[test]
    fn a_table_grows_at_once_to_the_room_that_is_asked_for() {
        let table = Table::new();
        table.insert(entry(5, 1));
        for len in [2, 7, 100, 13_312, 50_000] {
            let grown = table.grown(len).unwrap();
            assert!((len..=2 * len.max(8)).contains(&grown.max_len()), "{len}: {}", grown.max_len());
            assert_eq!(grown.iter().count(), 1);
        }
        // The kernel has no such mapping to give.
        assert_eq!(table.grown(1 << 55).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }

    #[test]
    fn a_search_asks_only_about_its_own_tag() {
        let table = Table::new();
        table.insert(entry(5, 1));
        table.insert(entry(6, 2));
        let mut asked = Vec::new();
        let found = table.find(6, |location| {
            asked.push(location);
            false
        });
        assert_eq!((found, asked), (None, vec![entry(6, 2).location()]));
    }
}
