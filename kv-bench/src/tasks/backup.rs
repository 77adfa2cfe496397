//! Backups of an open store: the first, and another with little new data.

use super::history::{options, past};
use crate::failure::Failure;
use crate::load::{Dataset, Shape, Truth};
use crate::process::cache::bring_into_cache;
use crate::process::probe::copy_bytes_per_s;
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Fills a store and backs it up. Adds a hundredth of the keys, and backs it up again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Backup {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

impl Task for Backup {
    const NAME: &'static str = "backup";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Backup { shape, keys } = self;
        let [store, backup, copy] = ["store", "backup", "copy"].map(|name| run.dir.join(name));
        let (subject, data) = (KvEngine::open_log(&store, options(keys, shape))?, Dataset::new(shape));
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        subject.sync()?;
        bring_into_cache(&store)?;
        let mut measured = Measured::default();
        measured.add("copy_bytes_per_s", copy_bytes_per_s(&store, &copy)?);
        let start = Instant::now();
        let first = past(&subject)?.backup(&backup)?;
        // Most of them are links: the store and its backup are on one file system.
        measured.add("backup_bytes_per_s", first.bytes as f64 / start.elapsed().as_secs_f64());
        let more = keys + (keys / 100).max(1);
        data.fill(keys..more, |_, key, value| subject.put(key, value))?;
        let second = past(&subject)?.backup(&backup)?;
        measured.add("second_per_first", second.bytes_copied as f64 / first.bytes as f64);
        let truth = Truth::filled(more);
        let read_only = kv_log::Options { read_only: true, ..kv_log::Options::default() };
        truth.check(&KvEngine::open_log(&backup, read_only)?, &data)?;
        truth.verify(&subject, &data)?;
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn the_second_backup_copies_less() {
        let shape = Shape { key_len: 24, value_len: 500, seed: 1 };
        let measured = measured(&Backup { shape, keys: 2000 });
        let second = measured.get("second_per_first").unwrap();
        assert!(second > 0.0 && second < 0.5, "{second}");
        assert!(measured.get("backup_bytes_per_s").unwrap() > 0.0);
    }
}
