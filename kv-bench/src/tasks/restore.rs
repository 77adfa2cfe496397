//! The speed at which a past state becomes a new store.

use super::history::History;
use crate::failure::Failure;
use crate::load::Shape;
use crate::process::cache::bring_into_cache;
use crate::process::probe::copy_bytes_per_s;
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Restores the state before the last tenth of all changes. Copies the files too, for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Restore {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

impl Task for Restore {
    const NAME: &'static str = "restore";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let [store, restored, copy] = ["store", "restored", "copy"].map(|name| run.dir.join(name));
        let history = History::write(&store, self.shape, self.keys)?;
        bring_into_cache(&store)?;
        let mut measured = Measured::default();
        measured.add("copy_bytes_per_s", copy_bytes_per_s(&store, &copy)?);
        let past = history.past()?;
        let bytes = past.plan(&history.target)?.bytes as f64;
        let start = Instant::now();
        past.restore(&history.target, &restored)?;
        measured.add("restore_bytes_per_s", bytes / start.elapsed().as_secs_f64());
        measured.add("needed_bytes", bytes);
        history.now.verify(&history.store, &history.data)?;
        let restored = KvEngine::open_log(&restored, kv_log::Options::default())?;
        history.then.verify(&restored, &history.data)?;
        Box::new(restored).close()?;
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
        let measured = measured(&Restore { shape, keys: 2000 });
        for name in ["copy_bytes_per_s", "restore_bytes_per_s"] {
            assert!(measured.get(name).unwrap() > 0.0);
        }
        assert!(measured.get("needed_bytes").unwrap() > 2000.0 * 500.0);
    }
}
