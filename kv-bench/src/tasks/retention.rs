//! Zipfian overwrites at full speed, with past states kept and without.

use super::history::options;
use super::zipfian::Zipfian;
use crate::failure::Failure;
use crate::load::Shape;
use crate::process::{Measured, Run, Task};
use crate::subjects::KvEngine;
use kv_core::{KeepNothing, KeepPast, RetentionPolicy};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Overwrites on the log engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Retention {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    /// Length of the window. Without one, the store keeps no past state.
    pub(crate) window_s: Option<u64>,
}

/// Overwrites for each key in the measurement.
const ROUNDS: u64 = 4;

impl Task for Retention {
    const NAME: &'static str = "retention";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Retention { shape, keys, window_s } = self;
        let retention: Arc<dyn RetentionPolicy> = match window_s {
            Some(seconds) => Arc::new(KeepPast::of_time(Duration::from_secs(seconds))),
            None => Arc::new(KeepNothing),
        };
        let subject = KvEngine::open_log(&run.dir, kv_log::Options { retention, ..options(keys, shape) })?;
        let overwrites = Zipfian { shape, keys, rounds: ROUNDS, part_len: usize::MAX };
        let (mut measured, done) = overwrites.run(&subject, |_| Ok(()))?;
        measured.add("past_bytes", done.after.past_bytes as f64);
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
