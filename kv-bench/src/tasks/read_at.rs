//! The time until a past state can be read.

use super::history::History;
use crate::failure::Failure;
use crate::load::Shape;
use crate::process::cache::bring_into_cache;
use crate::process::probe::milliseconds;
use crate::process::{Measured, Run, Task};
use crate::subjects::KvEngine;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Reads the state before the last tenth of all changes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReadAt {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

impl Task for ReadAt {
    const NAME: &'static str = "read-at";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let history = History::write(&run.dir, self.shape, self.keys)?;
        bring_into_cache(&run.dir)?;
        let start = Instant::now();
        let past = history.past()?.read_at(&history.target)?;
        let ready_ms = milliseconds(start);
        let mut measured = Measured::default();
        measured.add("ready_s", ready_ms / 1e3);
        history.then.check(&KvEngine(past.engine), &history.data)?;
        history.now.verify(&history.store, &history.data)?;
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_run() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        assert!(measured(&ReadAt { shape, keys: 2000 }).get("ready_s").unwrap() > 0.0);
    }
}
