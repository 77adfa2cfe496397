//! The manifest and the files of a store: their creation, their order and their removal.
//!
//! | to | file |
//! |---|---|
//! | know the segments, and store the manifest that names them | `catalog.rs` |
//! | create segments for the log and for survivors | `creation.rs`, with `maker.rs` |
//! | replace victims by outputs | `exchange.rs` |
//! | keep replaced segments for past states | `window.rs`, with `archive.rs` |
//! | name the newest checkpoint | `checkpoints.rs` |
//! | encode and decode the manifest | `content.rs` |
//! | remove files that the manifest no longer names | `leftovers.rs` |
//! | hold disk space for a full disk | `reserve.rs` |

mod archive;
mod catalog;
mod checkpoints;
mod content;
mod creation;
mod exchange;
mod leftovers;
mod maker;
mod reserve;
mod window;

pub(crate) use archive::{Archive, Archived};
pub(crate) use catalog::{Catalog, Unnamed};
pub(crate) use content::{CheckpointName, Entry, Manifest, header_error, header_of, misfit};
pub(crate) use exchange::Replaced;
pub(crate) use leftovers::Held;
pub(crate) use maker::SegmentMaker;
pub(crate) use reserve::{Need, Room};
pub(crate) use window::{PastFile, PastFiles};
