//! The log in memory: the active segment, and the spares that follow it.

mod end;
mod roll;
mod spares;

pub(crate) use end::{LockedEnd, LogEnd, MARK_LEN_MAX, SEAL_LEN_MAX};
pub(crate) use roll::Log;
pub(crate) use spares::{Spares, create_active, fitting_capacity};
