//! The `kv` command: a shell and single commands for kv-log and kv-naive stores.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]

mod args;
mod commands;
mod shell;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run(&args::Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kv: {error}");
            ExitCode::FAILURE
        }
    }
}
