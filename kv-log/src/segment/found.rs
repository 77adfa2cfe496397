//! What a look-up comes to: a record in memory, or one that was read from a file.

use kv_wal_format::Record;

use super::{Fetched, Image};

/// A record that the index points at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    Resident(Resident<'a>),
    Cold(&'a Fetched),
}

impl<'a> Found<'a> {
    #[inline]
    pub(crate) fn record(self) -> Record<'a> {
        match self {
            Found::Resident(resident) => resident.record(),
            Found::Cold(fetched) => fetched.record(),
        }
    }
}

/// A published record in the image of a segment. Small, and parsed where it is needed: a whole [`Record`] that is handed
/// from one function to the next is copied piece by piece, and each copy waits for the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident<'g> {
    image: &'g Image,
    offset: usize,
}

impl<'g> Resident<'g> {
    /// # Safety
    /// A published record starts at `offset`, and `image` was found in a segment by somebody who is pinned for 'g.
    #[inline]
    pub(super) unsafe fn new(image: &'g Image, offset: usize) -> Self {
        Resident { image, offset }
    }

    #[inline]
    pub(super) fn image(self) -> &'g Image {
        self.image
    }

    /// # Panics
    /// When no record is here: the index is wrong, and going on would return other keys' values.
    #[inline]
    pub(crate) fn record(self) -> Record<'g> {
        // SAFETY: promised to `new`; a record's header says how long it is, and it never changes once it is published.
        let record = unsafe { self.image.record_at(self.offset) };
        record.expect("the index points at a published record")
    }
}
