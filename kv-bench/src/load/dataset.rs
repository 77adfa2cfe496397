//! Keys and values, derived from numbers: the ground truth of a run is a list of numbers.

use crate::failure::Failure;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// Shortest key and value, bytes: the length of a number.
pub(crate) const LEN_MIN: usize = 8;
/// Longest key, bytes: the engines' default limit.
pub(crate) const KEY_LEN_MAX: usize = 64;
/// Longest value, bytes: the engines' default limit.
pub(crate) const VALUE_LEN_MAX: usize = 1 << 20;

/// The form of the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// Length of all keys, bytes.
    pub(crate) key_len: usize,
    /// Length of all values, bytes.
    pub(crate) value_len: usize,
    /// Seed of all random choices.
    pub(crate) seed: u64,
}

impl Shape {
    /// Bytes of one pair.
    pub(crate) fn pair_len(&self) -> u64 {
        (self.key_len + self.value_len) as u64
    }

    /// `count`, or the number of pairs that fit in `bytes`.
    pub(crate) fn at_most(&self, count: u64, bytes: u64) -> u64 {
        count.min(bytes / self.pair_len()).max(1)
    }
}

/// Makes keys and values, cheaply enough not to distort the figures.
///
/// Key `index` is the index, scattered by a bijection: different indexes have different keys. The
/// first 8 bytes of a value are its `sequence`; the rest comes from a pool of random bytes, from a
/// place that depends on index and sequence.
#[derive(Debug)]
pub(crate) struct Dataset {
    shape: Shape,
    scatter: u64,
    pool: Vec<u8>,
}

/// Places in the pool where a value may begin.
const POOL_STARTS: u64 = 1 << 14;

impl Dataset {
    pub(crate) fn new(shape: Shape) -> Self {
        let mut rng = Rng::with_seed(shape.seed);
        let len = usize::try_from(POOL_STARTS).unwrap_or_default() + shape.value_len;
        let scatter = rng.u64(..);
        Dataset { shape, scatter, pool: std::iter::repeat_with(|| rng.u8(..)).take(len).collect() }
    }

    /// The bytes of key `index`.
    #[inline]
    pub(crate) fn key<'a>(&self, index: u64, buffer: &'a mut [u8; KEY_LEN_MAX]) -> &'a [u8] {
        let mut word = mix(index ^ self.scatter);
        let key = buffer.get_mut(..self.shape.key_len).unwrap_or_default();
        // This code runs between two look-ups and must be short, so it stores whole words.
        let (words, rest) = key.as_chunks_mut();
        for bytes in words {
            *bytes = word.to_le_bytes();
            word = word.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        rest.iter_mut().zip(word.to_le_bytes()).for_each(|(to, byte)| *to = byte);
        key
    }

    /// Overwrites `buffer` with the value written to key `index` by change `sequence`.
    #[inline]
    pub(crate) fn value(&self, index: u64, sequence: u64, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(&sequence.to_le_bytes());
        buffer.extend_from_slice(self.body(index, sequence));
    }

    /// Calls `store` with the first pair of each of these keys: index `n` with sequence `n`.
    #[inline]
    pub(crate) fn fill<E>(
        &self,
        indexes: impl IntoIterator<Item = u64>,
        mut store: impl FnMut(u64, &[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::with_capacity(self.shape.value_len));
        for index in indexes {
            self.value(index, index, &mut value);
            store(index, self.key(index, &mut key), &value)?;
        }
        Ok(())
    }

    #[inline]
    fn body(&self, index: u64, sequence: u64) -> &[u8] {
        let start = mix(index.rotate_left(32) ^ sequence) % POOL_STARTS;
        let start = usize::try_from(start).unwrap_or_default();
        self.pool.get(start..start + self.shape.value_len - LEN_MIN).unwrap_or_default()
    }

    /// Whether change `sequence` wrote these bytes to key `index`.
    pub(crate) fn is_value(&self, index: u64, sequence: u64, bytes: &[u8]) -> bool {
        bytes.split_first_chunk().is_some_and(|(tag, body)| {
            u64::from_le_bytes(*tag) == sequence && body == self.body(index, sequence)
        })
    }

    /// The change that wrote `bytes` to key `index`; an error if no change did.
    pub(crate) fn sequence_of(&self, index: u64, bytes: &[u8]) -> Result<u64, Failure> {
        let tag = bytes.first_chunk().map(|tag| u64::from_le_bytes(*tag));
        tag.filter(|sequence| self.is_value(index, *sequence, bytes))
            .ok_or_else(|| Failure::Wrong(format!("key {index} has a value of no change")))
    }
}

/// The finalizer of splitmix64, a bijection (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014).
#[inline]
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Sums up a byte of each cache line, so that the processor loads a borrowed value.
#[inline]
pub(crate) fn touch(value: &[u8]) -> u64 {
    value.iter().step_by(64).map(|byte| u64::from(*byte)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_differ_and_values_tell_their_change() {
        for (key_len, value_len) in [(8, 8), (24, 500), (64, 9), (13, 100)] {
            let data = Dataset::new(Shape { key_len, value_len, seed: 7 });
            let (mut keys, mut buffer, mut value) = (HashSet::new(), [0; KEY_LEN_MAX], Vec::new());
            for index in (0..2000).chain([1 << 63, u64::MAX - 9]) {
                let key = data.key(index, &mut buffer);
                assert_eq!(key.len(), key_len);
                assert!(keys.insert(key.to_vec()), "key {index} is not the only one");
                data.value(index, index + 5, &mut value);
                assert_eq!(value.len(), value_len);
                assert_eq!(data.sequence_of(index, &value).unwrap(), index + 5);
                assert!(!data.is_value(index, index + 6, &value));
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_others() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        let bytes = |shape: Shape| {
            let (data, mut buffer, mut value) = (Dataset::new(shape), [0; KEY_LEN_MAX], Vec::new());
            data.value(3, 4, &mut value);
            (data.key(3, &mut buffer).to_vec(), value)
        };
        assert_eq!(bytes(shape), bytes(shape));
        let other = bytes(Shape { seed: 2, ..shape });
        assert!(bytes(shape).0 != other.0 && bytes(shape).1 != other.1);
    }

    #[test]
    fn large_pairs_are_fewer() {
        let shape = Shape { key_len: 24, value_len: 1000, seed: 7 };
        assert_eq!(shape.at_most(10, 1 << 20), 10);
        assert_eq!(shape.at_most(5000, 1 << 20), 1024);
        assert_eq!(shape.at_most(5000, 10), 1);
    }

    #[test]
    fn a_damaged_value_belongs_to_no_change() {
        let data = Dataset::new(Shape { key_len: 24, value_len: 500, seed: 7 });
        let mut value = Vec::new();
        data.value(9, 9, &mut value);
        for at in [0, 8, 250, 499] {
            let mut damaged = value.clone();
            damaged[at] ^= 1;
            assert!(data.sequence_of(9, &damaged).is_err());
        }
        assert!(data.sequence_of(9, &value[..499]).is_err() && data.sequence_of(9, &[]).is_err());
        assert!(data.sequence_of(10, &value).is_err());
    }
}
