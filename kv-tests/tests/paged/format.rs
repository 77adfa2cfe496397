//! Pieces of all file formats: numbers, checksums, and names of files.

/// A checksum of `bytes` that depends on `seed`. It sees every change within one word for certain.
pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(seed ^ FACTOR, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    let last = rest.iter().fold(rest.len() as u64, |word, byte| word << 8 | u64::from(*byte));
    mix(mix(sum, last), bytes.len() as u64)
}

/// Reads numbers and slices one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

pub(crate) const CONTROL: &str = "CONTROL";

pub(crate) fn snapshot_name(generation: u64) -> String {
    format!("snap-{generation:06}")
}

pub(crate) fn wal_name(generation: u64) -> String {
    format!("wal-{generation:06}")
}

/// Whether a file of this name belongs to some generation, finished or not.
pub(crate) fn is_of_generation(name: &str) -> bool {
    let stem = name.strip_suffix(".tmp").unwrap_or(name);
    let number = stem.strip_prefix("snap-").or_else(|| stem.strip_prefix("wal-"));
    number.is_some_and(|number| number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit()))
}
