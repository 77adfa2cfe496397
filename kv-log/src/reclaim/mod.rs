//! Reclamation: when memory that readers may still use can be freed.
//!
//! [`epoch`] protects everything that a reader finds for the moment of a look-up. [`hazard`]
//! protects single pieces of memory for as long as a caller's code looks at a value. Both know
//! memory by its address only.

mod barrier;
mod epoch;
mod hazard;
mod reader;

pub(crate) use epoch::{Guard, collect, defer, pin};
pub(crate) use hazard::{HAZARDS_MAX, Hold, is_protected};
pub(crate) use reader::begin;
