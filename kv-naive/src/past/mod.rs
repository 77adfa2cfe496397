//! Past states: old snapshots that stay, and the points.
//!
//! A state of the window that can be reached is a *moment*: an old snapshot, the newest one, or the
//! state of the table. The policy sees each old snapshot as superseded at the LSN of the next one.
//! A point keeps its snapshot beyond the policy.
//!
//! The leader of a snapshot writes and removes these files. A call for a past state leads as well
//! while it looks which states there are, and opens the files that it must have. It reads them
//! without the lead, so dumps go on meanwhile. A snapshot that expires before the call opens it is
//! no state of the window any more, and the call does without it.

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
