//! Puts that are durable when they return, and the system's limit: a bare loop of writes and syncs.

use crate::failure::Failure;
use crate::load::{Dataset, Shape, check_filled};
use crate::process::threads::concurrently;
use crate::process::{Measured, Run, Task};
use crate::subjects::{Policy, SubjectName};
use kv_core::OsFs;
use kv_core::fs::{FsExt, OpenMode};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Synced puts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Synced {
    pub(crate) subject: SubjectName,
    pub(crate) shape: Shape,
    pub(crate) puts: u64,
    pub(crate) threads: u64,
}

/// A loop of a write and an fdatasync.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BareSynced {
    /// Bytes of each write.
    pub(crate) bytes: u64,
    pub(crate) puts: u64,
    /// Whether the loop writes over zeros, so that a sync has no metadata to write. Otherwise the
    /// file's space is only reserved.
    pub(crate) prefilled: bool,
}

impl Task for Synced {
    const NAME: &'static str = "synced";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Synced { subject, shape, puts, threads } = self;
        let setup = subject.under(Policy::Always);
        let data = Dataset::new(shape);
        let subject = setup.open(&run.dir)?;
        let start = Instant::now();
        concurrently(0..threads, |thread| {
            let indexes = (thread..puts).step_by(usize::try_from(threads).unwrap_or(1));
            data.fill(indexes, |_, key, value| subject.put(key, value))
        })?;
        let mut measured = Measured::default();
        measured.add("synced_put_per_s", puts as f64 / start.elapsed().as_secs_f64());
        if let Some(engine) = subject.engine() {
            measured.add("syncs", engine.stats().syncs as f64);
        }
        subject.close()?;
        check_filled(&*setup.open(&run.dir)?, &data, 0..puts)?;
        Ok(measured)
    }
}

impl Task for BareSynced {
    const NAME: &'static str = "bare-synced";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let failed = || Failure::io("write and sync a file");
        let BareSynced { bytes, puts, prefilled } = self;
        let file = OsFs.open(&run.dir.join("bare"), OpenMode::CreateNew).map_err(failed())?;
        let record = vec![7; usize::try_from(bytes).unwrap_or_default()];
        file.allocate(bytes * puts).map_err(failed())?;
        if prefilled {
            let zeros = vec![0; record.len()];
            for place in 0..puts {
                file.write_at(&zeros, place * bytes).map_err(failed())?;
            }
        }
        file.sync_all().map_err(failed())?;
        let start = Instant::now();
        for place in 0..puts {
            file.write_at(&record, place * bytes).map_err(failed())?;
            file.sync_data().map_err(failed())?;
        }
        let mut measured = Measured::default();
        measured.add("synced_put_per_s", puts as f64 / start.elapsed().as_secs_f64());
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_small_run_of_each() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        for threads in [1, 8] {
            let synced = measured(&Synced { subject: SubjectName::Log, shape, puts: 16, threads });
            assert!(synced.get("synced_put_per_s").unwrap() > 0.0);
        }
        for prefilled in [true, false] {
            let bare = measured(&BareSynced { bytes: 148, puts: 10, prefilled });
            assert!(bare.get("synced_put_per_s").unwrap() > 0.0);
        }
    }
}
