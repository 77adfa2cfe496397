//! Recovery: an opening finds the state of a store from its files.
//!
//! | to | file |
//! |---|---|
//! | open a store: lock it, recover it, repair its files, wire its parts | `open.rs` |
//! | find its segments and its index | `recovered.rs` |
//! | read segments into the index | `replay.rs` |
//! | judge the end of a segment | `verdict.rs` |
//! | judge files that the manifest does not name | `orphans.rs` |

mod open;
mod orphans;
mod recovered;
mod replay;
mod verdict;

pub(crate) use open::open;
pub(crate) use orphans::examine_all as examine_unnamed;
pub(crate) use verdict::{Before, Ending, Named, Scanned, Verdict, decide, sealed_ending, unsealed_ending};
