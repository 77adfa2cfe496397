use std::collections::TryReserveError;
use std::hash::{BuildHasher, RandomState};

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Store `value` under `key`.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Remove `key`, if it is there.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

impl Change {
    /// The key it changes.
    pub fn key(&self) -> &[u8] {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }
}

/// Changes applied together by [`Engine::apply`](crate::Engine::apply): all or nothing.
///
/// Where a batch names a key twice, the last change wins.
///
/// ```
/// # use kv_core::Batch;
/// let mut batch = Batch::new();
/// batch.put(b"a", b"1").delete(b"b");
/// assert_eq!(batch.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds: store `value` under `key`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        self.changes.push(Change::Put { key: key.to_vec(), value: value.to_vec() });
        self
    }

    /// Adds: remove `key`.
    pub fn delete(&mut self, key: &[u8]) -> &mut Self {
        self.changes.push(Change::Delete { key: key.to_vec() });
        self
    }

    /// The changes in the order they were added, repeated keys included.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes that take effect: for each key its last one, in the order of those. O(n).
    ///
    /// # Panics
    /// When there is no memory for them.
    pub fn effective_changes(&self) -> Vec<&Change> {
        self.try_effective_changes().expect("memory for references to all changes")
    }

    /// As [`effective_changes`](Self::effective_changes), for an engine that refuses a batch which
    /// is too large for its memory.
    ///
    /// # Errors
    /// There is no memory for them: about 19 bytes for each change.
    pub fn try_effective_changes(&self) -> Result<Vec<&Change>, TryReserveError> {
        let mut last = LastOfKeys::with_capacity(self.changes.len())?;
        let mut effective = Vec::new();
        effective.try_reserve_exact(self.changes.len())?;
        effective.extend(self.changes.iter().rev().filter(|change| last.insert(change)));
        effective.reverse();
        Ok(effective)
    }

    /// How many changes were added.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Removes all changes and keeps the memory.
    pub fn clear(&mut self) {
        self.changes.clear();
    }
}

/// A set of changes by their keys: 11 bytes for each on 64-bit machines, where a `HashSet` of keys
/// takes 20 to 40.
struct LastOfKeys<'a> {
    /// Three quarters of them are taken at most. A search ends at the first free one.
    slots: Vec<Option<&'a Change>>,
    hasher: RandomState,
}

impl<'a> LastOfKeys<'a> {
    /// For up to so many changes.
    fn with_capacity(changes: usize) -> Result<Self, TryReserveError> {
        let (mut slots, len) = (Vec::new(), changes + changes / 3 + 1);
        slots.try_reserve_exact(len)?;
        slots.resize(len, None);
        Ok(LastOfKeys { slots, hasher: RandomState::new() })
    }

    /// Whether the change is the first of its key.
    fn insert(&mut self, change: &'a Change) -> bool {
        let share = u128::from(self.hasher.hash_one(change.key())) * self.slots.len() as u128;
        #[expect(clippy::cast_possible_truncation, reason = "below the length")]
        let (before, from_home) = self.slots.split_at_mut((share >> 64) as usize);
        for slot in from_home.iter_mut().chain(before) {
            match slot {
                None => {
                    *slot = Some(change);
                    return true;
                }
                Some(known) if known.key() == change.key() => return false,
                Some(_) => {}
            }
        }
        unreachable!("there are more slots than changes");
    }
}

impl FromIterator<Change> for Batch {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        Batch { changes: changes.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_of_a_key_takes_effect() {
        let mut batch = Batch::new();
        batch.put(b"a", b"1").put(b"b", b"2").delete(b"a").put(b"c", b"3").put(b"b", b"4");
        let effective: Vec<Change> = batch.effective_changes().into_iter().cloned().collect();
        let mut expected = Batch::new();
        expected.delete(b"a").put(b"c", b"3").put(b"b", b"4");
        assert_eq!(effective, expected.changes());
        assert_eq!(batch.len(), 5);
        assert!(Batch::new().effective_changes().is_empty());
    }

    #[test]
    fn of_many_keys_each_has_its_last_change() {
        let mut batch = Batch::new();
        for number in 0..10_000_u32 {
            batch.put(&(number % 3001).to_le_bytes(), &number.to_le_bytes());
        }
        let effective = batch.effective_changes();
        assert_eq!(effective, batch.changes().iter().skip(10_000 - 3001).collect::<Vec<_>>());
    }
}
