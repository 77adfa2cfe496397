//! The manifest and the segment files of a store: their creation, their order and their removal.

mod catalog;
mod content;
mod leftovers;
mod maker;
mod reserve;

pub(crate) use catalog::{Catalog, Unnamed};
pub(crate) use content::{Entry, Manifest, header_error};
pub(crate) use maker::SegmentMaker;
pub(crate) use reserve::{Need, Room};
