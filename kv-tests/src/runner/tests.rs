use super::*;
use crate::reference::{Defect, ReferenceFactory};
use kv_core::fs::FsExt;

const BREAK: &str = "scan::required_kv301_every_key_once";

fn suite(skip: &'static [(&'static str, &'static str)]) -> Suite {
    Suite {
        manifest_dir: "/p",
        target: "my_suite",
        file: "tests/my-suite.rs",
        cases: &[OWN],
        skip,
        images: None,
    }
}

/// A case that every engine fails.
const OWN: Case = Case {
    id: "own::required_the_impossible",
    level: Level::Required,
    needs: &[],
    summary: "The impossible happens.",
    run: |_| Err(Failure::new("the impossible does not happen")),
};

/// Runs the trials of one case, and counts: passed, failed, ignored.
fn run_trials_of(
    id: &str,
    factory: ReferenceFactory,
    skip: &'static [(&'static str, &'static str)],
) -> [u64; 3] {
    let factory: Arc<dyn EngineFactory> = Arc::new(factory);
    let all = trials(&factory, &suite(skip), &Settings::default(), &Arc::default(), &Arc::default());
    let chosen = all.into_iter().filter(|trial| trial.name().ends_with(id)).collect();
    // A file for the report, which says that tests failed: on standard output it would look
    // like this run's.
    let dir = tempfile::tempdir().unwrap();
    let logfile = Some(dir.path().join("report").display().to_string());
    let arguments = Arguments { logfile, ..Arguments::default() };
    let conclusion = libtest_mimic::run(&arguments, chosen);
    [conclusion.num_passed, conclusion.num_failed, conclusion.num_ignored]
}

#[test]
fn an_opt_out_is_ignored_and_fails_once_it_is_stale() {
    let broken = ReferenceFactory::with_defect(Defect::ScanDoesNotBreak);
    let skip = &[(BREAK, "it has no Break yet")];
    assert_eq!(run_trials_of(BREAK, broken, &[]), [0, 1, 0]);
    assert_eq!(run_trials_of(BREAK, broken, skip), [1, 0, 1]);
    assert_eq!(run_trials_of(BREAK, ReferenceFactory::default(), skip), [0, 1, 1]);
}

#[test]
fn an_own_case_fails_the_run_and_can_be_opted_out_of() {
    let correct = ReferenceFactory::default;
    assert_eq!(run_trials_of(OWN.id, correct(), &[]), [0, 1, 0]);
    assert_eq!(run_trials_of(OWN.id, correct(), &[("own::required_the_impossible", "later")]), [1, 0, 1]);
}

#[test]
fn an_own_case_is_reported_like_one_of_the_suite() {
    let failure =
        (OWN.run)(&Context::new(Arc::new(ReferenceFactory::default()), Settings::default(), OWN.id))
            .unwrap_err();
    let report = suite(&[]).report(&OWN, failure, &Settings::default());
    assert_eq!(report.fact("demand"), Some(OWN.summary));
    let replay = report.fact("replay").unwrap();
    assert!(replay.ends_with("--test my-suite -- --exact own::required_the_impossible"), "{replay}");
}

#[test]
fn a_clash_of_ids_is_refused() {
    const CLASH: &[Case] = &[Case { id: BREAK, ..OWN }];
    let complaint = check(&Suite { cases: CLASH, ..suite(&[]) }).unwrap_err();
    assert!(complaint.contains("the suite has a case scan::required_kv301"), "{complaint}");
}

#[test]
fn the_model_shrinks_a_counterexample() {
    let factory: Arc<dyn EngineFactory> = Arc::new(ReferenceFactory::with_defect(Defect::CompactionLosesKey));
    let case = all_cases().into_iter().find(|case| case.id.contains("kv107")).unwrap();
    let Verdict::Failed(failure) = run_case(&case, &factory, &Settings::default()).0 else {
        panic!("kv107 finds a compaction that loses a key")
    };
    let operations = failure.fact("operations").unwrap();
    assert!(operations.lines().count() <= 2, "a put and a reopening are enough: {operations}");
}

#[test]
fn opt_outs_need_a_case_and_a_reason() {
    let complaint = check(&suite(&[("scan::no_such_case", "reason")])).unwrap_err();
    assert!(complaint.contains("names no case"), "{complaint}");
    let complaint = check(&suite(&[(BREAK, " ")])).unwrap_err();
    assert!(complaint.contains("gives no reason"), "{complaint}");
    check(&suite(&[(BREAK, "reason")])).unwrap();
}

#[test]
fn a_failure_is_shrunk_and_replays_from_its_line() {
    let factory: Arc<dyn EngineFactory> = Arc::new(ReferenceFactory::with_defect(Defect::SplitBatch));
    let case = all_cases().into_iter().find(|case| case.id.contains("kv501")).unwrap();
    let Verdict::Failed(failure) = run_case(&case, &factory, &Settings::default()).0 else {
        panic!("kv501 finds split batches")
    };
    let line = failure.fact("scenario").expect("a crash case names its scenario").to_owned();
    let scenario: Scenario = line.parse().unwrap();
    assert!(scenario.ops.len() <= 2, "a split batch takes two operations to show, not {line}");
    let replayed = Settings { scenario: Some(line), ..Settings::default() };
    let Verdict::Failed(again) = run_case(&case, &factory, &replayed).0 else {
        panic!("the scenario fails again")
    };
    assert_eq!(again.violated(), failure.violated());
    let correct: Arc<dyn EngineFactory> = Arc::new(ReferenceFactory::default());
    assert!(matches!(run_case(&case, &correct, &replayed).0, Verdict::Passed));

    let dir = tempfile::tempdir().unwrap();
    let images: &'static str = dir.path().display().to_string().leak();
    let suite = Suite { images: Some(images), ..suite(&[]) };
    let report = suite.report(&case, failure, &Settings::default());
    let kept = report.fact("image").unwrap();
    assert!(OsFs.list(&std::path::Path::new(kept).join("store")).unwrap().contains(&"REFERENCE".to_owned()));
    let replay = report.fact("replay").unwrap();
    assert!(replay.contains("KV_TESTS_SCENARIO='") && replay.contains("--test my-suite "), "{replay}");
}
