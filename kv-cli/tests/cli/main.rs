//! The built command, as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compact;
mod compare;
mod files;
mod options;
mod output;
mod run;
mod scan;
mod shell;
mod signals;
mod single;
mod terminal;
mod transfer;
