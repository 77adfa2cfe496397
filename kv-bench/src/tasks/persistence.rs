//! Single puts, each waited for until it is durable; then, in a new store, many puts and one sync.

use crate::failure::Failure;
use crate::load::{Dataset, KEY_LEN_MAX, Shape, check_filled};
use crate::process::probe::{directory_bytes, histogram, milliseconds, nanoseconds};
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
        let mut latencies = histogram();
        while latencies.len() < self.singles && begin.elapsed() < PART_LIMIT {
            let index = latencies.len();
            data.value(index, index, &mut value);
            let start = Instant::now();
            engine.put_durable(data.key(index, &mut key), &value)?;
            latencies.saturating_record(nanoseconds(start));
        }
        let subject = KvEngine(engine);
        check_filled(&subject, &data, 0..latencies.len())?;
        Box::new(subject).close()?;
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];
        measured.add_quantiles("put_durable", &latencies, &quantiles);
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

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;
    use crate::subjects::{Policy, SubjectName};

    #[test]
    fn a_small_run_of_each() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        for subject in [SubjectName::Log, SubjectName::Naive] {
            for policy in [Policy::Always, Policy::Periodic(10), Policy::MaxLogSize(1 << 15), Policy::Default]
            {
                let setup = subject.under(policy);
                let measured = measured(&Persistence { setup, shape, singles: 3, bulk: 30 });
                assert_eq!(measured.get("bulk_puts"), Some(30.0));
                assert!(measured.get("write_amplification").unwrap() >= 1.0, "{setup:?} {measured:?}");
            }
        }
    }
}
