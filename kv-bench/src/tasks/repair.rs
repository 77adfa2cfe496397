//! The speed at which a store with a damaged segment is repaired.

use super::history::options;
use crate::failure::Failure;
use crate::load::{Dataset, KEY_LEN_MAX, Shape, check_filled};
use crate::process::cache::bring_into_cache;
use crate::process::probe::copy_bytes_per_s;
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use kv_core::Env;
use kv_log::inspect;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Fills a store, damages a page in one of its segments, and repairs it. Copies the files too, for
/// comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Repair {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

/// Bytes of the damage.
const PAGE: usize = 4096;

impl Task for Repair {
    const NAME: &'static str = "repair";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Repair { shape, keys } = self;
        let [store, repaired, copy] = ["store", "repaired", "copy"].map(|name| run.dir.join(name));
        let (subject, data) = (KvEngine::open_log(&store, options(keys, shape))?, Dataset::new(shape));
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        Box::new(subject).close()?;
        let damaged = damage(&store)?;
        bring_into_cache(&store)?;
        let mut measured = Measured::default();
        measured.add("copy_bytes_per_s", copy_bytes_per_s(&store, &copy)?);
        let start = Instant::now();
        let report = inspect::repair(&Env::os(), &store, &repaired, &inspect::silently)?;
        // The new store is about as long as the old one.
        measured.add("repair_bytes_per_s", report.bytes as f64 / start.elapsed().as_secs_f64());
        measured.add("lost_keys", (keys - report.keys) as f64);
        if report.damages.iter().any(|damage| damage.path != damaged) || report.damages.is_empty() {
            return Err(Failure::Wrong(format!("it found other damage: {:?}", report.damages)));
        }
        let subject = KvEngine::open_log(&repaired, kv_log::Options::default())?;
        let lost = lost(&subject, &data, keys)?;
        // The page and the records across its ends.
        let most = PAGE as u64 / shape.pair_len() + 2;
        if lost.is_empty() || lost.len() as u64 > most {
            return Err(Failure::Wrong(format!("{} keys are lost with {PAGE} bytes", lost.len())));
        }
        check_filled(&subject, &data, (0..keys).filter(|index| !lost.contains(index)))?;
        Ok(measured)
    }
}

/// Fills a page in the middle of a segment in the middle; returns the path of its file.
fn damage(store: &Path) -> Result<PathBuf, Failure> {
    let failed = || Failure::io(format!("damage a file in {}", store.display()));
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(store).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if entry.path().extension().is_some_and(|extension| extension == "segment") {
            segments.push((entry.path(), entry.metadata().map_err(failed())?.len()));
        }
    }
    segments.sort();
    let middle = segments.swap_remove(segments.len() / 2);
    let file = std::fs::OpenOptions::new().write(true).open(&middle.0).map_err(failed())?;
    file.write_all_at(&[0xa5; PAGE], middle.1 / 2).map_err(failed())?;
    Ok(middle.0)
}

/// The keys of `0..keys` that `subject` does not hold.
fn lost(subject: &KvEngine, data: &Dataset, keys: u64) -> Result<HashSet<u64>, Failure> {
    let (mut lost, mut key) = (HashSet::new(), [0; KEY_LEN_MAX]);
    for index in 0..keys {
        if !subject.read(data.key(index, &mut key), &mut |_| {})? {
            lost.insert(index);
        }
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_run() {
        let shape = Shape { key_len: 24, value_len: 500, seed: 1 };
        let measured = measured(&Repair { shape, keys: 2000 });
        let lost = measured.get("lost_keys").unwrap();
        assert!((7.0..=9.0).contains(&lost), "{lost}");
        assert!(measured.get("repair_bytes_per_s").unwrap() > 0.0);
    }
}
