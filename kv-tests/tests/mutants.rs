//! The suite is tested: it must fail the reference engine with any one defect.

use kv_core::EngineFactory;
use kv_tests::reference::{Defect, ReferenceFactory};
use kv_tests::{Settings, Verdict, all_cases, run_case};
use std::sync::Arc;
use std::time::Duration;

/// The cases that fail an engine with this defect, up to the second.
fn killers(defect: Defect) -> Vec<&'static str> {
    let factory: Arc<dyn EngineFactory> = Arc::new(ReferenceFactory::with_defect(defect));
    let settings = Settings { timeout: Duration::from_secs(15), ..Settings::default() };
    let mut killers = Vec::new();
    for case in all_cases() {
        // It waits a minute before it gives up; the defects it is there for are looked for below.
        if case.id.ends_with("periodic_dumps_by_itself") {
            continue;
        }
        if let (Verdict::Failed(failure), _) = run_case(&case, &factory, &settings) {
            // A case that ran out of time proves nothing: the machine may be busy.
            if !failure.violated().contains("did not end") {
                killers.push(case.id);
            }
            if killers.len() == 2 {
                break;
            }
        }
    }
    killers
}

#[test]
fn every_defect_is_found() {
    let mut survivors = Vec::new();
    for defect in Defect::ALL {
        if *defect == Defect::NoTicker {
            continue;
        }
        let killers = killers(*defect);
        println!("{:<24} {}", format!("{defect:?}"), killers.join(", "));
        if killers.is_empty() {
            survivors.push(*defect);
        }
    }
    assert!(survivors.is_empty(), "no case finds {survivors:?}");
}

#[test]
fn a_missing_ticker_is_found() {
    let factory: Arc<dyn EngineFactory> = Arc::new(ReferenceFactory::with_defect(Defect::NoTicker));
    let case = all_cases().into_iter().find(|case| case.id.ends_with("periodic_dumps_by_itself")).unwrap();
    let settings = Settings { timeout: Duration::from_secs(3), ..Settings::default() };
    assert!(matches!(run_case(&case, &factory, &settings), (Verdict::Failed(_), _)));
}
