//! The sorted map, split into leaves. Copies share their leaves until one of them changes.

use kv_core::{Scale, Value};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Arc<[u8]>,
    pub(crate) value: Value,
}

/// Sorted by key; never empty.
pub(crate) type Leaf = Vec<Entry>;

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// Sorted by their first keys.
    pub(crate) leaves: Vec<Arc<Leaf>>,
    /// Most entries of a leaf.
    capacity: usize,
}

impl Tree {
    pub(crate) fn new(scale: Scale) -> Self {
        let capacity = if scale == Scale::Tiny { 16 } else { 256 };
        Tree { leaves: Vec::new(), capacity }
    }

    /// The number of the leaf where `key` belongs.
    pub(crate) fn leaf_of(&self, key: &[u8]) -> usize {
        let begins_before = |leaf: &Arc<Leaf>| leaf.first().is_some_and(|first| *first.key <= *key);
        self.leaves.partition_point(begins_before).saturating_sub(1)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Value> {
        let leaf = self.leaves.get(self.leaf_of(key))?;
        let at = leaf.binary_search_by(|entry| (*entry.key).cmp(key)).ok()?;
        leaf.get(at).map(|entry| &entry.value)
    }

    /// Returns the value that was there.
    pub(crate) fn insert(&mut self, key: &[u8], value: Value) -> Option<Value> {
        let number = self.leaf_of(key);
        let capacity = self.capacity;
        let Some(leaf) = self.leaves.get_mut(number) else {
            self.leaves.push(Arc::new(vec![Entry { key: key.into(), value }]));
            return None;
        };
        let leaf = Arc::make_mut(leaf);
        match leaf.binary_search_by(|entry| (*entry.key).cmp(key)) {
            Ok(at) => leaf.get_mut(at).map(|entry| std::mem::replace(&mut entry.value, value)),
            Err(at) => {
                leaf.insert(at, Entry { key: key.into(), value });
                if leaf.len() > capacity {
                    let upper = leaf.split_off(leaf.len() / 2);
                    self.leaves.insert(number + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    /// Whether `key` is absent and would split its leaf.
    pub(crate) fn would_split(&self, key: &[u8]) -> bool {
        self.leaves.get(self.leaf_of(key)).is_some_and(|leaf| leaf.len() >= self.capacity)
            && self.get(key).is_none()
    }

    /// Returns the value that was there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Value> {
        let number = self.leaf_of(key);
        let leaf = self.leaves.get_mut(number)?;
        let at = leaf.binary_search_by(|entry| (*entry.key).cmp(key)).ok()?;
        let leaf = Arc::make_mut(leaf);
        let removed = leaf.remove(at);
        if leaf.is_empty() {
            self.leaves.remove(number);
        } else {
            self.merge(number);
        }
        Some(removed.value)
    }

    /// Merges a leaf with the next one if both are nearly empty.
    fn merge(&mut self, number: usize) {
        let len = |number: usize| self.leaves.get(number).map(|leaf| leaf.len());
        let (Some(this), Some(next)) = (len(number), len(number + 1)) else { return };
        if this + next <= self.capacity / 2 {
            let next = self.leaves.remove(number + 1);
            if let Some(leaf) = self.leaves.get_mut(number) {
                Arc::make_mut(leaf).extend(next.iter().cloned());
            }
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.leaves.iter().flat_map(|leaf| leaf.iter())
    }
}
