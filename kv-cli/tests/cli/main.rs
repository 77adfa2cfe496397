//! The built command, as a user runs it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod bad_input;
mod compact;
mod compare;
mod documents;
mod files;
mod options;
mod output;
mod past;
mod run;
mod scan;
mod shell;
mod signals;
mod single;
mod tail;
mod terminal;
mod transfer;
mod warnings;
