//! The speed at which a bare loop reads a file from a disk whose cache is cold.

use crate::failure::Failure;
use crate::process::cache::evict;
use crate::process::{Measured, Run, Task};
use kv_core::OsFs;
use kv_core::fs::{FileExt, FsExt, OpenMode};
use memmap2::MmapMut;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Reads of one file, from its beginning to its end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BareRead {
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Whether the reads pass by the system's cache.
    pub(crate) is_direct: bool,
}

/// Bytes of one read, and of the file at least: a segment.
const CHUNK: usize = 16 << 20;

impl Task for BareRead {
    const NAME: &'static str = "bare-read";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let failed = || Failure::io("read a file");
        // Direct I/O needs memory that begins with a page.
        let mut chunk = MmapMut::map_anon(CHUNK).map_err(failed())?;
        chunk.fill(7);
        let chunks = self.bytes.div_ceil(CHUNK as u64);
        let path = run.dir.join("bare");
        let file = OsFs.open(&path, OpenMode::CreateNew).map_err(failed())?;
        for number in 0..chunks {
            file.write_all_at(&chunk, number * CHUNK as u64).map_err(failed())?;
        }
        drop(file);
        evict(&run.dir)?;
        let file = OsFs.open(&path, OpenMode::Read).map_err(failed())?;
        file.set_direct_io(self.is_direct).map_err(failed())?;
        let (start, end) = (Instant::now(), chunks * CHUNK as u64);
        let mut offset = 0;
        while offset < end {
            match file.read_at(&mut chunk, offset).map_err(failed())? {
                0 => return Err(Failure::Wrong(format!("the file ends at {offset} instead of {end}"))),
                read => offset += read as u64,
            }
        }
        let mut measured = Measured::default();
        measured.add("read_bytes_per_s", offset as f64 / start.elapsed().as_secs_f64());
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_small_file_through_the_cache_and_past_it() {
        for is_direct in [false, true] {
            let measured = measured(&BareRead { bytes: 5, is_direct });
            assert!(measured.get("read_bytes_per_s").unwrap() > 0.0);
        }
    }
}
