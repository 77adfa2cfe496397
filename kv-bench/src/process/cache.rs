//! The files of a store in the system's cache, or out of it.

use super::probe::if_present;
use crate::failure::Failure;
use kv_core::OsFs;
use kv_core::fs::FsExt;
use std::path::Path;

/// Reads all files, because an engine may write them past the system's cache.
pub(crate) fn bring_into_cache(dir: &Path) -> Result<(), Failure> {
    let failed = || Failure::io(format!("read the files in {}", dir.display()));
    for name in OsFs.list_if_exists(dir)?.unwrap_or_default() {
        if_present(std::fs::read(dir.join(name))).map_err(failed())?;
    }
    Ok(())
}

/// Drops the pages of all files from the system's cache. Syncs them first, because the system keeps
/// pages that it has not written yet.
#[cfg(target_os = "linux")]
pub(crate) fn evict(dir: &Path) -> Result<(), Failure> {
    for name in OsFs.list_if_exists(dir)?.unwrap_or_default() {
        let path = dir.join(name);
        let failed = || Failure::io(format!("drop {} from the cache", path.display()));
        let file = std::fs::File::open(&path).map_err(failed())?;
        file.sync_all().map_err(failed())?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| failed()(error.into()))?;
    }
    Ok(())
}

/// This system has no such call, so the files stay in the cache.
#[cfg(not(target_os = "linux"))]
pub(crate) fn evict(_: &Path) -> Result<(), Failure> {
    Ok(())
}
