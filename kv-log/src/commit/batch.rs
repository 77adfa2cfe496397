//! A batch: adjacent records in one segment under one LSN.
//!
//! A batch may have millions of small changes. Until the batch is committed, each change takes 48
//! bytes here, beside its place in the caller's [`Batch`].

use kv_core::{Batch, Change, Error, Limits, Result};
use kv_wal_format::{LARGE_HEADER_LEN, Record, SEGMENT_HEADER_LEN, body_checksum, encoded_len_max};
use std::collections::BTreeMap;
use std::io::ErrorKind;

use super::committer::Committer;
use super::pipeline::{Attempt, Outcome, commit_with};
use crate::index::{KeyHash, LockedShard, Newest, Unresolved};
use crate::log::{MARK_LEN_MAX, SEAL_LEN_MAX};
use crate::options::BATCH_BYTES_MAX;
use crate::reclaim::{Guard, pin};
use crate::segments::{Location, SEGMENT_BYTES_MAX};
use kv_core::parts::Position;

// A batch within its limit fits a segment: the limit counts at least the length of each record.
const _: () = assert!(Limits::CHANGE_OVERHEAD >= LARGE_HEADER_LEN);
const _: () =
    assert!(SEGMENT_HEADER_LEN + BATCH_BYTES_MAX + MARK_LEN_MAX + SEAL_LEN_MAX <= SEGMENT_BYTES_MAX);

/// One change of a batch that is ready to be committed.
struct PreparedChange<'a> {
    change: &'a Change,
    hash: KeyHash,
    body_checksum: u32,
    /// Position of the key's shard among those of the batch.
    shard: u32,
    /// The newest record of the key: as the last look-up found it, or after `resolve` as it is.
    newest: Option<Newest>,
}

const _: () = assert!(size_of::<PreparedChange<'_>>() == 48);

impl<'a> PreparedChange<'a> {
    fn record(&self) -> Record<'a> {
        record_of(self.change)
    }

    /// Whether the change has an effect.
    fn is_effective(&self) -> bool {
        matches!(self.change, Change::Put { .. }) || self.newest.is_some()
    }
}

/// The most bytes that the record takes in a segment.
fn record_len_max(record: &Record<'_>) -> usize {
    encoded_len_max(record.key.len(), record.value.len())
}

fn record_of(change: &Change) -> Record<'_> {
    match change {
        Change::Put { key, value } => Record::put(0, key, value),
        Change::Delete { key } => Record::delete(0, key),
    }
}

/// The changes of a batch that may take effect.
struct PreparedBatch<'a> {
    changes: Vec<PreparedChange<'a>>,
    /// The shards of their keys, in ascending order.
    shards: Vec<usize>,
    /// The number of new keys in each of those shards.
    new_keys: Vec<usize>,
    /// Cold records of other keys with the same tag, by the position of the change. Seldom any.
    others: BTreeMap<usize, Vec<Location>>,
}

impl<'a> PreparedBatch<'a> {
    /// # Errors
    /// The system has no memory for so many changes.
    fn new(committer: &Committer, batch: &'a Batch) -> Result<Self> {
        let no_memory = |_| {
            Error::io(
                "allocate memory for a batch in",
                committer.context.path(),
                ErrorKind::OutOfMemory.into(),
            )
        };
        let effective = batch.try_effective_changes().map_err(no_memory)?;
        let (mut changes, mut shards) = (Vec::new(), Vec::new());
        changes.try_reserve_exact(effective.len()).map_err(no_memory)?;
        for change in effective {
            let Record { key, value, .. } = record_of(change);
            let hash = committer.index.hash(key);
            if shards.len() == 2 * committer.index.shard_count() {
                sort_and_deduplicate(&mut shards);
            }
            shards.push(committer.index.shard_of(hash));
            let body_checksum = body_checksum(key, value);
            changes.push(PreparedChange { change, hash, body_checksum, shard: 0, newest: None });
        }
        sort_and_deduplicate(&mut shards);
        for change in &mut changes {
            let position = shards.binary_search(&committer.index.shard_of(change.hash)).ok();
            change.shard = position
                .and_then(|position| u32::try_from(position).ok())
                .expect("the shard of every change is among at most 65,536");
        }
        let new_keys = vec![0; shards.len()];
        Ok(PreparedBatch { changes, shards, new_keys, others: BTreeMap::new() })
    }

    /// Searches for the records that the changes replace, without a lock.
    fn look_up(&mut self, committer: &Committer, guard: &Guard) -> Result<()> {
        let mut others = Vec::new();
        for (at, change) in self.changes.iter_mut().enumerate() {
            let (hash, key) = (change.hash, change.change.key());
            // Kept from one search to the next, so that no record is read twice.
            others.append(self.others.get_mut(&at).unwrap_or(&mut Vec::new()));
            change.newest = committer.index.find(
                hash,
                key,
                Some(&mut others),
                &committer.segments,
                guard,
                Newest::new,
            )?;
            if !others.is_empty() {
                self.others.insert(at, std::mem::take(&mut others));
            }
        }
        Ok(())
    }

