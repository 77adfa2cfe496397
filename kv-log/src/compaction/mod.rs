//! Compaction: the policy names victims and a level. [`memory`] drops dead records from the
//! victims' images. [`disk`] copies the survivors of victims to new segments, and removes the
//! victims.

mod choice;
mod claims;
mod compactor;
mod disk;
mod memory;
mod working;

pub(crate) use choice::Extent;
pub(crate) use compactor::Compactor;
