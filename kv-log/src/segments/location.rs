/// The most segments of a store at one time.
pub(crate) const SEGMENTS_MAX: usize = 1 << SLOT_BITS;

/// Slots that only outputs of compaction may take, so that a store with too many segments can be
/// compacted.
pub(crate) const SLOTS_FOR_COMPACTION: usize = 1 << 8;

const SLOT_BITS: u32 = 13;

const OFFSET_BITS: u32 = 27;

/// Largest segment, bytes: 128 MiB.
pub(crate) const SEGMENT_BYTES_MAX: usize = 1 << OFFSET_BITS;

/// The place of a record: a segment's slot (13 bits) and an offset in it (27 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location(u64);

impl Location {
    /// Bits that a location takes.
    pub(crate) const BITS: u32 = SLOT_BITS + OFFSET_BITS;

    #[inline]
    pub(crate) fn new(slot: u16, offset: usize) -> Self {
        debug_assert!(usize::from(slot) < SEGMENTS_MAX && offset < SEGMENT_BYTES_MAX);
        Location(u64::from(slot) << OFFSET_BITS | offset as u64)
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
    #[expect(clippy::cast_possible_truncation, reason = "a location has 13 bits above the offset")]
    pub(crate) fn slot(self) -> u16 {
        (self.0 >> OFFSET_BITS) as u16
    }

    /// Bytes from the start of the segment.
    #[inline]
    pub(crate) fn offset(self) -> usize {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_and_offset_come_back_at_their_extremes() {
        for (slot, offset) in [(0, 0), (0x1fff, SEGMENT_BYTES_MAX - 1), (1, 1), (0x1001, 0x1235)] {
            let location = Location::new(slot, offset);
            assert_eq!((location.slot(), location.offset()), (slot, offset));
            assert!(location.bits() < 1 << Location::BITS);
            assert_eq!(Location::from_bits(location.bits() | 0xabcd << Location::BITS), location);
        }
    }
}
