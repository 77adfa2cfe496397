//! Endless overwrites, with the disk kept as full of live records as asked.

use crate::failure::Failure;
use crate::load::{Access, Dataset, KEY_LEN_MAX, Planner, Shape, Truth, sequence};
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use kv_core::{Compact, CostBenefit, Greedy};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// Overwrites on the log engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Utilization {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    /// Live bytes of sealed segments for each byte of them on disk.
    pub(crate) target: f64,
}

/// Overwrites for each key before the measurement, and in it.
const WARM_UP: u64 = 1;
const MEASURED: u64 = 2;
/// Compactions for each round over the keys. The clock includes them, so that a store gains nothing
/// by postponing them.
const COMPACTIONS: u64 = 25;

impl Task for Utilization {
    const NAME: &'static str = "utilization";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Utilization { shape, keys, target } = self;
        // About a hundred segments, however small the run: a policy needs several to choose from.
        let segment_bytes = (keys * shape.pair_len() / 100).next_power_of_two().clamp(1 << 14, 16 << 20);
        // The target holds for an idle store as well, and no dead segments may stay beside it.
        let targets = Greedy {
            disk_utilization_min: target,
            idle_disk_utilization_min: target,
            disk_slack_segments: 0,
            ..Greedy::default()
        };
        let options = kv_log::Options {
            compaction: Arc::new(CostBenefit { targets }),
            segment_bytes: usize::try_from(segment_bytes).unwrap_or(16 << 20),
            ..kv_log::Options::default()
        };
        let subject = KvEngine::open_log(&run.dir, options)?;
        let engine = &subject.0;
        let (data, mut truth) = (Dataset::new(shape), Truth::filled(keys));
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        subject.sync()?;
        let mut planner = Planner::new(keys, shape.seed);
        let mut measured = Measured::default();
        for (phase, rounds) in [(1, WARM_UP), (2, MEASURED)] {
            let plan = planner.plans(phase, Access::Zipfian, rounds * keys, 1, 0.0).concat();
            let part_len = usize::try_from(keys / COMPACTIONS).unwrap_or_default().max(1);
            let before = engine.stats();
            let start = Instant::now();
            let mut place = 0;
            for part in plan.chunks(part_len) {
                for index in part {
                    data.value(u64::from(*index), sequence(phase, 0, place), &mut value);
                    engine.put(data.key(u64::from(*index), &mut key), &value)?;
                    place += 1;
                }
                engine.as_compact().map(Compact::compact).transpose()?;
            }
            engine.sync()?;
            let seconds = start.elapsed().as_secs_f64();
            for (place, index) in (0..).zip(&plan) {
                truth.write(u64::from(*index), 0, sequence(phase, 0, place));
            }
            let stats = engine.stats();
            let changed = (plan.len() as u64 * shape.pair_len()) as f64;
            let written = (stats.bytes_written - before.bytes_written) as f64;
            let copied = (stats.compacted_bytes - before.compacted_bytes) as f64;
            // The second phase's values replace those of the warm-up.
            measured.add("overwrite_per_s", plan.len() as f64 / seconds);
            measured.add("write_amplification", written / changed);
            measured.add("copied_per_changed", copied / changed);
            measured.add("disk_utilization", (keys * record_len(shape)) as f64 / stats.disk_bytes as f64);
        }
        truth.verify(&subject, &data)?;
        Ok(measured)
    }
}

/// Bytes of a record in the log, if its LSN is near the base LSN of its segment.
pub(crate) fn record_len(shape: Shape) -> u64 {
    kv_wal_format::encoded_len(0, 0, shape.key_len, shape.value_len) as u64
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_fuller_disk_costs_more_writing() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        let [full, half] = [0.8, 0.4].map(|target| measured(&Utilization { shape, keys: 5000, target }));
        let of = |measured: &Measured| {
            (measured.get("write_amplification").unwrap(), measured.get("disk_utilization").unwrap())
        };
        assert!(of(&full).0 > of(&half).0 && of(&full).1 > of(&half).1, "{full:?} {half:?}");
    }
}