    /// Resolves the record that each change replaces, with the shards locked. Returns the number of
    /// effective changes and the most bytes of their records.
    fn resolve(
        &mut self,
        committer: &Committer,
        locked: &[LockedShard<'_>],
        guard: &Guard,
    ) -> Result<(usize, usize), Unresolved> {
        let (mut count, mut len) = (0, 0);
        self.new_keys.fill(0);
        for (at, change) in self.changes.iter_mut().enumerate() {
            let shard = locked.get(change.shard as usize).expect("every touched shard is locked");
            let others = self.others.get(&at).map_or(&[][..], Vec::as_slice);
            let key = change.change.key();
            change.newest =
                shard.resolve(change.hash, key, change.newest, others, &committer.segments, guard)?;
            if change.is_effective() {
                count += 1;
                len += record_len_max(&change.record());
                let new_keys = self.new_keys.get_mut(change.shard as usize);
                *new_keys.expect("every shard counts") += usize::from(change.newest.is_none());
            }
        }
        Ok((count, len))
    }
}

fn sort_and_deduplicate(shards: &mut Vec<usize>) {
    shards.sort_unstable();
    shards.dedup();
}

/// Commits a batch. The writer holds all shards of the batch until the last of its changes is in
/// the index.
pub(crate) fn commit_batch(committer: &Committer, batch: &Batch) -> Result<Position> {
    let context = &committer.context;
    context.options.limits.check_batch_with(batch, context.key_len_max)?;
    let mut prepared = PreparedBatch::new(committer, batch)?;
    let is_relief = prepared.changes.iter().all(|change| matches!(change.change, Change::Delete { .. }));
    commit_with(committer, is_relief, |attempt| {
        let guard = pin();
        // Locations of an earlier attempt may lead elsewhere by now.
        prepared.others.clear();
        prepared.look_up(committer, &guard)?;
        loop {
            match try_commit(committer, &mut prepared, attempt, &guard)? {
                Outcome::LookAgain => prepared.look_up(committer, &guard)?,
                outcome => return Ok(outcome),
            }
        }
    })
}

fn try_commit(
    committer: &Committer,
    batch: &mut PreparedBatch<'_>,
    attempt: Attempt,
    guard: &Guard,
) -> Result<Outcome<Position>> {
    let mut locked: Vec<LockedShard<'_>> =
        batch.shards.iter().map(|shard| committer.index.lock(*shard)).collect();
    let Ok((mut left, len_max)) = batch.resolve(committer, &locked, guard) else {
        return Ok(Outcome::LookAgain);
    };
    for (shard, new_keys) in locked.iter_mut().zip(&batch.new_keys) {
        // Before a record is in the log: a refusal changes nothing.
        shard.reserve(*new_keys, committer.context.path())?;
    }
    let mut end = committer.log.end.lock();
    if left == 0 {
        committer.context.health.check_change()?;
        return Ok(Outcome::Done(end.position()));
    }
    if !committer.make_room(&mut end, len_max, attempt)? {
        return Ok(Outcome::NoMemoryYet { len: len_max });
    }
    let (lsn, mut len) = (end.next_lsn().get(), 0);
    for change in batch.changes.iter().filter(|change| change.is_effective()) {
        left -= 1;
        let record = Record { lsn, more: left > 0, ..change.record() };
        let (location, record_len) = end.active.append(&record, change.body_checksum);
        len += record_len;
        let shard = locked.get_mut(change.shard as usize).expect("every touched shard is locked");
        committer.publish(shard, change.hash, &record, change.newest, location, guard);
    }
    Ok(Outcome::Done(committer.committed(&mut end, len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_are_no_longer_than_the_limit_counts(
            changes in vec((0..70_usize, proptest::option::of(0..300_usize)), 0..40),
        ) {
            let mut batch = Batch::new();
            for (number, (key_len, value_len)) in changes.iter().enumerate() {
                let key = vec![u8::try_from(number).unwrap(); *key_len];
                match value_len {
                    Some(len) => batch.put(&key, &vec![0; *len]),
                    None => batch.delete(&key),
                };
            }
            let len: usize = batch.changes().iter().map(|change| record_len_max(&record_of(change))).sum();
            let limits = Limits { key_len_max: 70, value_len_max: 300, batch_bytes_max: len.saturating_sub(1) };
            prop_assert_eq!(limits.check_batch(&batch).is_ok(), batch.is_empty());
        }
    }
}
