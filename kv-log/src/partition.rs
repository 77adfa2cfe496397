//! A table of keys in parts, which threads fill together. A thread that has read a file first sorts
//! its changes by part, and then locks one part after the other. So threads seldom wait, and the
//! processor's caches hold the part that a thread works on.
//!
//! A part is a [`KeyTable`].

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Number of the parts.
pub(crate) const PARTS: usize = 16;

/// Hashes keys, which decides their parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partition(RandomState);

/// A key with its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashedKey<'a> {
    bytes: &'a [u8],
    hash: u64,
}

impl Partition {
    pub(crate) fn hash<'a>(&self, key: &'a [u8]) -> HashedKey<'a> {
        HashedKey { bytes: key, hash: self.0.hash_one(key) }
    }
}

impl HashedKey<'_> {
    /// The number of the part of this key.
    pub(crate) fn part(&self) -> usize {
        // A hash table uses the lowest bits and the highest ones.
        let part = self.hash.rotate_left(u64::BITS / 2) % PARTS as u64;
        usize::try_from(part).unwrap_or_default()
    }
}

/// A hash table. All its keys lie in one allocation.
#[derive(Debug)]
pub(crate) struct KeyTable<T> {
    entries: HashTable<Entry<T>>,
    /// The bytes of the keys.
    keys: Vec<u8>,
}

#[derive(Debug)]
struct Entry<T> {
    hash: u64,
    /// The place of its key.
    start: usize,
    len: u32,
    value: T,
}

impl<T> Entry<T> {
    fn key<'a>(&self, keys: &'a [u8]) -> &'a [u8] {
        keys.get(self.start..).and_then(|rest| rest.get(..self.len as usize)).unwrap_or_default()
    }
}

impl<T> Default for KeyTable<T> {
    fn default() -> Self {
        KeyTable { entries: HashTable::new(), keys: Vec::new() }
    }
}

impl<T: Default> KeyTable<T> {
    /// The value of `key`, which a new key gets.
    pub(crate) fn get_or_default(&mut self, key: HashedKey<'_>) -> &mut T {
        let KeyTable { entries, keys } = self;
        let is_it = |entry: &Entry<T>| entry.hash == key.hash && entry.key(keys) == key.bytes;
        let entry = entries.entry(key.hash, is_it, |entry| entry.hash).or_insert_with(|| {
            let start = keys.len();
            keys.extend_from_slice(key.bytes);
            let len = u32::try_from(key.bytes.len()).expect("a key is shorter than 4 GiB");
            Entry { hash: key.hash, start, len, value: T::default() }
        });
        &mut entry.into_mut().value
    }
}

impl<T> KeyTable<T> {
    pub(crate) fn get(&self, key: HashedKey<'_>) -> Option<&T> {
        let is_it = |entry: &Entry<T>| entry.hash == key.hash && entry.key(&self.keys) == key.bytes;
        self.entries.find(key.hash, is_it).map(|entry| &entry.value)
    }

    /// Every key with its value, in any order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &T)> {
        self.entries.iter().map(|entry| (entry.key(&self.keys), &entry.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_part_gets_its_share_of_the_keys() {
        let partition = Partition::default();
        let mut counts = [0; PARTS];
        for key in 0..16_000_u32 {
            let part = partition.hash(&key.to_le_bytes()).part();
            assert_eq!(part, partition.clone().hash(&key.to_le_bytes()).part());
            counts[part] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_key_table_is_a_map() {
        let partition = Partition::default();
        let (mut table, mut model) = (KeyTable::<u32>::default(), HashMap::new());
        for number in 0..5000_u32 {
            // Keys of every length from 0 on, most of them twice.
            let key = "k".repeat((number % 300) as usize) + &(number % 9).to_string();
            let key = if number % 300 == 0 { String::new() } else { key };
            let value = table.get_or_default(partition.hash(key.as_bytes()));
            assert_eq!(*value, model.get(&key).copied().unwrap_or_default());
            *value = number;
            model.insert(key, number);
        }
        assert_eq!(table.iter().count(), model.len());
        assert!(table.iter().all(|(key, value)| model[std::str::from_utf8(key).unwrap()] == *value));
        for (key, value) in &model {
            assert_eq!(table.get(partition.hash(key.as_bytes())), Some(value));
        }
        assert_eq!(table.get(partition.hash(b"absent")), None);
    }

    /// Keys with the same hash are told apart by their bytes.
    #[test]
    fn hashes_may_be_equal() {
        let mut table = KeyTable::<u32>::default();
        for number in 0..100_u32 {
            *table.get_or_default(HashedKey { bytes: &number.to_le_bytes(), hash: 7 }) = number;
        }
        for number in 0..100_u32 {
            assert_eq!(table.get(HashedKey { bytes: &number.to_le_bytes(), hash: 7 }), Some(&number));
        }
        assert_eq!(table.get(HashedKey { bytes: b"", hash: 7 }), None);
    }
}
