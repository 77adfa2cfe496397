//! Steady overwrites under a ceiling for memory without live records, and without one.

use super::overwrites::Overwrites;
use crate::failure::Failure;
use crate::load::{Dataset, Shape};
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Overwrites on the log engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ceiling {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    /// The share of the memory for records that may be live. `None`: there is no ceiling.
    pub(crate) live_share: Option<f64>,
    /// Time of the measurement, milliseconds. The warm-up takes half of it.
    pub(crate) overwrite_ms: u64,
}

/// A share of slack that no run reaches.
const NO_CEILING: f64 = 1e3;

impl Task for Ceiling {
    const NAME: &'static str = "ceiling";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Ceiling { shape, keys, live_share, overwrite_ms } = self;
        let defaults = kv_log::Options::default();
        let live = keys * shape.pair_len();
        // The constant part is a fifth of the ceiling, so a small run has the same proportions.
        let slack_share = live_share.map_or(NO_CEILING, |share| (1.0 / share - 1.0) * 0.8);
        let slack_bytes = live_share.map_or(defaults.slack_bytes, |_| least_slack(live, slack_share));
        let options = kv_log::Options { slack_share, slack_bytes, ..defaults };
        let subject = KvEngine::open_log(&run.dir, options)?;
        let data = Dataset::new(shape);
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        subject.sync()?;
        let mut overwrites = Overwrites::new(&subject, &data, keys, shape.seed);
        overwrites.run_for(Duration::from_millis(overwrite_ms / 2))?;
        let rate = overwrites.run_for(Duration::from_millis(overwrite_ms))?;
        let stats = subject.0.stats();
        let mut measured = Measured::default();
        measured.add("overwrite_per_s", rate);
        measured.add("live_share", live as f64 / (stats.memory_bytes + stats.retired_bytes) as f64);
        measured.add("slack_excesses", stats.slack_excesses as f64);
        overwrites.truth().verify(&subject, &data)?;
        Ok(measured)
    }
}

/// The constant part of the ceiling: a quarter of the share's part, and at least 256 KiB.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
fn least_slack(live: u64, slack_share: f64) -> u64 {
    ((live as f64 * slack_share / 4.0) as u64).max(1 << 18)
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_small_run_with_a_ceiling_and_without() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        for live_share in [Some(0.8), None] {
            let task = Ceiling { shape, keys: 20_000, live_share, overwrite_ms: 100 };
            let measured = measured(&task);
            assert!(measured.get("overwrite_per_s").unwrap() > 0.0);
            assert!(measured.get("live_share").unwrap() > 0.0);
        }
    }
}
