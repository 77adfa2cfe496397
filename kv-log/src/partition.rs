//! A table of keys in parts, which threads fill together. A thread that has read a file first sorts
//! its changes by part, and then locks one part after the other. So threads seldom wait, and the
//! processor's caches hold the part that a thread works on.

use foldhash::fast::RandomState;
use std::hash::BuildHasher;

/// Number of the parts.
pub(crate) const PARTS: usize = 16;

/// Finds the part of a key by a hash of its own: with the hash of the parts' tables, their entries
/// would lie close together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partition(RandomState);

impl Partition {
    /// The number of the part of `key`.
    pub(crate) fn part_of(&self, key: &[u8]) -> usize {
        // The highest bits are the best ones.
        let part = self.0.hash_one(key) >> (u64::BITS - PARTS.ilog2());
        usize::try_from(part).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_gets_its_share_of_the_keys() {
        let partition = Partition::default();
        let mut counts = [0; PARTS];
        for key in 0..16_000_u32 {
            let part = partition.part_of(&key.to_le_bytes());
            assert_eq!(part, partition.clone().part_of(&key.to_le_bytes()));
            counts[part] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
