//! Examination and repair of damaged stores.

#![allow(clippy::disallowed_methods, reason = "the tests look at, copy and damage the files of a store")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod crashes;
mod damage;
mod histories;
mod looks;
mod place;
#[path = "../store_files/mod.rs"]
mod store_files;
mod versions;
