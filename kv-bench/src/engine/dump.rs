//! How fast a sync brings a full memory to disk, and how fast a bare loop writes as many bytes.

use super::truth::Truth;
use crate::dataset::{Dataset, Shape};
use crate::engines::open_log;
use crate::failure::Failure;
use crate::subjects::{KvEngine, Subject};
use crate::worker::Measured;
use kv_core::{FsExt, Manual, OpenMode, OsFs};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What one run does: puts, held in memory, and one sync.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dump {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

/// Bytes of one write of the bare loop.
const CHUNK: usize = 1 << 20;

pub(crate) fn measure(dir: &Path, job: Dump) -> Result<Measured, Failure> {
    let Dump { shape, keys } = job;
    let options = kv_log::Options {
        persistence: Arc::new(Manual),
        // Nothing is written before the sync.
        unflushed_bytes_max: 2 * keys * (shape.pair_len() + 64) + (64 << 20),
        ..kv_log::Options::default()
    };
    let engine = open_log(dir, options)?;
    let (data, mut truth) = (Dataset::new(shape), Truth::new(keys, 1));
    data.fill(0..keys, |index, key, value| {
        truth.filled(index);
        engine.put(key, value).map(drop)
    })?;
    let waiting = engine.stats().unflushed_bytes as f64;
    let start = Instant::now();
    engine.sync()?;
    let seconds = start.elapsed().as_secs_f64();
    let mut measured = Measured::default();
    measured.add("dumped_bytes", waiting);
    measured.add("dump_bytes_per_s", waiting / seconds);
    let subject = KvEngine::new(engine);
    truth.verify(&subject, &data)?;
    Box::new(subject).close()?;
    Ok(measured)
}

/// Writes as many bytes of keys, values and record headers to one new file, and syncs it.
pub(crate) fn measure_bare(dir: &Path, bytes: u64) -> Result<Measured, Failure> {
    let failed = || Failure::io("write and sync a file");
    let chunk = vec![7; CHUNK];
    let file = OsFs.open(&dir.join("bare"), OpenMode::CreateNew).map_err(failed())?;
    let start = Instant::now();
    let mut offset = 0;
    while offset < bytes {
        let len = usize::try_from(bytes - offset).unwrap_or(CHUNK).min(CHUNK);
        let written = file.write_at(chunk.get(..len).unwrap_or_default(), offset).map_err(failed())?;
        offset += written as u64;
    }
    file.sync_all().map_err(failed())?;
    let mut measured = Measured::default();
    measured.add("dumped_bytes", bytes as f64);
    measured.add("dump_bytes_per_s", bytes as f64 / start.elapsed().as_secs_f64());
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_before_the_sync() {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape { key_len: 24, value_len: 4096, seed: 1 };
        let measured = measure(dir.path(), Dump { shape, keys: 100 }).unwrap();
        assert!(measured.get("dumped_bytes").unwrap() >= 100.0 * 4120.0);
        let dir = tempfile::tempdir().unwrap();
        let measured = measure_bare(dir.path(), (3 << 20) + 5).unwrap();
        assert!(measured.get("dump_bytes_per_s").unwrap() > 0.0);
    }
}
