//! The log in memory: the active segment, and the spares that follow it.

mod end;
mod roll;
mod spares;

pub(crate) use end::{LockedEnd, LogEnd, MARK_LEN, SEAL_LEN};
pub(crate) use roll::Log;
pub(crate) use spares::{Spares, create_active, fitting_capacity};
