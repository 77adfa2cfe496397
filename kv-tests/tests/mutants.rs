//! Tests of the suite: it must fail the mutants' engine with any single defect. This command prints
//! a table: each defect, the case that finds it, and the complaint.
//!
//! ```text
//! cargo test -p kv-tests --test mutants -- --nocapture
//! ```

mod by_case;

use by_case::{ACROSS_PROCESSES, REFERENCE};
use kv_core::EngineFactory;
use kv_tests::reference::{Defect, ReferenceFactory};
use kv_tests::{Case, Settings, Verdict, all_cases, run_case};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Cases that wait for a thread or a task of the engine. They fail a defect only when a watchdog's
/// time is over.
const WAITING: &[&str] = &["kv529", "kv807", "kv808", "kv810", "kv831", "kv832", "kv833", "kv834"];

/// The complaint of the case `number` about an engine with this defect; `None` if it passes.
fn complaint(defect: Defect, number: &str) -> Option<String> {
    let factory: Arc<dyn EngineFactory> = Arc::new(ReferenceFactory::with_defect(defect));
    let run = Settings::from_env().expect("the variables of the suite have valid values");
    let timeout = Duration::from_secs(if WAITING.contains(&number) { 8 } else { 60 });
    match run_case(&by_case::case(number), &factory, &Settings { timeout, ..run }).0 {
        Verdict::Failed(failure) => Some(failure.violated().to_owned()),
        _ => None,
    }
}

#[test]
fn the_case_for_a_defect_finds_it() {
    let (next, survivors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let run = || {
        while let Some((defect, number)) = REFERENCE.get(next.fetch_add(1, Ordering::Relaxed)) {
            match complaint(*defect, number) {
                Some(violated) => println!("{number} {defect:?}: {violated}"),
                None => survivors.lock().expect("no other thread panics").push((*defect, *number)),
            }
        }
    };
    // More threads than processors: many cases wait for a time to pass.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(run);
        }
    });
    let survivors = survivors.into_inner().expect("no other thread panics");
    assert!(survivors.is_empty(), "these cases do not find their defects: {survivors:?}");
}

#[test]
fn every_defect_has_a_case() {
    for defect in Defect::ALL.iter().filter(|defect| !Defect::CONCURRENT.contains(defect)) {
        let known = REFERENCE.iter().chain(ACROSS_PROCESSES).any(|(known, _)| known == defect);
        assert!(known, "tests/by_case/mod.rs names no case for {defect:?}");
    }
}

/// Other cases may find these defects, too. Here the judge of histories must find them.
#[test]
fn the_judge_of_histories_finds_concurrent_defects() {
    let judges: Vec<Case> =
        all_cases().into_iter().filter(|case| case.id.starts_with("linearizability")).collect();
    for defect in Defect::CONCURRENT {
        let factory: Arc<dyn EngineFactory> = Arc::new(ReferenceFactory::with_defect(*defect));
        let shown = judges.iter().find(|case| match run_case(case, &factory, &Settings::default()).0 {
            Verdict::Failed(failure) => failure.fact("history").is_some(),
            _ => false,
        });
        assert!(shown.is_some(), "no case finds {defect:?}");
    }
}
