//! Reclamation: when memory that readers may still use can be freed.
//!
//! [`epoch`] protects all memory that a reader finds, while its look-up runs. [`hazard`] protects
//! single pieces of memory, while the caller's code looks at a value. Both know memory by its
//! address only. Each thread announces its look-ups in its [`reader`].

mod barrier;
mod epoch;
mod hazard;
mod reader;

pub(crate) use epoch::{Guard, collect, defer, pin};
pub(crate) use hazard::{HAZARDS_MAX, Hold, is_protected};
pub(crate) use reader::begin;
