//! Reads: the index says where a record lies, and the caller looks at it there. No lock, and nothing is copied.

use kv_core::{Result, ScanVisitor};

use crate::index::KeyHash;
use crate::store::Store;

/// Keys that are looked up at a time: enough to have all of the processor's outstanding misses in use.
const KEYS_AT_A_TIME: usize = 16;

impl Store {
    /// As [`Engine::read`](kv_core::Engine::read).
    pub(crate) fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.health.check_readable()?;
        self.options.limits.check_key(key)?;
        let guard = crossbeam_epoch::pin();
        let found = self.index.find(self.index.hash(key), key, &self.segments, &guard);
        if let Some((_, record)) = found {
            visit(record.value);
        }
        Ok(found.is_some())
    }

    /// As [`Engine::read_many`](kv_core::Engine::read_many).
    ///
    /// A look-up waits for memory twice: for the index, and for the record. Of several keys, all are asked for before the
    /// first is waited for (Chen, Ailamaki, Gibbons and Mowry, "Improving Hash Join Performance through Prefetching", ICDE
    /// 2004: group prefetching).
    pub(crate) fn read_many(
        &self,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        self.health.check_readable()?;
        keys.iter().try_for_each(|key| self.options.limits.check_key(key))?;
        let mut hashes: Vec<KeyHash> = Vec::with_capacity(KEYS_AT_A_TIME);
        for (group, keys) in keys.chunks(KEYS_AT_A_TIME).enumerate() {
            let guard = crossbeam_epoch::pin();
            hashes.clear();
            for key in keys {
                let hash = self.index.hash(key);
                self.index.prefetch(hash, &guard);
                hashes.push(hash);
            }
            for hash in &hashes {
                self.index.prefetch_record(*hash, &self.segments, &guard);
            }
            for (position, (key, hash)) in keys.iter().zip(&hashes).enumerate() {
                let found = self.index.find(*hash, key, &self.segments, &guard);
                visit(group * KEYS_AT_A_TIME + position, found.map(|(_, record)| record.value));
            }
        }
        Ok(())
    }

    /// As [`Engine::scan`](kv_core::Engine::scan).
    pub(crate) fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.health.check_readable()?;
        let mut locations = Vec::new();
        for shard in 0..self.index.shard_count() {
            // Pinned before the locations are read, so that what they point at stays.
            let guard = crossbeam_epoch::pin();
            self.index.locations(shard, &mut locations);
            for location in &locations {
                let record = location.record(&self.segments, &guard);
                if visit(record.key, record.value).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
