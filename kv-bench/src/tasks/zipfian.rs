//! Zipfian overwrites of a filled store of the log engine at full speed, after a warm-up.

use crate::failure::Failure;
use crate::load::{Access, Dataset, KEY_LEN_MAX, Planner, Shape, Truth, sequence};
use crate::process::Measured;
use crate::subjects::{KvEngine, Subject};
use kv_core::{Engine, Stats};
use std::time::Instant;

/// Overwrites for each key before the measurement.
const WARM_UP: u64 = 1;

/// The work of one run.
#[derive(Clone, Copy)]
pub(super) struct Zipfian {
    pub(super) shape: Shape,
    pub(super) keys: u64,
    /// Overwrites for each key in the measurement.
    pub(super) rounds: u64,
    /// Overwrites between two calls of `after_part`.
    pub(super) part_len: usize,
}

/// The measured overwrites of a run.
pub(super) struct Overwritten {
    /// Bytes of their pairs.
    pub(super) bytes: f64,
    pub(super) before: Stats,
    pub(super) after: Stats,
}

impl Zipfian {
    /// Fills the store of `subject` and overwrites its pairs. The clock includes `after_part`.
    /// Verifies the store. Returns the rate and the write amplification, and what else they follow
    /// from.
    pub(super) fn run(
        self,
        subject: &KvEngine,
        after_part: impl Fn(&dyn Engine) -> kv_core::Result<()>,
    ) -> Result<(Measured, Overwritten), Failure> {
        let Zipfian { shape, keys, rounds, part_len } = self;
        let engine = &*subject.0;
        let (data, mut truth) = (Dataset::new(shape), Truth::filled(keys));
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        subject.sync()?;
        let mut planner = Planner::new(keys, shape.seed);
        let mut overwrite = |phase, rounds| {
            let plan = planner.plans(phase, Access::Zipfian, rounds * keys, 1, 0.0).concat();
            let before = engine.stats();
            let start = Instant::now();
            let mut place = 0;
            for part in plan.chunks(part_len) {
                for index in part {
                    data.value(u64::from(*index), sequence(phase, 0, place), &mut value);
                    engine.put(data.key(u64::from(*index), &mut key), &value)?;
                    place += 1;
                }
                after_part(engine)?;
            }
            engine.sync()?;
            let seconds = start.elapsed().as_secs_f64();
            let after = engine.stats();
            for (place, index) in (0..).zip(&plan) {
                truth.write(u64::from(*index), 0, sequence(phase, 0, place));
            }
            let bytes = (plan.len() as u64 * shape.pair_len()) as f64;
            let mut measured = Measured::default();
            measured.add("overwrite_per_s", plan.len() as f64 / seconds);
            measured.add("write_amplification", (after.bytes_written - before.bytes_written) as f64 / bytes);
            Ok::<_, Failure>((measured, Overwritten { bytes, before, after }))
        };
        overwrite(1, WARM_UP)?;
        let done = overwrite(2, rounds)?;
        truth.verify(subject, &data)?;
        Ok(done)
    }
}
