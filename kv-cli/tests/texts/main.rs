//! Every error text that a user can see, in one listing: `errors.txt`, beside this file.
//!
//! The rows provoke the errors through the public API, and the test compares their texts with the
//! listing. A change of a text shows as a change of the listing, so a reviewer reads it once more.
//!
//! | file | its rows |
//! |---|---|
//! | `calls.rs` | calls and settings that an engine refuses |
//! | `refusals.rs` | operations that the system refuses, and full disks |
//! | `log/` | damaged directories and files of kv-log |
//! | `naive/` | damaged directories and files of kv-naive |
//! | `unprovoked.rs` | errors that no store here provokes |
//! | `command.rs`, `tools.rs` | the command `kv` |
//!
//! `disk.rs` has the tools that change files, `listing.rs` compares. The system's part of a text is
//! that of Linux with glibc.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod calls;
mod command;
mod disk;
mod listing;
mod log;
mod naive;
mod refusals;
mod tools;
mod unprovoked;

use listing::{Section, check};

#[test]
fn every_error_text_is_the_accepted_one() {
    let section = |title, rows| Section { title, rows };
    check(&[
        section("any engine: calls", calls::rows()),
        section("any engine: limits", calls::limits()),
        section("kv-log: options", calls::options()),
        section("kv-log: the system refuses an operation", refusals::log()),
        section("kv-naive: the system refuses an operation", refusals::naive()),
        section("kv-log: the system is short of something", refusals::shortages()),
        section("kv-log: an open store fails", refusals::failures()),
        section("kv-log: the directory", log::directory::rows()),
        section("kv-log: the manifest", log::manifest::rows()),
        section("kv-log: the segments", log::segments::rows()),
        section("kv-log: a file changes while the store is open", log::cold::rows()),
        section("kv-log: the damages that examine names", log::inspect::damage()),
        section("kv-log: examine, dump and repair", log::inspect::errors()),
        section("kv-naive: the directory", naive::directory::rows()),
        section("kv-naive: the identity", naive::identity::rows()),
        section("kv-naive: the snapshot", naive::snapshot::rows()),
        section("kv-naive: past states", naive::past::rows()),
        section("kv-core: errors that the test makes itself", unprovoked::errors()),
        section("kv-wal-format: the encoder", unprovoked::encoder()),
        section("kv-wal-format: the decoder", unprovoked::decoder()),
        section("kv: the command line", command::rows()),
        section("kv: the shell", command::shell()),
        section("kv: commands on files and between stores", tools::rows()),
    ]);
}
