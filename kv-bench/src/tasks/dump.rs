//! The speed at which a sync writes a full memory to disk, and at which a bare loop writes as many
//! bytes.

use crate::failure::Failure;
use crate::load::{Dataset, Shape, Truth};
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use kv_core::fs::{FsExt, OpenMode};
use kv_core::{Manual, OsFs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// Puts that the log engine holds in memory, and one sync.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dump {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

/// Writes to one new file, and a sync of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BareDump {
    /// Bytes of the file.
    pub(crate) bytes: u64,
}

/// Bytes of one write of the bare loop.
const CHUNK: usize = 1 << 20;

impl Task for Dump {
    const NAME: &'static str = "dump";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Dump { shape, keys } = self;
        let options = kv_log::Options {
            persistence: Arc::new(Manual),
            // The engine must not write before the sync.
            unflushed_bytes_max: 2 * keys * (shape.pair_len() + 64) + (64 << 20),
            ..kv_log::Options::default()
        };
        let subject = KvEngine::open_log(&run.dir, options)?;
        let data = Dataset::new(shape);
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        let bytes = subject.0.stats().unflushed_bytes;
        let start = Instant::now();
        subject.sync()?;
        let measured = rate(bytes, start);
        Truth::filled(keys).verify(&subject, &data)?;
        Box::new(subject).close()?;
        Ok(measured)
    }
}

impl Task for BareDump {
    const NAME: &'static str = "bare-dump";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let failed = || Failure::io("write and sync a file");
        let chunk = vec![7; CHUNK];
        let file = OsFs.open(&run.dir.join("bare"), OpenMode::CreateNew).map_err(failed())?;
        let start = Instant::now();
        let mut offset = 0;
        while offset < self.bytes {
            let len = usize::try_from(self.bytes - offset).unwrap_or(CHUNK).min(CHUNK);
            let written = file.write_at(chunk.get(..len).unwrap_or_default(), offset).map_err(failed())?;
            offset += written as u64;
        }
        file.sync_all().map_err(failed())?;
        Ok(rate(self.bytes, start))
    }
}

fn rate(bytes: u64, start: Instant) -> Measured {
    let mut measured = Measured::default();
    measured.add("dump_bytes_per_s", bytes as f64 / start.elapsed().as_secs_f64());
    measured.add("dumped_bytes", bytes as f64);
    measured
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn the_engine_writes_nothing_before_the_sync() {
        let shape = Shape { key_len: 24, value_len: 4096, seed: 1 };
        let dumped = measured(&Dump { shape, keys: 100 });
        assert!(dumped.get("dumped_bytes").unwrap() >= 100.0 * 4120.0);
        let bare = measured(&BareDump { bytes: (3 << 20) + 5 });
        assert!(bare.get("dump_bytes_per_s").unwrap() > 0.0);
    }
}
