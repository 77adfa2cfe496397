//! The index in a checkpoint: the entries of one shard at a time, out of the index and back into
//! it.

use kv_core::{Error, Op, Result};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::Index;
use super::entry::Entry;
use crate::reclaim::Guard;
use crate::segments::Location;

/// The entries of one shard, at one moment.
#[derive(Debug, Default)]
pub(crate) struct ShardCopy {
    entries: Vec<Entry>,
    /// Bytes of the keys and their values.
    pub(crate) pair_bytes: u64,
}

impl ShardCopy {
    /// Calls `keep` with each location, which answers with the location that goes into the
    /// checkpoint, and adds these entries to `into`.
    pub(crate) fn write(
        &self,
        into: &mut Vec<u8>,
        mut keep: impl FnMut(Location) -> Result<Option<Location>>,
    ) -> Result<()> {
        for entry in &self.entries {
            if let Some(location) = keep(entry.location())? {
                into.extend_from_slice(&Entry::new(entry.tag(), location).bits().to_le_bytes());
            }
        }
        Ok(())
    }
}

/// The location of an entry of a checkpoint. `None` for bytes that are no entry.
pub(crate) fn location_of(bytes: [u8; 8]) -> Option<Location> {
    let location = Entry::from_bits(u64::from_le_bytes(bytes))?.location();
    (location.offset() > 0).then_some(location)
}

impl Index {
    /// The seed of the hash function.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// A number that follows from the hash function. Another release may have another function for
    /// the same seed.
    pub(crate) fn hash_check(&self) -> u64 {
        let text: Vec<u8> = (0..=255).collect();
        let sum = |sum: u64, len: usize| {
            let hash = self.hash(text.get(..len).unwrap_or_default());
            sum.rotate_left(5) ^ hash.0
        };
        (0..256).fold(0, sum)
    }

    /// The entries of one shard at one moment.
    pub(crate) fn copy_shard(&self, shard: usize, into: &mut ShardCopy, guard: &Guard) {
        self.shard(shard).copy(guard, |table, pair_bytes| {
            into.entries.clear();
            into.entries.extend(table.iter());
            into.pair_bytes = pair_bytes as u64;
        });
    }

    /// Makes room in a shard for `keys` keys with pairs of `pair_bytes` bytes.
    ///
    /// # Errors
    /// The system has no memory for a larger table. `path` is the error's.
    pub(crate) fn prepare_shard(
        &self,
        shard: usize,
        keys: usize,
        pair_bytes: u64,
        path: &Path,
    ) -> Result<()> {
        let mut locked = self.shard(shard).lock();
        locked.reserve(keys, &self.replaced).map_err(|error| Error::io(Op::GrowIndex, path, error))?;
        locked.count_pairs(usize::try_from(pair_bytes).unwrap_or(usize::MAX), 0);
        Ok(())
    }

    /// Adds entries of a checkpoint to a shard that was [prepared](Self::prepare_shard). `place`
    /// answers with the location in this store, or `None` if the segment is gone.
    pub(crate) fn fill_shard(
        &self,
        shard: usize,
        entries: &[[u8; 8]],
        mut place: impl FnMut(Location) -> Option<Location>,
    ) {
        let entries = entries.iter().filter_map(|bytes| Entry::from_bits(u64::from_le_bytes(*bytes)));
        let placed = |entry: Entry| Some(Entry::new(entry.tag(), place(entry.location())?));
        self.shard(shard).lock().fill(entries.filter_map(placed));
    }

    /// Whether the bytes of the pairs are an estimate: segments are gone whose entries a checkpoint
    /// had counted.
    pub(crate) fn is_estimated(&self) -> bool {
        self.is_estimated.load(Ordering::Relaxed)
    }

    pub(crate) fn set_estimated(&self, is_estimated: bool) {
        self.is_estimated.store(is_estimated, Ordering::Relaxed);
    }

    /// Sets the bytes of all pairs in one shard to the sum that `pair_bytes` finds at the
    /// locations. Writers of the shard wait meanwhile.
    pub(crate) fn recount(&self, shard: usize, pair_bytes: impl Fn(Location) -> Option<usize>) -> bool {
        let locked = self.shard(shard).lock();
        let Some(bytes) = locked.entries().map(|entry| pair_bytes(entry.location())).sum::<Option<usize>>()
        else {
            return false;
        };
        locked.set_pair_bytes(bytes);
        true
    }
}

#[cfg(all(test, not(shuttle)))]
impl Index {
    /// The tag of a key.
    pub(crate) fn tag_of(&self, key: &[u8]) -> u64 {
        self.hash(key).tag()
    }
}
