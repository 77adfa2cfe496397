//! Latency of single puts and gets while keys are overwritten, with compaction and without.

use crate::failure::Failure;
use crate::load::{Access, Dataset, KEY_LEN_MAX, Planner, Shape, Truth, sequence, touch};
use crate::process::probe::{histogram, nanoseconds};
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Puts and gets in turn on the log engine, of uniform keys.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    pub(crate) compaction: bool,
}

/// Puts for each key, and as many gets.
const ROUNDS: u64 = 2;

impl Task for Latency {
    const NAME: &'static str = "latency";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Latency { shape, keys, compaction } = self;
        let mut options = kv_log::Options::default();
        if !compaction {
            options.compaction = Arc::new(kv_core::Never);
        }
        let subject = KvEngine::open_log(&run.dir, options)?;
        let (data, mut truth) = (Dataset::new(shape), Truth::filled(keys));
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        subject.sync()?;
        let (mut puts, mut gets) = (histogram(), histogram());
        let mut touched = 0;
        let mut planner = Planner::new(keys, shape.seed);
        let plan = planner.plans(1, Access::Uniform, 2 * ROUNDS * keys, 1, 0.0).concat();
        for (place, pair) in (0..).zip(plan.chunks_exact(2)) {
            let &[written, read] = pair else { continue };
            data.value(written.into(), sequence(1, 0, place), &mut value);
            let bytes = data.key(written.into(), &mut key);
            let start = Instant::now();
            subject.put(bytes, &value)?;
            puts.saturating_record(nanoseconds(start));
            truth.write(written.into(), 0, sequence(1, 0, place));
            let bytes = data.key(read.into(), &mut key);
            let start = Instant::now();
            subject.read(bytes, &mut |value| touched += touch(value))?;
            gets.saturating_record(nanoseconds(start));
        }
        black_box(touched);
        let mut measured = Measured::default();
        for (name, histogram) in [("put", puts), ("get", gets)] {
            let quantiles = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];
            measured.add_quantiles(name, &histogram, &quantiles);
        }
        measured.add("compactions", subject.0.stats().compactions as f64);
        truth.verify(&subject, &data)?;
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_small_run_of_each() {
        for compaction in [true, false] {
            let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
            let measured = measured(&Latency { shape, keys: 500, compaction });
            assert!(measured.get("put_p999_us").unwrap() >= measured.get("put_p50_us").unwrap());
            assert_eq!(measured.values.len(), 9);
        }
    }
}
