//! The newest record of each key, over many segments.

use foldhash::fast::RandomState;
use kv_wal_format::{Record, RecordKind};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

/// The place, the LSN and the length of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    places: HashMap<Box<[u8]>, Place, RandomState>,
}

impl Newest {
    /// Takes note of a change in the bytes `range` of the segment with this number.
    pub(super) fn add(&mut self, segment: u32, range: &Range<usize>, record: &Record<'_>) {
        let put_len = if record.kind == RecordKind::Put { range.len() } else { 0 };
        // A segment is shorter than 4 GiB.
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let place = Place { lsn: record.lsn, segment, offset: short(range.start), put_len: short(put_len) };
        match self.places.get_mut(record.key) {
            Some(known) => known.keep_newer(place),
            None => drop(self.places.insert(record.key.into(), place)),
        }
    }

    /// Adds all that `other` knows.
    pub(super) fn merge(mut self, mut other: Self) -> Self {
        if self.places.len() < other.places.len() {
            std::mem::swap(&mut self, &mut other);
        }
        for (key, place) in other.places {
            match self.places.entry(key) {
                Entry::Occupied(mut known) => known.get_mut().keep_newer(place),
                Entry::Vacant(free) => drop(free.insert(place)),
            }
        }
        self
    }

    /// The newest record of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<Place> {
        self.places.get(key).copied()
    }

    /// The newest record of each key, tombstones included.
    pub(super) fn places(&self) -> impl Iterator<Item = (&[u8], Place)> {
        self.places.iter().map(|(key, place)| (&**key, *place))
    }
}

impl Place {
    pub(super) fn is_put(&self) -> bool {
        self.put_len > 0
    }

    /// Copies of a record have the same LSN. The first segment keeps it, in any order of calls.
    fn keep_newer(&mut self, other: Place) {
        let rank = |place: &Place| (place.lsn, std::cmp::Reverse((place.segment, place.offset)));
        if rank(&other) > rank(self) {
            *self = other;
        }
    }
}
