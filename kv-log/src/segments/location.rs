/// The most segments of a store at one time.
pub(crate) const SEGMENTS_MAX: usize = 1 << 16;

/// Slots that only outputs of compaction may take, so that a store with too many segments can be
/// compacted.
pub(crate) const SLOTS_FOR_COMPACTION: usize = 1 << 8;

/// Records start at multiples of this, bytes.
const GRANULE: usize = kv_wal_format::ALIGNMENT;

const OFFSET_BITS: u32 = 24;

/// Largest segment, bytes: 128 MiB.
pub(crate) const SEGMENT_BYTES_MAX: usize = GRANULE << OFFSET_BITS;

/// The place of a record: a segment's slot (16 bits) and an offset in it (24 bits, in units of 8
/// bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location(u64);

impl Location {
    /// Bits that a location takes.
    pub(crate) const BITS: u32 = 16 + OFFSET_BITS;

    #[inline]
    pub(crate) fn new(slot: u16, offset: usize) -> Self {
        debug_assert!(offset < SEGMENT_BYTES_MAX && offset.is_multiple_of(GRANULE));
        Location(u64::from(slot) << OFFSET_BITS | (offset / GRANULE) as u64)
    }

    /// From its bits. Higher bits are ignored.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Location(bits & ((1 << Self::BITS) - 1))
    }

    #[inline]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a location has 16 bits above the offset")]
    pub(crate) fn slot(self) -> u16 {
        (self.0 >> OFFSET_BITS) as u16
    }

    /// Bytes from the start of the segment.
    #[inline]
    pub(crate) fn offset(self) -> usize {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize * GRANULE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_and_offset_come_back_at_their_extremes() {
        for (slot, offset) in [(0, 0), (u16::MAX, SEGMENT_BYTES_MAX - 8), (1, 8), (0x8001, 0x1000)] {
            let location = Location::new(slot, offset);
            assert_eq!((location.slot(), location.offset()), (slot, offset));
            assert!(location.bits() < 1 << Location::BITS);
            assert_eq!(Location::from_bits(location.bits() | 0xabcd << Location::BITS), location);
        }
    }
}
