//! The manifest and the segment files of a store: their creation, their order and their removal.

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
pub(crate) use content::{CheckpointName, Entry, Manifest, header_error, misfit};
pub(crate) use exchange::Replaced;
pub(crate) use leftovers::Held;
pub(crate) use maker::SegmentMaker;
pub(crate) use reserve::{Need, Room};
pub(crate) use window::{PastFile, PastFiles};
