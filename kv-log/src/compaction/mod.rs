//! Compaction frees the space of dead records. The policy names the victims and a level: memory or
//! disk.
//!
//! | to | file |
//! |---|---|
//! | compact until the policy names no more victims | `compactor.rs` |
//! | make room for a writer that waits for memory | `compactor/relief.rs` |
//! | split the large files of an idle store | `compactor/split.rs` |
//! | show the segments to the policy, and check its answer | `choice.rs` |
//! | drop dead records from the victims' images | `memory.rs` |
//! | find the records of the victims that must stay | `survivors.rs` |
//! | copy them to new segments, and remove the victims | `disk.rs` |
//! | keep the two levels out of each other's segments | `claims.rs` |

mod choice;
mod claims;
mod compactor;
mod disk;
mod memory;
mod survivors;

pub(crate) use choice::Extent;
pub(crate) use compactor::Compactor;
