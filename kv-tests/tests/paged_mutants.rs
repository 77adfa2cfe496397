//! Tests of the suite: it must fail the paged engine with any single defect.
//!
//! ```text
//! cargo test -p kv-tests --test paged_mutants -- --nocapture
//! cargo test -p kv-tests --test paged_mutants -- --ignored --nocapture
//! ```
//!
//! The first command runs, for each defect, the case that is known to find it. The second one runs
//! every defect against all cases, and prints a table. `PAGED_DEFECTS=NoReserve,WriteIsHold` takes
//! only these, and `PAGED_SHARD=0/2` each second one.

mod by_case;
#[path = "paged/mod.rs"]
mod paged;

use by_case::PAGED;
use kv_core::EngineFactory;
use kv_tests::{Case, Settings, Verdict, all_cases, run_case};
use paged::{Defect, PagedFactory};
use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Defects that let a call wait forever.
const DEADLOCKS: &[Defect] = &[Defect::ReadHoldsView, Defect::ReadHoldsCommitLock, Defect::ScanHoldsView];

/// Defects that no case finds, each with the reason.
const SURVIVORS: &[(Defect, &str)] = &[
    (Defect::TornBytesNotReported, "the contract does not say which bytes of a torn tail count"),
    (Defect::UnfinishedFilesStay, "the next open removes them, so they do not add up"),
    (Defect::LeftoversForgotten, "the next open removes them, so they do not add up"),
    (Defect::CompactLeavesThread, "the suite counts threads only across a close"),
    (Defect::NoGroupCommit, "how many callers share a sync is no promise to threads"),
    (Defect::PositionAfterBuffer, "only a race shows it: kv710 finds it in some runs"),
    (Defect::CloseWakesNoTask, "only a race shows it: kv812 finds it in some runs"),
    (
        Defect::IdleSyncIgnoresPoison,
        "only a failure with nothing pending shows it: kv601 finds it in some runs",
    ),
    (Defect::SnapshotGenerationUnchecked, "an older copy of one file of the same store"),
    (Defect::MissingLogIsEmpty, "a file that is missing after a crash may never have been durable"),
];

/// Where the survey looks first, by dimension; and whether the longest sweeps may find something.
const LOOK_FIRST: &[(&str, &[&str], bool)] = &[
    ("lifecycle", &["lifecycle::", "read_only::", "directory::"], false),
    ("corruption", &["corruption::"], true),
    ("durability", &["errors::", "crash::"], true),
    ("read_many", &["model::"], false),
];

/// Cases that take seconds. The survey runs them last.
const LONG: &[&str] = &["kv751", "kv752", "kv426"];

/// Sweeps that take many seconds. The survey runs them at the very end, or not at all.
const SWEEPS: &[&str] = &["kv651", "kv507", "kv654", "kv501", "kv508"];

fn is_any_of(case: &Case, parts: &[&str]) -> bool {
    parts.iter().any(|part| case.id.contains(part))
}

/// The cases for defects of a dimension, in the order in which the survey runs them.
fn cases_for(dimension: &str) -> Vec<Case> {
    let known = LOOK_FIRST.iter().find(|(name, ..)| *name == dimension);
    let (first, with_sweeps) = known.map_or((&[][..], false), |(_, first, sweeps)| (*first, *sweeps));
    let mut cases = all_cases();
    cases.retain(|case| with_sweeps || !is_any_of(case, SWEEPS));
    cases.sort_by_key(|case| (is_any_of(case, SWEEPS), is_any_of(case, LONG), !is_any_of(case, first)));
    cases
}

/// The first case that fails an engine with this defect, and its complaint. A case that takes
/// longer than `timeout` counts as a deadlock.
fn kill(defect: Defect, cases: &[Case], timeout: Duration) -> Option<(&'static str, String)> {
    let factory: Arc<dyn EngineFactory> = Arc::new(PagedFactory::with_defect(defect));
    let run = Settings::from_env().expect("the variables of the suite have valid values");
    let settings = Settings { timeout, ..run };
    cases.iter().find_map(|case| match run_case(case, &factory, &settings).0 {
        Verdict::Failed(failure) => Some((case.id, failure.violated().replace('\n', " "))),
        _ => None,
    })
}

#[test]
fn the_case_for_a_defect_finds_it() {
    let (next, survivors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let run = || {
        while let Some((name, number)) = PAGED.get(next.fetch_add(1, Ordering::Relaxed)) {
            let defect = &of_name(name);
            let case = [by_case::case(number)];
            let timeout = Duration::from_secs(if DEADLOCKS.contains(defect) { 8 } else { 120 });
            match kill(*defect, &case, timeout) {
                Some((_, violated)) => println!("{number} {defect:?}: {violated}"),
                None => survivors.lock().unwrap().push((*defect, *number)),
            }
        }
    };
    // More threads than processors: many cases wait for a time to pass.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(run);
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "these cases do not find their defects: {survivors:?}");
}

fn of_name(name: &str) -> Defect {
    let found = Defect::ALL.iter().find(|(defect, _)| format!("{defect:?}") == *name);
    found.unwrap_or_else(|| panic!("there is no defect {name}")).0
}

#[test]
fn every_defect_is_in_one_list() {
    for (defect, _) in Defect::ALL {
        let found = PAGED.iter().filter(|(name, _)| of_name(name) == *defect).count();
        let survivors = SURVIVORS.iter().filter(|(known, _)| known == defect).count();
        assert_eq!(found + survivors, 1, "{defect:?}");
    }
}

/// The defects that the environment selects.
fn selected() -> Vec<(Defect, &'static str)> {
    let names = env::var("PAGED_DEFECTS").ok();
    let is_named = |defect: &Defect| {
        names.as_ref().is_none_or(|names| names.split(',').any(|name| name == format!("{defect:?}")))
    };
    let shard = env::var("PAGED_SHARD").ok();
    let shard = shard.as_deref().and_then(|shard| shard.split_once('/'));
    let (number, of) =
        shard.map_or((0, 1), |(number, of)| (number.parse().unwrap_or(0), of.parse().unwrap_or(1)));
    Defect::ALL.iter().filter(|(defect, _)| is_named(defect)).skip(number).step_by(of).copied().collect()
}

#[test]
#[ignore = "it runs for half an hour"]
fn survey() {
    let mut found = Vec::new();
    for (defect, dimension) in selected() {
        let start = Instant::now();
        let (case, violated) = kill(defect, &cases_for(dimension), Duration::from_mins(1))
            .unwrap_or(("SURVIVED", String::new()));
        let number = case.split('_').find(|word| word.starts_with("kv")).unwrap_or(case);
        let short: String = violated.chars().take(110).collect();
        println!("| {dimension} | {defect:?} | {number} | {} s | {short} |", start.elapsed().as_secs());
        if number != case && SURVIVORS.iter().any(|(known, _)| *known == defect) {
            found.push((defect, number));
        }
    }
    println!("survivors that a case finds now: {found:?}");
    assert!(found.is_empty(), "move these to tests/by_case/mod.rs: {found:?}");
}
