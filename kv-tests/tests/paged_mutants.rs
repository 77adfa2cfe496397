//! Tests of the suite: it must fail the paged engine with any single defect.
//!
//! ```text
//! cargo test -p kv-tests --test paged_mutants -- --nocapture
//! cargo test -p kv-tests --test paged_mutants -- --ignored --nocapture
//! ```
//!
//! The first command runs, for each defect, the case that is known to find it. The second one runs
//! every defect against all cases, and prints a table. `PAGED_SHARD=0/2` takes each second defect.

#[path = "paged/mod.rs"]
mod paged;

use kv_core::EngineFactory;
use kv_tests::{Case, Settings, Verdict, all_cases, run_case};
use paged::{Defect, PagedFactory};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time after which a case counts as a deadlock.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The first case that fails an engine with this defect, and its complaint.
fn kill(defect: Defect, cases: &[Case]) -> Option<(&'static str, String)> {
    let factory: Arc<dyn EngineFactory> = Arc::new(PagedFactory::with_defect(defect));
    let settings = Settings { timeout: TIMEOUT, ..Settings::default() };
    cases.iter().find_map(|case| match run_case(case, &factory, &settings).0 {
        Verdict::Failed(failure) => Some((case.id, failure.violated().to_owned())),
        _ => None,
    })
}

/// The defects of this process: all of them, or the share that `PAGED_SHARD` names.
fn share() -> impl Iterator<Item = &'static (Defect, &'static str)> {
    let shard = std::env::var("PAGED_SHARD").ok();
    let numbers = shard.as_deref().and_then(|shard| {
        let (number, of) = shard.split_once('/')?;
        Some((number.parse().ok()?, of.parse().ok()?))
    });
    let (number, of): (usize, usize) = numbers.unwrap_or((0, 1));
    Defect::ALL.iter().skip(number).step_by(of)
}

/// Cases that take seconds. The survey runs them last, and only where they may find something.
const LONG: &[&str] = &["kv751", "kv752", "kv426", "kv651", "kv507", "kv654", "kv501", "kv508"];

/// Dimensions that sweeps of crashes and damages cannot tell.
const WITHOUT_SWEEPS: &[&str] = &["policy", "callbacks, scan", "lifecycle", "concurrency", "read_many"];

fn is_long(case: &Case) -> Option<usize> {
    LONG.iter().position(|number| case.id.contains(number))
}

#[test]
#[ignore = "it runs for a quarter of an hour"]
fn survey() {
    let mut cases = all_cases();
    cases.sort_by_key(is_long);
    for (defect, dimension) in share() {
        let is_sweep = |case: &Case| is_long(case).is_some_and(|place| place > 2);
        let without_sweeps = WITHOUT_SWEEPS.contains(dimension);
        let cases: Vec<Case> =
            cases.iter().filter(|case| !(without_sweeps && is_sweep(case))).copied().collect();
        let start = Instant::now();
        let kill = kill(*defect, &cases);
        let (case, violated) = kill.unwrap_or(("SURVIVED", String::new()));
        let number = case.split('_').find(|word| word.starts_with("kv")).unwrap_or(case);
        let short: String = violated.chars().take(110).collect();
        let seconds = start.elapsed().as_secs();
        println!("| {dimension} | {defect:?} | {number} | {seconds} s | {} |", short.replace('\n', " "));
    }
}
