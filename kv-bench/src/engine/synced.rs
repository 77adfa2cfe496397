//! Puts that are durable when they return, and what the system lets a bare loop do.

use crate::dataset::{Dataset, KEY_LEN_MAX, Shape};
use crate::failure::Failure;
use crate::subjects::{Mode, Subject, SubjectName};
use crate::worker::Measured;
use kv_core::{FsExt, OpenMode, OsFs};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// What one run does.
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
    /// Zeros were written beforehand, so that no metadata is left to write; else the space is only reserved.
    pub(crate) prefilled: bool,
}

pub(crate) fn measure(dir: &Path, job: &Synced) -> Result<Measured, Failure> {
    let &Synced { subject: name, shape, puts, threads } = job;
    let data = Dataset::new(shape);
    let subject = name.open(dir, Mode::Synced)?;
    let put_all = |subject: &dyn Subject, thread: u64| {
        let indexes = (thread..puts).step_by(usize::try_from(threads).unwrap_or(1));
        data.fill(indexes, |_, key, value| subject.put(key, value))
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let (subject, put_all) = (&*subject, &put_all);
        let running: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || put_all(subject, thread))).collect();
        running.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| Failure::Wrong("a thread panicked".to_owned()))?
        })
    })?;
    let mut measured = Measured::default();
    measured.add("synced_put_per_s", puts as f64 / start.elapsed().as_secs_f64());
    if let Some(engine) = subject.engine() {
        measured.add("syncs", engine.stats().syncs as f64);
    }
    subject.close()?;
    let subject = name.open(dir, Mode::Synced)?;
    for index in 0..puts {
        let mut right = false;
        let mut key = [0; KEY_LEN_MAX];
        subject.read(data.key(index, &mut key), &mut |value| right = data.is_value(index, index, value))?;
        if !right {
            return Err(Failure::Wrong(format!("key {index} is missing after a reopen, or differs")));
        }
    }
    Ok(measured)
}

pub(crate) fn measure_bare(dir: &Path, job: BareSynced) -> Result<Measured, Failure> {
    let failed = || Failure::io("write and sync a file");
    let BareSynced { bytes, puts, prefilled } = job;
    let file = OsFs.open(&dir.join("bare"), OpenMode::CreateNew).map_err(failed())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_of_each() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        for threads in [1, 8] {
            let dir = tempfile::tempdir().unwrap();
            let job = Synced { subject: SubjectName::Log, shape, puts: 16, threads };
            assert!(measure(dir.path(), &job).unwrap().get("synced_put_per_s").unwrap() > 0.0);
        }
        for prefilled in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let job = BareSynced { bytes: 148, puts: 10, prefilled };
            assert!(measure_bare(dir.path(), job).unwrap().get("synced_put_per_s").unwrap() > 0.0);
        }
    }
}
