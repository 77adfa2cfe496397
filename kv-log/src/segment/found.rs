//! What a look-up comes to. Small: what does not fit into registers is handed from one function to the next through memory,
//! piece by piece, and a look-up has no instruction to spare.

use super::Image;

/// The value of the newest record of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) value: &'a [u8],
    /// What it lies in; `None` when it was read from a file.
    pub(crate) image: Option<&'a Image>,
}

/// What a look at the record at a location tells, without a look into any file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look<'g> {
    Found(Found<'g>),
    /// It is a record of another key.
    OtherKey,
    /// Only the file could tell.
    Cold,
}
