//! The records of one segment, grouped by the shards of the index.
//!
//! An index of many keys has more pages than the TLB has entries. In the order of the log, nearly
//! each record misses the TLB. In the order of the shards, a few pages serve many records
//! (partitioned hash joins: Manegold, Boncz and Kersten, "Optimizing Main-Memory Join on Modern
//! Hardware", IEEE TKDE 2002).

use kv_core::{Error, Op, Result};
use std::collections::TryReserveError;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

use super::{Index, KeyHash};

/// A record: the hash of its key, and the bytes of its segment that it takes. A segment has at most
/// 128 MiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RecordAt {
    pub(crate) hash: KeyHash,
    start: u32,
    len: u32,
}

impl RecordAt {
    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    pub(crate) fn len(self) -> usize {
        self.len as usize
    }
}

/// Records of one segment, in its order.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    index: &'a Index,
    /// The segment's file, for errors.
    path: &'a Path,
    in_order: Vec<RecordAt>,
}

/// Records of one segment, shard by shard.
#[derive(Debug)]
pub(crate) struct ByShard {
    records: Vec<RecordAt>,
    /// Where the records of each shard end.
    ends: Vec<usize>,
}

impl<'a> Records<'a> {
    pub(crate) fn new(index: &'a Index, path: &'a Path) -> Self {
        Records { index, path, in_order: Vec::new() }
    }

    /// Makes room for `count` records.
    ///
    /// # Errors
    /// The system has no memory for them.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<()> {
        self.in_order.try_reserve_exact(count).map_err(|_| self.no_memory())
    }

    /// Adds the record of `key` at this `range` of its segment.
    ///
    /// # Errors
    /// The system has no memory for it.
    #[expect(clippy::cast_possible_truncation, reason = "see `RecordAt`")]
    pub(crate) fn add(&mut self, key: &[u8], range: &Range<usize>) -> Result<()> {
        self.in_order.try_reserve(1).map_err(|_| self.no_memory())?;
        let (start, len) = (range.start as u32, range.len() as u32);
        self.in_order.push(RecordAt { hash: self.index.hash(key), start, len });
        Ok(())
    }

    /// Groups the records. Those of one shard keep their order.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub(crate) fn by_shard(self) -> Result<ByShard> {
        self.group().map_err(|_| self.no_memory())
    }

    /// Counting sort (Knuth, "The Art of Computer Programming", volume 3, section 5.2, algorithm
    /// D).
    fn group(&self) -> Result<ByShard, TryReserveError> {
        let mut ends = zeros(self.index.shard_count())?;
        let mut records = zeros(self.in_order.len())?;
        let shard_of = |record: &RecordAt| self.index.shard_of(record.hash);
        for record in &self.in_order {
            ends.get_mut(shard_of(record)).into_iter().for_each(|count| *count += 1);
        }
        let mut begin = 0;
        for end in &mut ends {
            begin += std::mem::replace(end, begin);
        }
        // From here on, the end of a group is where its next record goes.
        for record in &self.in_order {
            if let Some(end) = ends.get_mut(shard_of(record))
                && let Some(place) = records.get_mut(*end)
            {
                (*place, *end) = (*record, *end + 1);
            }
        }
        Ok(ByShard { records, ends })
    }

    fn no_memory(&self) -> Error {
        Error::io(Op::AllocateMemory, self.path, ErrorKind::OutOfMemory.into())
    }
}

fn zeros<T: Copy + Default>(len: usize) -> Result<Vec<T>, TryReserveError> {
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(len)?;
    zeros.resize(len, T::default());
    Ok(zeros)
}

/// So many records before its turn, a record is prefetched.
const AHEAD: usize = 16;

/// The records in their order. Each is given to `prefetch` before its turn.
pub(crate) fn prefetched(
    records: &[RecordAt],
    prefetch: impl Fn(&RecordAt),
) -> impl Iterator<Item = &RecordAt> {
    records.iter().take(AHEAD).for_each(&prefetch);
    records.iter().zip(AHEAD..).map(move |(record, ahead)| {
        records.get(ahead).into_iter().for_each(&prefetch);
        record
    })
}

impl ByShard {
    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.records) + size_of_val(&*self.ends)
    }

    /// The records of one shard.
    pub(crate) fn of(&self, shard: usize) -> &[RecordAt] {
        let begin = shard.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied());
        let range = begin.zip(self.ends.get(shard)).map(|(begin, end)| begin..*end);
        range.and_then(|range| self.records.get(range)).unwrap_or_default()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_in_the_group_of_its_shard_in_order() {
        let index = Index::new(8, 3);
        for count in [0, 1, 1000_usize] {
            let mut records = Records::new(&index, Path::new("segment"));
            records.reserve(count / 2).unwrap();
            (0..count).for_each(|start| records.add(&start.to_le_bytes(), &(start..start + 7)).unwrap());
            let grouped = records.by_shard().unwrap();
            assert!(grouped.records.iter().all(|record| record.len() == 7));
            for shard in 0..8 {
                let starts: Vec<usize> = grouped.of(shard).iter().map(|record| record.start()).collect();
                let is_in_shard = |start: &usize| index.shard_of(index.hash(&start.to_le_bytes())) == shard;
                assert_eq!(starts, (0..count).filter(is_in_shard).collect::<Vec<_>>());
            }
            assert!(grouped.of(8).is_empty());
        }
    }

    #[test]
    fn each_record_is_prefetched_once_before_its_turn() {
        for count in [0, 1, 16, 17, 100] {
            let records: Vec<RecordAt> =
                (0..count).map(|start| RecordAt { start, ..RecordAt::default() }).collect();
            let fetched = std::cell::RefCell::new(Vec::new());
            let mut turns = 0;
            for record in prefetched(&records, |record| fetched.borrow_mut().push(record.start)) {
                assert_eq!(record.start, turns);
                turns += 1;
                assert_eq!(*fetched.borrow(), (0..count.min(turns + 16)).collect::<Vec<_>>());
            }
            assert_eq!(turns, count);
        }
    }

    #[test]
    fn no_memory_is_an_error_that_names_the_file() {
        let index = Index::new(1, 3);
        let error = Records::new(&index, Path::new("segment")).reserve(usize::MAX / 32).unwrap_err();
        let Error::Io { source, path, .. } = error else { panic!("{error}") };
        assert_eq!((source.kind(), path.as_path()), (ErrorKind::OutOfMemory, Path::new("segment")));
    }
}
