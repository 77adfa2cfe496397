//! Settling: a suspect's record is read, and the entry is dropped or goes back into the table. See
//! [`suspects`](super::suspects).

use kv_core::Result;
use kv_wal_format::{RecordKind, encoded_len};

use super::entry::Entry;
use super::suspects::unfounded;
use super::{Index, KeyHash, LockedShard, Newest, Purpose, Sought, Unlocked, search};
use crate::reclaim::Guard;
use crate::segments::{Found, Location, SegmentTable};

impl Index {
    /// Whether there is a suspect with this hash.
    pub(crate) fn has_suspect(&self, hash: KeyHash) -> bool {
        self.suspects.has_tag(self.shard_of(hash), hash.tag())
    }

    /// Notes that a replayed tombstone with this LSN deleted `key`, which may have a suspect.
    pub(crate) fn note_deleted(&self, hash: KeyHash, key: &[u8], lsn: u64) {
        self.suspects.note_deleted(self.shard_of(hash), key, lsn);
    }

    /// Settles the suspects with this hash. `replaced` is the key that the caller is about to
    /// change: of its record, only the key and the lengths matter.
    ///
    /// # Errors
    /// A record cannot be read.
    #[cold]
    pub(super) fn settle_tag(
        &self,
        hash: KeyHash,
        replaced: Option<&[u8]>,
        segments: &SegmentTable,
        guard: &Guard,
    ) -> Result<()> {
        let shard = self.shard_of(hash);
        for entry in self.suspects.with_tag(shard, hash.tag()) {
            self.settle(shard, entry, replaced, segments, guard)?;
        }
        Ok(())
    }

    /// Settles the suspects of one shard.
    ///
    /// # Errors
    /// A record cannot be read.
    pub(crate) fn settle_shard(&self, shard: usize, segments: &SegmentTable, guard: &Guard) -> Result<()> {
        if self.suspects.are_settled() {
            return Ok(());
        }
        for entry in self.suspects.of_shard(shard) {
            self.settle(shard, entry, None, segments, guard)?;
        }
        Ok(())
    }

    /// Settles the suspects whose locations are `wanted`, in the order of locations.
    ///
    /// # Errors
    /// A record cannot be read.
    pub(crate) fn settle_at(&self, wanted: impl Fn(Location) -> bool, segments: &SegmentTable) -> Result<()> {
        if self.suspects.are_settled() {
            return Ok(());
        }
        let mut suspects = self.suspects.at(wanted);
        suspects.sort_unstable_by_key(|(_, entry)| entry.location().bits());
        for (shard, entry) in suspects {
            self.settle(shard, entry, None, segments, &crate::reclaim::pin())?;
        }
        self.suspects.try_to_rest();
        Ok(())
    }

    /// Settles one suspect.
    fn settle(
        &self,
        number: usize,
        entry: Entry,
        replaced: Option<&[u8]>,
        segments: &SegmentTable,
        guard: &Guard,
    ) -> Result<()> {
        let location = entry.location();
        if !self.suspects.contains(number, entry) {
            return Ok(());
        }
        let segment = segments.get(location, guard);
        let fetched = match replaced {
            None => segments.fetch(segment, location.offset())?,
            Some(key) => segments.fetch_replaced(segment, location.offset(), key)?,
        };
        let record = fetched.record();
        let hash = self.hash(record.key);
        if record.kind != RecordKind::Put || hash.tag() != entry.tag() || self.shard_of(hash) != number {
            return Err(unfounded(segment.file.path(), location.offset(), segment.id));
        }
        let len = encoded_len(segment.base_lsn, record.lsn, record.key.len(), record.value.len());
        let mut others = Vec::new();
        loop {
            // Reads cold records before the shard is locked.
            let shard = Unlocked { shard: self.shard(number), guard };
            let sought = Sought { hash, key: record.key, purpose: Purpose::Replace };
            let newest = search(&shard, &sought, &mut others, segments, guard, |at, record, len, image| {
                Newest::new(at, Found { value: record.value, record_len: len, image })
            })?;
            let mut shard = self.lock(number);
            if !self.suspects.contains(number, entry) {
                return Ok(());
            }
            let Ok(newer) = shard.resolve_in_table(hash, record.key, newest, &others, segments, guard) else {
                continue;
            };
            if newer.is_some() || self.suspects.is_deleted(number, record.key, record.lsn) {
                segment.tally.died_in(number, len as u64);
                shard.count_pairs(0, record.key.len() + record.value.len());
            } else {
                let path = segment.file.path();
                shard.reserve(1, path)?;
                shard.shard.insert(entry);
            }
            self.suspects.remove(number, entry);
            return Ok(());
        }
    }
}

impl LockedShard<'_> {
    /// Moves the entries with this hash, whose locations are `unread`, from the table to the
    /// suspects. Replay calls it before it adds a record.
    pub(crate) fn displace(&mut self, hash: KeyHash, unread: impl Fn(Location) -> bool) {
        while let Some((at, location)) = self.shard.find(hash.tag(), &unread) {
            self.shard.remove(at);
            self.suspects.add(self.number, Entry::new(hash.tag(), location));
        }
    }
}
