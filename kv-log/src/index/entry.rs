use crate::segments::Location;

pub(super) const TAG_BITS: u32 = 64 - Location::BITS;

/// 24 bits of a key's hash, the tag, over a location. Never 0, since no record lies at the start of
/// a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(u64);

impl Entry {
    #[inline]
    pub(super) fn new(tag: u64, location: Location) -> Self {
        debug_assert!(location.offset() > 0 && tag < 1 << TAG_BITS);
        Entry(tag << Location::BITS | location.bits())
    }

    #[inline]
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Entry(bits))
    }

    #[inline]
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn tag(self) -> u64 {
        self.0 >> Location::BITS
    }

    #[inline]
    pub(super) fn location(self) -> Location {
        Location::from_bits(self.0)
    }
}
