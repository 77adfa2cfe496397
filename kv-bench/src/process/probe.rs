//! Readings of the process, its files and the clock.

use crate::failure::Failure;
use hdrhistogram::Histogram;
use kv_core::OsFs;
use kv_core::fs::FsExt;
use memmap2::MmapMut;
use std::io;
use std::path::Path;
use std::time::Instant;

/// Disk space of a directory's files, bytes.
pub(crate) fn directory_bytes(dir: &Path) -> Result<f64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let failed = || Failure::io(format!("list {}", dir.display()));
    let mut blocks = 0;
    for entry in std::fs::read_dir(dir).map_err(failed())? {
        let metadata = if_present(entry.and_then(|entry| entry.metadata())).map_err(failed())?;
        blocks += metadata.map_or(0, |metadata| metadata.blocks());
    }
    Ok(blocks as f64 * 512.0)
}

/// Copies the files of a directory to a new one, and syncs each; returns the bandwidth, bytes a
/// second.
pub(crate) fn copy_bytes_per_s(from: &Path, to: &Path) -> Result<f64, Failure> {
    let failed = || Failure::io(format!("copy {} to {}", from.display(), to.display()));
    let (start, mut bytes) = (Instant::now(), 0);
    std::fs::create_dir(to).map_err(failed())?;
    for name in OsFs.list_if_exists(from)?.unwrap_or_default() {
        let copy = to.join(&name);
        if let Some(len) = if_present(std::fs::copy(from.join(&name), &copy)).map_err(failed())? {
            std::fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(failed())?;
            bytes += len;
        }
    }
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

/// The answer of the system. `None`: the file is gone. A store removes files in the background.
pub(super) fn if_present<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    }
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
