//! Tools for the files of a store. All but the [`Follower`] are for a closed store: they hold the
//! lock of a reader, so an opening for writing is refused meanwhile.
//!
//! | to | call |
//! |---|---|
//! | check every file, and list the segments | [`examine`] |
//! | see every record | [`dump`] |
//! | see the changes of an open store as they reach the files | [`Follower`] |
//! | save the intact records of a damaged store | [`repair`] |
//! | look at past states, and restore one | [`ClosedPast`] |

mod damage;
mod dump;
mod examine;
mod follow;
mod judge;
mod newest;
mod origin;
mod pass;
mod repair;
mod segment;
mod survey;
mod walk;

pub use damage::{Damage, Lost, LostChange};
pub use dump::{Part, dump};
pub use examine::{Examination, FileRole, ManifestSummary, OtherFile, examine};
pub use follow::{Followed, Follower};
pub use repair::{Repair, StaleKey, repair};
pub use segment::{SegmentState, SegmentSummary};
pub(crate) use survey::{Survey, is_damage};
pub(crate) use walk::is_zero;

pub use crate::past::ClosedPast;
pub use crate::progress::{OnProgress, Progress, silently};
