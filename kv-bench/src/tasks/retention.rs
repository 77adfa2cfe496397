//! Zipfian overwrites at full speed, with past states kept and without.

use super::history::options;
use crate::failure::Failure;
use crate::load::{Access, Dataset, KEY_LEN_MAX, Planner, Shape, Truth, sequence};
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use kv_core::{KeepNothing, KeepPast, RetentionPolicy};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Overwrites on the log engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Retention {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    /// Length of the window. Without one, the store keeps no past state.
    pub(crate) window_s: Option<u64>,
}

/// Overwrites for each key before the measurement, and in it.
const WARM_UP: u64 = 1;
const MEASURED: u64 = 4;

impl Task for Retention {
    const NAME: &'static str = "retention";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Retention { shape, keys, window_s } = self;
        let retention: Arc<dyn RetentionPolicy> = match window_s {
            Some(seconds) => Arc::new(KeepPast::of_time(Duration::from_secs(seconds))),
            None => Arc::new(KeepNothing),
        };
        let subject = KvEngine::open_log(&run.dir, kv_log::Options { retention, ..options(keys, shape) })?;
        let engine = &subject.0;
        let (data, mut truth) = (Dataset::new(shape), Truth::filled(keys));
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        subject.sync()?;
        let mut planner = Planner::new(keys, shape.seed);
        let mut measured = Measured::default();
        for (phase, rounds) in [(1, WARM_UP), (2, MEASURED)] {
            let plan = planner.plans(phase, Access::Zipfian, rounds * keys, 1, 0.0).concat();
            let before = engine.stats();
            let start = Instant::now();
            for (place, index) in (0..).zip(&plan) {
                data.value(u64::from(*index), sequence(phase, 0, place), &mut value);
                engine.put(data.key(u64::from(*index), &mut key), &value)?;
            }
            engine.sync()?;
            let seconds = start.elapsed().as_secs_f64();
            let stats = engine.stats();
            for (place, index) in (0..).zip(&plan) {
                truth.write(u64::from(*index), 0, sequence(phase, 0, place));
            }
            let changed = (plan.len() as u64 * shape.pair_len()) as f64;
            // The second phase's values replace those of the warm-up.
            measured.add("overwrite_per_s", plan.len() as f64 / seconds);
            measured
                .add("write_amplification", (stats.bytes_written - before.bytes_written) as f64 / changed);
            measured.add("past_bytes", stats.past_bytes as f64);
        }
        truth.verify(&subject, &data)?;
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_window_takes_space_and_no_window_none() {
        let shape = Shape { key_len: 24, value_len: 500, seed: 1 };
        let past_bytes = [Some(3600), None].map(|window_s| {
            let measured = measured(&Retention { shape, keys: 3000, window_s });
            assert!(measured.get("write_amplification").unwrap() > 1.0, "{measured:?}");
            measured.get("past_bytes").unwrap()
        });
        assert!(past_bytes[0] > 0.0 && past_bytes[1] < 1.0, "{past_bytes:?}");
    }
}
