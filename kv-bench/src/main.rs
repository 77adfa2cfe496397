//! The evaluation: runs engines over generated workloads in child processes, verifies each run against a
//! ground truth, and reports what was measured.
//!
//! | file | holds |
//! |---|---|
//! | `args.rs` | the command line |
//! | `evaluation.rs` | runs the experiments, writes what they measured |
//! | `experiments/` | one experiment a file: which runs, how one is measured, what is reported |
//! | `child.rs`, `worker.rs` | a run in a process of its own: the parent's side, and the child's |
//! | `engine/` | the rows that the log engine is held against, and how each is measured |
//! | `subjects/` | what is measured there: our engines, volatile tables, stores of others; one a file |
//! | `scratch.rs` | where stores lie while they are measured |
//! | `engines.rs` | the engines, and the policies they run under |
//! | `dataset.rs`, `workload.rs` | keys and values from numbers; commands from a seed, and the ground truth |
//! | `verify.rs` | an engine against the ground truth |
//! | `results.rs`, `machine.rs` | `results.json` |
//! | `report.rs`, `figure.rs`, `units.rs` | tables on the terminal, and `report.html` |

#![deny(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]
#![allow(clippy::cast_precision_loss, reason = "measurements become floating-point numbers")]
#![allow(clippy::disallowed_methods, reason = "it looks at files and processes from outside the engines")]

mod args;
mod child;
mod dataset;
mod engine;
mod engines;
mod evaluation;
mod experiments;
mod failure;
mod figure;
#[cfg(test)]
mod lying;
mod machine;
mod report;
mod results;
mod scratch;
mod subjects;
mod units;
mod verify;
mod worker;
mod workload;

use clap::{CommandFactory, Parser};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match args::Args::parse().command {
        args::Command::Compare(options) => {
            if let Err(text) = options.validate() {
                args::Args::command().error(clap::error::ErrorKind::ValueValidation, text).exit();
            }
            evaluation::compare(&options)
        }
        args::Command::Engine(options) => {
            if !engine::has_row(&options) {
                let text = "--only names no row; without it, the table lists them all";
                args::Args::command().error(clap::error::ErrorKind::ValueValidation, text).exit();
            }
            engine::run(&options)
        }
        args::Command::Worker { run } => worker::run(&run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kv-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
