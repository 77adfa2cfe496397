//! The evaluation: runs subjects over generated loads in child processes, verifies each run against
//! a ground truth, and reports the figures.
//!
//! | file or folder | holds |
//! |---|---|
//! | `args.rs` | the command line |
//! | `compare/` | `kv-bench compare`: for each section of the report, its experiments and its text |
//! | `engine/` | `kv-bench engine`: the targets of the log engine, and its experiments |
//! | `moments/` | `kv-bench moments`: the same for past states, backups and repairs |
//! | `targets/` | figures with targets: rows, verdicts, and their table in a document |
//! | `lab.rs`, `experiment.rs` | runs experiments; an experiment, its cases and its outcome |
//! | `tasks/` | the measurements, one a file, and the child process that carries them out |
//! | `process/` | a run in a process of its own, seen by the parent |
//! | `load/` | keys, values and commands from a seed; the ground truth |
//! | `subjects/` | the stores and tables under measurement, one a file |
//! | `report/`, `units.rs` | tables, figures, `report.html`, `results.json` |
//!
//! Every measurement takes one way. A command plans experiments. The lab runs each of their cases
//! in a child process. The child carries out the task, verifies its subject, and returns the
//! values.

#![deny(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]
#![allow(clippy::cast_precision_loss, reason = "measurements become floating-point numbers")]
#![allow(clippy::disallowed_methods, reason = "it looks at files and processes from outside the engines")]

mod args;
mod compare;
mod engine;
mod experiment;
mod failure;
mod lab;
mod load;
mod moments;
mod process;
mod report;
mod subjects;
mod targets;
mod tasks;
mod units;

use args::TargetOptions;
use clap::{CommandFactory, Parser};
use failure::Failure;
use std::process::ExitCode;
use targets::Plan;

fn main() -> ExitCode {
    let result = match args::Args::parse().command {
        args::Command::Compare(options) => {
            if let Err(text) = options.validate() {
                args::Args::command().error(clap::error::ErrorKind::ValueValidation, text).exit();
            }
            compare::command::run(&options)
        }
        args::Command::Engine(options) => judged(&options, engine::plan),
        args::Command::Moments(options) => judged(&options, moments::plan),
        args::Command::Publish { document, out } => targets::document::publish(&out, &document),
        args::Command::Worker { run } => tasks::worker::run(&run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kv-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Measures the rows of a plan that the options name.
fn judged(options: &TargetOptions, plan: fn(&TargetOptions) -> Result<Plan, Failure>) -> Result<(), Failure> {
    let plan = plan(options)?.narrowed(options);
    if plan.rows.is_empty() {
        let text = "--only names no row; without it, the table lists them all";
        args::Args::command().error(clap::error::ErrorKind::ValueValidation, text).exit();
    }
    targets::command::run(options, plan)
}
