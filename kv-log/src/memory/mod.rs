//! Memory from the system, and hints to the processor.

mod mapped;
mod prefetch;
mod shared;

/// The unit in which a processor fetches memory, bytes.
pub(crate) const CACHE_LINE: usize = 64;

pub(crate) use mapped::{Mapped, Plain};
pub(crate) use prefetch::prefetch;
pub(crate) use shared::{CONTROL_LEN, SharedObjects, Tie};
