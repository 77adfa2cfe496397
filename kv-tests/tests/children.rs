//! Tests of the cases that need other processes: they must fail the mutants' engine with these
//! defects. A mutant runs in a process of its own, which is a test binary like any other. So it can
//! start children.

#![allow(clippy::print_stdout, reason = "the complaints are for the reader of a test's output")]

use kv_tests::Suite;
use kv_tests::reference::{Defect, ReferenceFactory};
use std::process::{Command, ExitCode};

/// The defects, and the case that must find each.
const BY_CASE: &[(Defect, &str)] = &[
    (Defect::LocksWithinProcess, "lifecycle::required_kv415_locked_across_processes"),
    (Defect::AcknowledgeBeforeDump, "process::required_kv903_killed_after_every_answer"),
    (Defect::LeaksFiles, "process::required_kv906_a_closed_store_holds_no_file_and_no_thread"),
    (Defect::LeaksStore, "process::required_kv906_a_closed_store_holds_no_file_and_no_thread"),
];

/// Set in the environment of a mutant's process: the number of its defect in the table.
const DEFECT: &str = "KV_TESTS_DEFECT";

const SUITE: Suite = Suite {
    manifest_dir: env!("CARGO_MANIFEST_DIR"),
    target: env!("CARGO_CRATE_NAME"),
    file: file!(),
    cases: &[],
    skip: &[],
    images: option_env!("CARGO_TARGET_TMPDIR"),
};

fn main() -> ExitCode {
    let number = std::env::var(DEFECT).ok().and_then(|number| number.parse::<usize>().ok());
    if let Some((defect, _)) = number.and_then(|number| BY_CASE.get(number)) {
        return kv_tests::run(ReferenceFactory::with_defect(*defect), &SUITE);
    }
    let mut code = ExitCode::SUCCESS;
    for (number, (defect, case)) in BY_CASE.iter().enumerate() {
        let this = std::env::current_exe().expect("a test binary has a path");
        let output = Command::new(this)
            .args(["--exact", *case])
            .env(DEFECT, number.to_string())
            .output()
            .expect("a test binary starts itself");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match text.lines().find(|line| line.starts_with("violated")) {
            Some(violated) if !output.status.success() => println!("{case} {defect:?}: {violated}"),
            _ => {
                println!("{case} does not find {defect:?}:\n{text}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
