//! The speed at which the files of a closed store are checked.

use super::history::options;
use crate::failure::Failure;
use crate::load::{Dataset, Shape, Truth};
use crate::process::cache::bring_into_cache;
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use kv_core::Env;
use kv_log::inspect;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Checks the files of a filled store.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verify {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

impl Task for Verify {
    const NAME: &'static str = "verify";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Verify { shape, keys } = self;
        let (subject, data) = (KvEngine::open_log(&run.dir, options(keys, shape))?, Dataset::new(shape));
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        Box::new(subject).close()?;
        bring_into_cache(&run.dir)?;
        let start = Instant::now();
        let found = inspect::examine(&Env::os(), &run.dir, false, &inspect::silently)?;
        let seconds = start.elapsed().as_secs_f64();
        let puts: u64 = found.segments.iter().map(|segment| segment.puts).sum();
        if !found.damages.is_empty() || puts != keys {
            let damages = found.damages.len();
            return Err(Failure::Wrong(format!("a check found {damages} damages and {puts} puts of {keys}")));
        }
        let bytes: u64 = found.segments.iter().map(|segment| segment.file_bytes).sum();
        let mut measured = Measured::default();
        measured.add("verified_gb_per_s", bytes as f64 / 1e9 / seconds);
        measured.add("verified_bytes", bytes as f64);
        let subject = KvEngine::open_log(&run.dir, kv_log::Options::default())?;
        Truth::filled(keys).verify(&subject, &data)?;
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_run() {
        let shape = Shape { key_len: 24, value_len: 500, seed: 1 };
        let measured = measured(&Verify { shape, keys: 2000 });
        assert!(measured.get("verified_bytes").unwrap() > 2000.0 * 524.0);
        assert!(measured.get("verified_gb_per_s").unwrap() > 0.0);
    }
}
