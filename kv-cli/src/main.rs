//! The `kv` command: a shell and single commands for kv-log and kv-naive stores.
//!
//! | file | holds |
//! |---|---|
//! | `args.rs` | the command line |
//! | `store.rs` | opens the store with the access that the command needs |
//! | `commands.rs` | opens the store, carries out one command, closes it, answers |
//! | `shell.rs` | commands from standard input |
//! | `signals.rs` | the end of a shell by a signal |
//! | `lines.rs` | the lines of an input, in bounded memory |
//! | `interactive.rs` | lines that a user edits on a terminal |
//! | `scan.rs` | the pairs of a store as lines |
//! | `compare.rs` | differences of two stores, and the largest pairs |
//! | `past/` | targets, histories and points as text; the past states that a command keeps |
//! | `transfer/` | export, import and copy |
//! | `files/` | inspect, dump, verify and repair; tails |
//! | `progress.rs`, `colour.rs` | progress and colours on a terminal |
//! | `text.rs` | keys and values as text |
//! | `figures.rs` | figures as table, line and JSON |
//! | `failure.rs` | why a command failed, and its exit code |

#![forbid(unsafe_code)]

mod args;
mod colour;
mod commands;
mod compare;
mod failure;
mod figures;
mod files;
mod interactive;
mod lines;
mod manual;
mod past;
mod progress;
mod scan;
mod shell;
mod signals;
mod store;
mod text;
mod transfer;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run(&args::Args::parse()) {
        Ok(code) => code,
        Err(failure) => failure.report().into(),
    }
}
