use std::fmt;

/// Log sequence number: the place of one change in the order of all changes.
///
/// A put, a delete that found its key, and a batch that changed something take one LSN each. LSNs
/// grow strictly; after a crash numbers may be skipped, and none is ever given out twice.
/// [`Lsn::ZERO`] stands before the first change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first change.
    pub const ZERO: Lsn = Lsn(0);

    /// The LSN with this number.
    pub const fn new(number: u64) -> Self {
        Lsn(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The LSN after this one. The highest LSN returns itself.
    #[must_use]
    pub const fn next(self) -> Self {
        Lsn(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
