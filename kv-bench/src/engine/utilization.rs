//! Overwriting for ever, with the disk kept as full of live records as asked.

use super::access::{Access, Planner};
use super::truth::{Truth, sequence};
use crate::dataset::{Dataset, KEY_LEN_MAX, Shape};
use crate::engines::open_log;
use crate::failure::Failure;
use crate::subjects::KvEngine;
use crate::worker::Measured;
use kv_core::CostBenefit;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What one run does, on the log engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Utilization {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    /// Live bytes of sealed segments for each byte of them on disk.
    pub(crate) target: f64,
}

/// Overwrites for each key before the measuring begins, and while it goes on.
const WARM_UP: u64 = 1;
const MEASURED: u64 = 2;
/// The debts of compaction are paid so often for each round over the keys, and the clock runs meanwhile: a
/// store that lets garbage pile up wins nothing.
const PAYMENTS: u64 = 25;

pub(crate) fn measure(dir: &Path, job: Utilization) -> Result<Measured, Failure> {
    let Utilization { shape, keys, target } = job;
    // A hundred segments or so, however small the run: fewer could not be told apart by a policy.
    let segment_bytes = (keys * shape.pair_len() / 100).next_power_of_two().clamp(1 << 14, 16 << 20);
    let options = kv_log::Options {
        compaction: Arc::new(CostBenefit { disk_utilization_min: target, ..CostBenefit::default() }),
        segment_bytes: usize::try_from(segment_bytes).unwrap_or(16 << 20),
        ..kv_log::Options::default()
    };
    let engine = open_log(dir, options)?;
    let (data, mut truth) = (Dataset::new(shape), Truth::new(keys, 1));
    let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
    data.fill(0..keys, |index, key, value| {
        truth.filled(index);
        engine.put(key, value).map(drop)
    })?;
    engine.sync()?;
    let mut planner = Planner::new(keys, shape.seed);
    let mut measured = Measured::default();
    for (phase, rounds) in [(1, WARM_UP), (2, MEASURED)] {
        let plan = planner.plans(phase, Access::Zipfian, rounds * keys, 1, 0.0).concat();
        let payment = usize::try_from(keys / PAYMENTS).unwrap_or_default().max(1);
        let before = engine.stats();
        let start = Instant::now();
        let mut place = 0;
        for part in plan.chunks(payment) {
            for index in part {
                data.value(u64::from(*index), sequence(phase, 0, place), &mut value);
                engine.put(data.key(u64::from(*index), &mut key), &value)?;
                place += 1;
            }
            engine.as_compact().map(kv_core::Compact::compact).transpose()?;
        }
        engine.sync()?;
        let seconds = start.elapsed().as_secs_f64();
        for (place, index) in (0..).zip(&plan) {
            truth.wrote(u64::from(*index), 0, sequence(phase, 0, place));
        }
        let stats = engine.stats();
        let changed = (plan.len() as u64 * shape.pair_len()) as f64;
        measured.add("overwrite_per_s", plan.len() as f64 / seconds);
        measured.add("write_amplification", (stats.bytes_written - before.bytes_written) as f64 / changed);
        measured.add("copied_per_changed", (stats.compacted_bytes - before.compacted_bytes) as f64 / changed);
        measured.add("disk_utilization", (keys * record_len(shape)) as f64 / stats.disk_bytes as f64);
    }
    truth.verify(&KvEngine::new(engine), &data)?;
    Ok(measured)
}

/// Bytes of a record in the log.
pub(crate) fn record_len(shape: Shape) -> u64 {
    kv_wal_format::encoded_len(shape.key_len, shape.value_len) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fuller_disk_costs_more_writing() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        let [full, half] = [0.8, 0.4].map(|target| {
            let dir = tempfile::tempdir().unwrap();
            measure(dir.path(), Utilization { shape, keys: 5000, target }).unwrap()
        });
        let of = |measured: &Measured| {
            (measured.get("write_amplification").unwrap(), measured.get("disk_utilization").unwrap())
        };
        assert!(of(&full).0 > of(&half).0 && of(&full).1 > of(&half).1, "{full:?} {half:?}");
    }
}
