//! Some cases of the suite again, with the events in their stores counted. The suite tests this
//! engine well only if its runs provoke roll-over, both levels of compaction, and eviction.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was counted is for the reader of a test's output")]

mod short_of_memory;

use kv_core::{
    Batch, Capabilities, Checkpoint, Compact, Engine, EngineFactory, Env, Lsn, OpenOptions, PointInTime,
    Result, ScanVisitor, Stats, Value,
};
use kv_log::{LogEngine, LogFactory, Options};
use kv_tests::{Settings, Verdict, all_cases, run_case};
use short_of_memory::short_of_memory;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

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
struct Counted {
    engine: LogEngine,
    done: Arc<Mutex<Done>>,
}

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
        Ok(Arc::new(Counted { engine, done: Arc::clone(&self.done) }))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Stats { segments, compactions, memory_compactions, evictions, fetches, .. } = self.engine.stats();
        let mut done = self.done.lock().unwrap();
        done.opened += 1;
        // Without the one that every store has.
        done.segments += segments.saturating_sub(1);
        done.compactions += compactions;
        done.memory_compactions += memory_compactions;
        done.evictions += evictions;
        done.fetches += fetches;
    }
}

impl Engine for Counted {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        self.engine.put(key, value)
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        self.engine.delete(key)
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        self.engine.apply(batch)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.engine.get(key)
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.engine.read(key, visit)
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.engine.read_many(keys, visit)
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.engine.scan(visit)
    }

    fn sync(&self) -> Result<Lsn> {
        self.engine.sync()
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.engine.wait_durable(lsn)
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.engine.poll_durable(lsn, cx)
    }

    fn durable_lsn(&self) -> Lsn {
        self.engine.durable_lsn()
    }

    fn last_lsn(&self) -> Lsn {
        self.engine.last_lsn()
    }

    fn stats(&self) -> Stats {
        self.engine.stats()
    }

    fn close(&self) -> Result<()> {
        self.engine.close()
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        self.engine.as_checkpoint()
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        self.engine.as_point_in_time()
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        self.engine.as_compact()
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
