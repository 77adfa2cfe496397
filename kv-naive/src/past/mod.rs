//! Past states: old snapshots that stay, and the points.
//!
//! A *moment* is a state that a call can reach: an old snapshot, the newest one, or the state of
//! the table. The policy sees each old snapshot as superseded at the LSN of the next one. A point
//! keeps its snapshot for longer than the policy does.
//!
//! The leader of a snapshot writes and removes these files. A call for a past state takes the lead
//! as well, while it looks up the moments and opens the files that it must have. It reads them
//! without the lead, so dumps go on meanwhile. A snapshot that expires before the call opens it is
//! no moment any more, and the call goes on without it.

mod backup;
mod calls;
mod files;
mod kept;
mod leftovers;
mod opened;
mod points;
mod restore;
mod view;

pub(crate) use files::{find, keep};
pub(crate) use kept::{Kept, Taken};
pub(crate) use leftovers::Leftovers;
pub(crate) use points::{List, POINTS, encode as encode_points, read as read_points};
