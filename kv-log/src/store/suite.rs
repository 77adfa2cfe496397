//! Cases of the suite on stores whose units grow and shrink during the run: writers without a pause
//! get larger segments, and an idle store becomes small again and again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::Store;
use crate::{LogEngine, LogFactory, Options};
use kv_core::{Capabilities, Engine, EngineFactory, Env, OpenOptions, Result, Scale};
use kv_tests::around::{Around, Hooks};
use kv_tests::{Settings, Verdict, all_cases, run_case};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A store is tidied before each change with a number that this divides. The changes between two
/// of them fill more than one small segment.
const CHANGES_UNTIL_IDLE: u64 = 5;

/// How often the capacity of an active segment changed in a run.
#[derive(Debug, Default)]
struct Seen {
    grown: AtomicU64,
    shrunk: AtomicU64,
}

/// Opens stores with a low ceiling, which has room for larger segments as they grow.
struct Breathing(Arc<Seen>);

/// Makes one store grow and shrink.
#[derive(Debug)]
struct Breath {
    changes: AtomicU64,
    capacity: AtomicU64,
    seen: Arc<Seen>,
}

fn options(open: &OpenOptions) -> Options {
    match open.scale {
        Scale::Normal => Options::from(open),
        Scale::Tiny => Options {
            segment_bytes: 4 << 10,
            unflushed_bytes_max: 4 << 10,
            slack_bytes: 16 << 10,
            slack_share: 4.0,
            ..Options::from(open)
        },
    }
}

impl EngineFactory for Breathing {
    fn name(&self) -> &'static str {
        "log, growing and shrinking"
    }

    fn capabilities(&self) -> Capabilities {
        LogFactory.capabilities()
    }

    fn open(&self, dir: &Path, env: &Env, open: &OpenOptions) -> Result<Arc<dyn Engine>> {
        let engine = LogEngine::open_in(dir, env, options(open))?;
        let (changes, capacity) = Default::default();
        Ok(Arc::new(Around::new(engine, Breath { changes, capacity, seen: Arc::clone(&self.0) })))
    }
}

impl Hooks<LogEngine> for Breath {
    /// Makes the store small before some changes, as the worker of an idle store does.
    ///
    /// # Errors
    /// A failure that poisons the store.
    fn before_change(&self, engine: &LogEngine) -> Result<()> {
        let store = engine.store();
        self.look(store);
        if store.context.options.read_only || store.context.health.check_writable().is_err() {
            return Ok(());
        }
        if self.changes.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHANGES_UNTIL_IDLE) {
            let tidied = store.tidy(store.log.end.last_lsn());
            self.look(store);
            // As after a change: only a failure that poisons is an error of the call.
            return if store.context.health.is_poisoned() { tidied } else { Ok(()) };
        }
        Ok(())
    }
}

impl Breath {
    /// Counts a change of the active segment's capacity.
    fn look(&self, store: &Store) {
        let now = store.log.end.active_id_and_capacity().1 as u64;
        let before = self.capacity.swap(now, Ordering::Relaxed);
        self.seen.grown.fetch_add(u64::from(before > 0 && now > before), Ordering::Relaxed);
        self.seen.shrunk.fetch_add(u64::from(now < before), Ordering::Relaxed);
    }
}

/// The reserve alone takes half of the disk on which this case measures what deletes give back.
const NOT_WITH_THESE_UNITS: &str = "disk::required_kv621_way_out_of_a_full_disk";

/// Runs the cases whose ids begin with one of `ids`. With `KV_TESTS_EFFORT` and `KV_TESTS_SEED`, as
/// the suite.
fn run(ids: &[&str]) {
    let seen = Arc::new(Seen::default());
    let factory: Arc<dyn EngineFactory> = Arc::new(Breathing(Arc::clone(&seen)));
    let settings = Settings::from_env().unwrap();
    let is_named =
        |id: &str| id != NOT_WITH_THESE_UNITS && ids.iter().any(|beginning| id.starts_with(beginning));
    let mut passed = 0;
    for case in all_cases().into_iter().filter(|case| is_named(case.id)) {
        match run_case(&case, &factory, &settings).0 {
            Verdict::Passed => passed += 1,
            Verdict::Failed(failure) => panic!("{}: {failure}", case.id),
            Verdict::Skipped(_) => {}
        }
    }
    let Seen { grown, shrunk } = &*seen;
    let (grown, shrunk) = (grown.load(Ordering::Relaxed), shrunk.load(Ordering::Relaxed));
    assert!(passed >= ids.len() && grown > 10 && shrunk > 10, "{passed} cases, {seen:?}");
}

#[test]
fn histories_without_trouble() {
    run(&["model::", "batch", "scan", "shuffle::", "stats::", "resources::"]);
}

#[test]
fn crashes() {
    run(&[
        "crash::required_kv501",
        "crash::required_kv502",
        "crash::required_kv503",
        "crash::required_kv511",
    ]);
}

#[test]
fn failures() {
    run(&["errors::required_kv601", "errors::required_kv602", "errors::required_kv603", "disk::"]);
}

#[test]
fn threads() {
    run(&["concurrency::", "linearizability::", "close"]);
}
