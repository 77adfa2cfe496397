//! The newest record of each key, over many segments.
//!
//! The table is in parts ([`partition`](crate::partition)). Only a key that it does not know yet is
//! copied.

use kv_wal_format::{Record, RecordKind};
use parking_lot::Mutex;
use std::ops::Range;

use crate::partition::{HashedKey, KeyTable, PARTS, Partition};

/// The place, the LSN and the length of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lsn: u64,
    /// The number of its segment, in an order that the caller chose.
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Its encoded length. 0 for a tombstone.
    pub(super) put_len: u32,
}

/// The newest record of each key.
#[derive(Debug, Default)]
pub(super) struct Newest {
    parts: [Mutex<KeyTable<Place>>; PARTS],
    partition: Partition,
}

/// The changes of one segment, by part. Their keys are in the bytes of the segment.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    partition: Partition,
    by_part: [Vec<(HashedKey<'a>, Place)>; PARTS],
}

impl Newest {
    /// Begins to collect the changes of a segment.
    pub(super) fn changes<'a>(&self) -> Changes<'a> {
        Changes { partition: self.partition.clone(), by_part: Default::default() }
    }

    /// Adds the changes of a segment.
    pub(super) fn add(&self, changes: Changes<'_>) {
        for (part, changes) in self.parts.iter().zip(changes.by_part) {
            let mut part = part.lock();
            for (key, place) in changes {
                part.get_or_default(key).keep_newer(place);
            }
        }
    }

    /// The newest record of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<Place> {
        let key = self.partition.hash(key);
        self.parts.get(key.part())?.lock().get(key).copied()
    }

    /// The newest record of each key, tombstones included.
    pub(super) fn places(&mut self) -> impl Iterator<Item = Place> {
        self.parts.iter_mut().flat_map(|part| part.get_mut().iter().map(|(_, place)| *place))
    }
}

impl<'a> Changes<'a> {
    /// Takes note of a change in the bytes `range` of the segment with this number.
    pub(super) fn add(&mut self, segment: u32, range: &Range<usize>, record: &Record<'a>) {
        let put_len = if record.kind == RecordKind::Put { range.len() } else { 0 };
        // A segment is shorter than 4 GiB.
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let place = Place { lsn: record.lsn, segment, offset: short(range.start), put_len: short(put_len) };
        let key = self.partition.hash(record.key);
        if let Some(changes) = self.by_part.get_mut(key.part()) {
            changes.push((key, place));
        }
    }
}

impl Place {
    pub(super) fn is_put(&self) -> bool {
        self.put_len > 0
    }

    /// Copies of a record have the same LSN. The first segment keeps it, in any order of calls. The
    /// place of a new key has LSN 0, which no change has.
    fn keep_newer(&mut self, other: Place) {
        let rank = |place: &Place| (place.lsn, std::cmp::Reverse((place.segment, place.offset)));
        if rank(&other) > rank(self) {
            *self = other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_record_counts_in_any_order_of_the_segments() {
        let keys: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
        // The last two segments hold copies of a record.
        let segments = [(0, 5, RecordKind::Put), (1, 9, RecordKind::Delete), (2, 9, RecordKind::Delete)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut newest = Newest::default();
            for (segment, lsn, kind) in order.map(|index: usize| segments[index]) {
                let mut changes = newest.changes();
                for (index, key) in keys.iter().enumerate() {
                    // A later segment has the second half only.
                    if segment == 0 || index >= 50 {
                        let record = Record { kind, ..Record::put(lsn, key.as_bytes(), b"") };
                        changes.add(segment, &(index * 32..index * 32 + 30), &record);
                    }
                }
                newest.add(changes);
            }
            for (index, key) in keys.iter().enumerate() {
                let (segment, lsn, put_len) = if index < 50 { (0, 5, 30) } else { (1, 9, 0) };
                let offset = u32::try_from(index).unwrap() * 32;
                let place = Place { lsn, segment, offset, put_len };
                assert_eq!(newest.get(key.as_bytes()), Some(place), "{key} in the order {order:?}");
            }
            assert_eq!(newest.get(b"absent"), None);
            assert_eq!(newest.places().count(), 100);
            assert_eq!(newest.places().filter(Place::is_put).count(), 50);
        }
    }
}
