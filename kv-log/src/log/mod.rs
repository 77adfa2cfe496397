//! The log in memory: the active segment, and the spares that follow it.
//!
//! | to | file |
//! |---|---|
//! | take LSNs and append records, under the commit lock | `end.rs` |
//! | seal the active segment and go on in the next one | `roll.rs` |
//! | make that segment ahead of need | `spares.rs` |

mod end;
mod roll;
mod spares;

pub(crate) use end::{LockedEnd, LogEnd, MARK_LEN_MAX, SEAL_LEN_MAX};
pub(crate) use roll::Log;
pub(crate) use spares::{Spares, create_active, fitting_capacity};
