//! The `kv` command: a shell and single commands for kv-log and kv-naive stores.
//!
//! | file | holds |
//! |---|---|
//! | `args.rs` | the command line |
//! | `commands.rs` | opens the store, carries out one command, closes it |
//! | `shell.rs` | commands from standard input |
//! | `text.rs` | keys and values as text |
//! | `figures.rs` | the figures of a store as table, line and JSON |

#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "it is a command")]

mod args;
mod commands;
mod figures;
mod shell;
mod text;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run(&args::Args::parse()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("kv: {failure}");
            failure.code()
        }
    }
}
