//! The results of a look-up. They are small: the compiler passes a larger value through memory, and
//! a look-up has no instruction to spare.

use std::ptr;

use super::Image;
use crate::reclaim::Hold;

/// The value of the newest record of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) value: &'a [u8],
    /// Length of the whole record, bytes.
    pub(crate) record_len: usize,
    /// The image that the value lies in. `None` when it was read from a file.
    pub(crate) image: Option<&'a Image>,
}

impl Found<'_> {
    /// Keeps the value beyond the pin of the caller.
    #[inline]
    pub(crate) fn keep_in(self, hold: &Hold) -> &[u8] {
        let memory = self.image.map(|image| ptr::from_ref(image).cast());
        // SAFETY: `self` borrows from the guard of its reader, so the caller is pinned. Published
        // bytes never change, and `Limbo` frees an unlinked image only after `is_protected` denied
        // its address.
        unsafe { hold.keep(self.value, memory) }
    }
}

/// The result of a look at the record at a location, without a read of any file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look<'g> {
    Found(Found<'g>),
    /// The record has another key.
    OtherKey,
    /// The segment is cold: only the file can tell.
    Cold,
}
