//! Segments: the units in which the log is allocated, written, compacted and freed.
//!
//! A [`segment`] is one memory [`image`] and one [`file`](mod@file) with the same bytes. Its slot
//! in the [`table`] is the first part of every [`Location`] in it. [`stage`] lists the stages of
//! its life.
//!
//! Once a segment is durable, compaction in memory may replace it by one with the same id and file,
//! a smaller image, and another slot. The evictor may take its image ([`residence`]). The segment
//! is cold then: readers read its records from the file ([`cold`]). A replaced segment and an image
//! that was taken wait in [`limbo`] until no reader uses them. A free image waits in the [`pool`].

mod cold;
mod file;
mod files;
mod found;
mod image;
mod limbo;
mod location;
mod pool;
mod residence;
mod segment;
mod shifts;
mod slots;
mod stage;
mod table;
mod tally;
mod unverified;

pub(crate) use cold::{Contents, Fetched};
pub(crate) use file::{SegmentFile, Via, fill_sparsely};
pub(crate) use files::SegmentFiles;
pub(crate) use found::{Found, Look};
pub(crate) use image::Image;
pub(crate) use location::{Location, SEGMENT_BYTES_MAX, SEGMENTS_MAX, SLOTS_FOR_COMPACTION};
pub(crate) use segment::Segment;
pub(crate) use shifts::Shifts;
pub(crate) use table::SegmentTable;
pub(crate) use tally::FileFacts;
