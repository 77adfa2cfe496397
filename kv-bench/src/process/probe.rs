//! Readings of the process, its files and the clock.

use crate::failure::Failure;
use hdrhistogram::Histogram;
use memmap2::MmapMut;
use std::path::Path;
use std::time::Instant;

/// Resident memory of this process, bytes. `/proc/self/statm` counts pages of 4 KiB.
pub(crate) fn resident_bytes() -> Result<f64, Failure> {
    let path = "/proc/self/statm";
    let text = std::fs::read_to_string(path).map_err(Failure::io(format!("read {path}")))?;
    let pages = text.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
    pages
        .map(|pages| pages * 4096.0)
        .ok_or_else(|| Failure::Worker(format!("{path} holds no resident size: {text}")))
}

/// Disk space of a directory's files, bytes.
pub(crate) fn directory_bytes(dir: &Path) -> Result<f64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let failed = || Failure::io(format!("list {}", dir.display()));
    let mut blocks = 0;
    for entry in std::fs::read_dir(dir).map_err(failed())? {
        blocks += entry.and_then(|entry| entry.metadata()).map_err(failed())?.blocks();
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
