//! Reads: the index says where a record lies, and the caller looks at it there. No lock, and nothing is copied, unless the
//! record is cold.

use kv_core::{Result, ScanVisitor};
use kv_wal_format::Record;

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
        let (hash, segments) = (self.index.hash(key), &self.segments);
        let found =
            self.index.find(hash, key, &mut Vec::new(), segments, &guard, |_, record| visit(record.value))?;
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
                let position = group * KEYS_AT_A_TIME + position;
                let show = |_, record: Record<'_>| visit(position, Some(record.value));
                let found = self.index.find(*hash, key, &mut Vec::new(), &self.segments, &guard, show)?;
                if found.is_none() {
                    visit(position, None);
                }
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
                let flow = if let Some(record) = location.resident(&self.segments, &guard) {
                    visit(record.key, record.value)
                } else {
                    let fetched = self.segments.fetch(*location, &guard)?;
                    visit(fetched.record().key, fetched.record().value)
                };
                if flow.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
