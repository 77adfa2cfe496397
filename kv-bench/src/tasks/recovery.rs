//! The next open after a kill.

use crate::failure::Failure;
use crate::load::{Dataset, Shape, check_filled};
use crate::process::cache::bring_into_cache;
use crate::process::probe::{directory_bytes, milliseconds};
use crate::process::{Measured, Run, Task, child};
use crate::subjects::{KvEngine, Setup, SubjectName};
use kv_core::Engine;
use kv_log::{OnRequest, Options};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Fills a store in another process, kills that, and opens the store.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recovery {
    pub(crate) setup: Setup,
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    /// Whether the log engine writes checkpoints by its default policy. Otherwise it writes none.
    pub(crate) checkpoints: bool,
}

/// Fills a store, makes it durable, says so, and waits to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FillUntilKilled(Recovery);

/// A pace of 1 is this many records a second, or this many bytes.
const RECORDS_PER_S: f64 = 2e6;
const BYTES_PER_S: f64 = 1e9;

impl Recovery {
    fn open(&self, dir: &Path) -> Result<Arc<dyn Engine>, Failure> {
        if self.setup.subject != SubjectName::Log || self.checkpoints {
            return self.setup.open_engine(dir);
        }
        let (persistence, checkpoint) = (self.setup.policy.build(), Arc::new(OnRequest));
        let options = Options { persistence, checkpoint, ..Options::default() };
        Ok(KvEngine::open_log(dir, options)?.0)
    }
}

impl Task for Recovery {
    const NAME: &'static str = "recovery";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        child::kill_when_ready(&run.with(&FillUntilKilled(self))?)?;
        let mut measured = Measured::default();
        measured.add("disk_bytes", directory_bytes(&run.dir)?);
        bring_into_cache(&run.dir)?;
        let start = Instant::now();
        let engine = self.open(&run.dir)?;
        let recovery_ms = milliseconds(start);
        let found = engine.stats().recovery;
        let (records, bytes) = (found.records as f64, found.bytes as f64);
        let [records_per_s, bytes_per_s] = [records, bytes].map(|count| count / (recovery_ms / 1e3));
        measured.add("recovery_ms", recovery_ms);
        measured.add("recovered_records", records);
        measured.add("recovered_bytes", bytes);
        measured.add("recovered_records_per_s", records_per_s);
        measured.add("recovered_bytes_per_s", bytes_per_s);
        measured.add("recovery_pace", (records_per_s / RECORDS_PER_S).max(bytes_per_s / BYTES_PER_S));
        let subject = KvEngine(engine);
        check_filled(&subject, &Dataset::new(self.shape), 0..self.keys)?;
        // The process exits without a close, which would only cost time.
        std::mem::forget(subject);
        Ok(measured)
    }
}

impl Task for FillUntilKilled {
    const NAME: &'static str = "fill-until-killed";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Recovery { shape, keys, .. } = self.0;
        let engine = self.0.open(&run.dir)?;
        Dataset::new(shape).fill(0..keys, |_, key, value| engine.put(key, value).map(drop))?;
        engine.sync()?;
        loop {
            // The write fails once the parent is gone, which ends a process that no parent will
            // kill.
            println!("ready");
            std::io::stdout().flush().map_err(Failure::io("report to the parent process"))?;
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}
