//! Tests of the cases that need other processes: they must fail the mutants' engine with these
//! defects. A mutant runs in a process of its own, which is a test binary like any other. So it can
//! start children.

#![allow(clippy::print_stdout, reason = "the complaints are for the reader of a test's output")]

mod by_case;

use by_case::ACROSS_PROCESSES;
use kv_tests::Suite;
use kv_tests::reference::ReferenceFactory;
use std::process::{Command, ExitCode};

/// Set in the environment of a mutant's process: the number of its defect in the table.
const DEFECT: &str = "KV_TESTS_DEFECT";

const SUITE: Suite = kv_tests::suite!(&[], &[]);

fn main() -> ExitCode {
    let number = std::env::var(DEFECT).ok().and_then(|number| number.parse::<usize>().ok());
    if let Some((defect, _)) = number.and_then(|number| ACROSS_PROCESSES.get(number)) {
        return kv_tests::run(ReferenceFactory::with_defect(*defect), &SUITE);
    }
    let mut code = ExitCode::SUCCESS;
    for (number, (defect, case)) in ACROSS_PROCESSES.iter().enumerate() {
        let case = by_case::case(case).id;
        let this = std::env::current_exe().expect("a test binary has a path");
        let output = Command::new(this)
            .args(["--exact", case])
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
