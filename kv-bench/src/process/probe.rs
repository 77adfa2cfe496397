//! Readings of the process, its files and the clock.

use crate::failure::Failure;
use hdrhistogram::Histogram;
use memmap2::MmapMut;
use std::path::Path;
use std::time::Instant;

/// Disk space of a directory's files, bytes.
pub(crate) fn directory_bytes(dir: &Path) -> Result<f64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let failed = || Failure::io(format!("list {}", dir.display()));
    let mut blocks = 0;
    for entry in std::fs::read_dir(dir).map_err(failed())? {
        match entry.and_then(|entry| entry.metadata()) {
            Ok(metadata) => blocks += metadata.blocks(),
            // A store removes files in the background.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed()(error)),
        }
    }
    Ok(blocks as f64 * 512.0)
}

/// Takes memory from the system and returns it, so that the system has it at hand. The host of a
/// virtual machine reclaims memory that stays free for seconds. It gives a page back at the first
/// touch, which takes 2 us here: more than a put, and paid by the first subject that runs.
pub(crate) fn warm_memory(bytes: u64) {
    let map = usize::try_from(bytes).ok().and_then(|len| MmapMut::map_anon(len.max(1)).ok());
    // If the kernel refuses either advice, the run measures colder memory.
    #[cfg(target_os = "linux")]
    let _ = map.as_ref().map(|map| {
        map.advise(memmap2::Advice::HugePage).and_then(|()| map.advise(memmap2::Advice::PopulateWrite))
    });
    drop(map);
}

/// An empty histogram of nanoseconds, up to a minute, with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are valid")
}

/// Nanoseconds since `start`.
#[inline]
pub(crate) fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds since `start`.
pub(crate) fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
