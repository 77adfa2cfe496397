//! The evaluation: runs the engines over generated workloads in child processes, verifies each run against a ground
//! truth, and reports what was measured.
//!
//! | file | holds |
//! |---|---|
//! | `args.rs` | the command line |
//! | `workload.rs` | commands, keys and values from a seed, and the ground truth |
//! | `worker.rs` | one measured run, in a process of its own |
//! | `compare.rs` | the experiments: which runs, and what is taken from them |
//! | `results.rs`, `report.rs` | `results.json`; the table and `report.html` |

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]
#![allow(clippy::cast_precision_loss, reason = "measurements become floating-point numbers")]
#![allow(clippy::disallowed_methods, reason = "it looks at files and processes from outside")]

mod args;
mod compare;
mod report;
mod results;
mod worker;
mod workload;

use clap::Parser;
use std::process::ExitCode;

/// What may go wrong in an evaluation; any of it voids the run.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let result = match args::Args::parse().command {
        args::Command::Compare(options) => match options.validate() {
            Ok(()) => compare::run(&options),
            Err(text) => {
                eprintln!("kv-bench: {text}");
                return ExitCode::from(2);
            }
        },
        args::Command::Worker { run } => worker::run(&run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kv-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
