//! Some cases of the suite again, with the events in their stores counted. The suite tests this
//! engine well only if its runs provoke roll-over, both levels of compaction, and eviction.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was counted is for the reader of a test's output")]

mod short_of_memory;

use kv_core::{Capabilities, Engine, EngineFactory, Env, OpenOptions, Result, Stats};
use kv_log::{LogEngine, LogFactory, Options};
use kv_tests::around::{Around, Hooks};
use kv_tests::{Settings, Verdict, all_cases, run_case};
use short_of_memory::short_of_memory;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The events in all stores of a run.
#[derive(Clone, Debug, Default)]
struct Done {
    opened: u64,
    segments: u64,
    compactions: u64,
    memory_compactions: u64,
    evictions: u64,
    fetches: u64,
}

/// Opens stores, and counts their events when they are dropped.
struct Counting {
    memory_budget: bool,
    done: Arc<Mutex<Done>>,
}

#[derive(Debug)]
struct Counted(Arc<Mutex<Done>>);

impl EngineFactory for Counting {
    fn name(&self) -> &'static str {
        "log, counted"
    }

    fn capabilities(&self) -> Capabilities {
        LogFactory.capabilities()
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        let options = if self.memory_budget { short_of_memory(options) } else { Options::from(options) };
        let engine = LogEngine::open_in(dir, env, options)?;
        Ok(Arc::new(Around::new(engine, Counted(Arc::clone(&self.done)))))
    }
}

impl Hooks<LogEngine> for Counted {
    fn before_drop(&self, engine: &LogEngine) {
        let Stats { segments, compactions, memory_compactions, evictions, fetches, .. } = engine.stats();
        let mut done = self.0.lock().unwrap();
        done.opened += 1;
        // Without the one that every store has.
        done.segments += segments.saturating_sub(1);
        done.compactions += compactions;
        done.memory_compactions += memory_compactions;
        done.evictions += evictions;
        done.fetches += fetches;
    }
}

/// Runs one case, and returns the events in its stores.
fn run(id: &str, memory_budget: bool) -> Done {
    let done = Arc::new(Mutex::new(Done::default()));
    let factory: Arc<dyn EngineFactory> = Arc::new(Counting { memory_budget, done: Arc::clone(&done) });
    let case = all_cases().into_iter().find(|case| case.id == id).unwrap();
    let (verdict, _) = run_case(&case, &factory, &Settings::default());
    assert!(matches!(verdict, Verdict::Passed), "{id} did not pass");
    let done = done.lock().unwrap().clone();
    println!("{id}: {done:?}");
    assert!(done.opened > 0 && done.segments > 0, "{id}: no segment was ever rolled over: {done:?}");
    done
}

/// The events in these cases follow from the seed alone.
const CASES: [&str; 5] = [
    "model::required_kv106_random_operations",
    "crash::required_kv501_power_cut_at_every_operation",
    "crash::required_kv502_process_death_at_every_operation",
    "errors::required_kv601_every_operation_fails_once",
    "errors::required_kv602_every_operation_fails_for_good",
];

#[test]
fn the_suite_provokes_roll_over_and_compaction_on_both_levels() {
    for id in CASES {
        let done = run(id, false);
        assert!(done.compactions > 0 && done.memory_compactions > 0, "{id}: {done:?}");
        assert_eq!(done.evictions, 0, "{id}");
    }
}

#[test]
fn short_of_memory_it_provokes_eviction() {
    for id in CASES {
        let done = run(id, true);
        assert!(done.compactions > 0 && done.evictions > 0 && done.fetches > 0, "{id}: {done:?}");
    }
}
