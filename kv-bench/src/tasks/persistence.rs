//! Single puts, each waited for until it is durable; then, in a new store, many puts and one sync.

use crate::failure::Failure;
use crate::load::{Dataset, KEY_LEN_MAX, Shape, check_filled};
use crate::process::probe::{directory_bytes, milliseconds};
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Setup, Subject};
use kv_core::EngineExt;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// Single and bulk puts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Persistence {
    pub(crate) setup: Setup,
    pub(crate) shape: Shape,
    /// Single puts.
    pub(crate) singles: u64,
    /// Bulk puts.
    pub(crate) bulk: u64,
}

/// After this time each part of a run ends, with the puts that it has made.
pub(crate) const PART_LIMIT: Duration = Duration::from_secs(2);

impl Task for Persistence {
    const NAME: &'static str = "persistence";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let mut measured = Measured::default();
        self.single_puts(&run.dir.join("singles"), &mut measured)?;
        self.bulk_puts(&run.dir.join("bulk"), &mut measured)?;
        Ok(measured)
    }
}

impl Persistence {
    fn single_puts(&self, dir: &Path, measured: &mut Measured) -> Result<(), Failure> {
        let data = Dataset::new(self.shape);
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        let engine = self.setup.open_engine(dir)?;
        let begin = Instant::now();
        let mut latencies = Vec::new();
        while (latencies.len() as u64) < self.singles && begin.elapsed() < PART_LIMIT {
            let index = latencies.len() as u64;
            data.value(index, index, &mut value);
            let start = Instant::now();
            engine.put_durable(data.key(index, &mut key), &value)?;
            latencies.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let subject = KvEngine(engine);
        check_filled(&subject, &data, 0..latencies.len() as u64)?;
        Box::new(subject).close()?;
        latencies.sort_by(f64::total_cmp);
        for (name, hundredth) in [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)] {
            let at = (latencies.len() * hundredth).div_ceil(100).saturating_sub(1);
            if let Some(latency) = latencies.get(at) {
                measured.add(format!("put_durable_{name}_us"), *latency);
            }
        }
        Ok(())
    }

    fn bulk_puts(&self, dir: &Path, measured: &mut Measured) -> Result<(), Failure> {
        let data = Dataset::new(self.shape);
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        let engine = self.setup.open_engine(dir)?;
        let start = Instant::now();
        let mut puts = 0;
        while puts < self.bulk && start.elapsed() < PART_LIMIT {
            data.value(puts, puts, &mut value);
            engine.put(data.key(puts, &mut key), &value)?;
            puts += 1;
        }
        let put_seconds = start.elapsed().as_secs_f64();
        let sync = Instant::now();
        engine.sync()?;
        measured.add("sync_after_bulk_ms", milliseconds(sync));
        let live = (puts * self.shape.pair_len()) as f64;
        measured.add("bulk_puts", puts as f64);
        measured.add("bulk_put_per_s", puts as f64 / put_seconds);
        measured.add("bulk_durable_per_s", puts as f64 / start.elapsed().as_secs_f64());
        let stats = engine.stats();
        measured.add("syncs", stats.syncs as f64);
        measured.add("dumps", stats.dumps as f64);
        measured.add("bytes_written_bytes", stats.bytes_written as f64);
        measured.add("write_amplification", stats.bytes_written as f64 / live);
        measured.add("live_bytes", live);
        let subject = KvEngine(engine);
        check_filled(&subject, &data, 0..puts)?;
        Box::new(subject).close()?;
        measured.add("disk_bytes", directory_bytes(dir)?);
        check_filled(&*self.setup.open(dir)?, &data, 0..puts)
    }
}
