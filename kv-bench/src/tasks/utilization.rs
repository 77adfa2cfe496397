//! Endless overwrites, with the disk kept as full of live records as asked.

use super::zipfian::{Overwritten, Zipfian};
use crate::failure::Failure;
use crate::load::Shape;
use crate::process::{Measured, Run, Task};
use crate::subjects::KvEngine;
use kv_core::{Compact, CostBenefit, Greedy};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Overwrites on the log engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Utilization {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    /// Live bytes of sealed segments for each byte of them on disk.
    pub(crate) target: f64,
}

/// Overwrites for each key in the measurement.
const ROUNDS: u64 = 2;
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
        let part_len = usize::try_from(keys / COMPACTIONS).unwrap_or_default().max(1);
        let overwrites = Zipfian { shape, keys, rounds: ROUNDS, part_len };
        let (mut measured, Overwritten { bytes, before, after }) = overwrites.run(&subject, |engine| {
            engine.as_compact().map(Compact::compact).transpose()?;
            Ok(())
        })?;
        let copied = (after.compacted_bytes - before.compacted_bytes) as f64;
        measured.add("copied_per_changed", copied / bytes);
        measured.add("disk_utilization", (keys * record_len(shape)) as f64 / after.disk_bytes as f64);
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
