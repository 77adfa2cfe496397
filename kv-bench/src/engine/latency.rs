//! Latency of single puts and gets while keys are overwritten, with compaction and without.

use super::access::{Access, Planner};
use super::truth::{Truth, sequence};
use crate::dataset::{Dataset, KEY_LEN_MAX, Shape, touch};
use crate::engines::open_log;
use crate::failure::Failure;
use crate::subjects::{KvEngine, Subject};
use crate::worker::{Measured, nanoseconds};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What one run does: of the log engine, puts and gets in turn, of keys chosen alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    pub(crate) compaction: bool,
}

/// Puts for each key, and as many gets.
const ROUNDS: u64 = 2;

pub(crate) fn measure(dir: &Path, job: &Latency) -> Result<Measured, Failure> {
    let &Latency { shape, keys, compaction } = job;
    let mut options = kv_log::Options::default();
    if !compaction {
        options.compaction = Arc::new(kv_core::Never);
    }
    let subject = KvEngine::new(open_log(dir, options)?);
    let (data, mut truth) = (Dataset::new(shape), Truth::new(keys, 1));
    let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
    data.fill(0..keys, |index, key, value| {
        truth.filled(index);
        subject.put(key, value)
    })?;
    subject.sync()?;
    let (mut puts, mut gets) = (histogram()?, histogram()?);
    let mut touched = 0;
    let plan = Planner::new(keys, shape.seed).plans(1, Access::Uniform, 2 * ROUNDS * keys, 1, 0.0).concat();
    for (place, pair) in (0..).zip(plan.chunks_exact(2)) {
        let &[written, read] = pair else { continue };
        data.value(written.into(), sequence(1, 0, place), &mut value);
        let bytes = data.key(written.into(), &mut key);
        let start = Instant::now();
        subject.put(bytes, &value)?;
        puts.saturating_record(nanoseconds(start));
        truth.wrote(written.into(), 0, sequence(1, 0, place));
        let bytes = data.key(read.into(), &mut key);
        let start = Instant::now();
        subject.read(bytes, &mut |value| touched += touch(value))?;
        gets.saturating_record(nanoseconds(start));
    }
    black_box(touched);
    let mut measured = Measured::default();
    for (name, histogram) in [("put", puts), ("get", gets)] {
        for (quantile, text) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p999"), (1.0, "max")] {
            let ns = histogram.value_at_quantile(quantile);
            measured.add(format!("{name}_{text}_us"), ns as f64 / 1e3);
        }
    }
    if let Some(engine) = subject.engine() {
        measured.add("compactions", engine.stats().compactions as f64);
    }
    truth.verify(&subject, &data)?;
    Ok(measured)
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| Failure::Worker(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_of_each() {
        for compaction in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
            let measured = measure(dir.path(), &Latency { shape, keys: 500, compaction }).unwrap();
            assert!(measured.get("put_p999_us").unwrap() >= measured.get("put_p50_us").unwrap());
            assert_eq!(measured.values.len(), 9);
        }
    }
}
