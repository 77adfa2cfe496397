//! Stores of kv-log on simulated disks.

use crate::disk::{DIR, env};
use crate::listing::text;
use kv_core::{Engine, Manual, Never, OnRequest, Result};
use kv_log::{LogEngine, Options, ProcessSafe};
use kv_tests::sim::SimFs;
use std::path::Path;
use std::sync::Arc;

pub(crate) const MANIFEST: &str = "MANIFEST";
pub(crate) const FIRST: &str = "0000000000000001.segment";
pub(crate) const SECOND: &str = "0000000000000002.segment";
pub(crate) const THIRD: &str = "0000000000000003.segment";

/// Segments with room for ten of the records here. Nothing happens unless a row asks for it.
pub(crate) fn options() -> Options {
    Options {
        segment_bytes: 1024,
        persistence: Arc::new(Manual),
        compaction: Arc::new(Never),
        // An opening from a checkpoint would not read the segments, and shared memory would heal
        // them.
        checkpoint: Arc::new(OnRequest),
        process_safe: ProcessSafe::Off,
        ..Options::default()
    }
}

pub(crate) fn open_with(disk: &SimFs, options: Options) -> Result<LogEngine> {
    LogEngine::open_in(Path::new(DIR), &env(disk.clone()), options)
}

pub(crate) fn open(disk: &SimFs) -> Result<LogEngine> {
    open_with(disk, options())
}

/// The text of an opening of `disk`, which `damage` changed before.
pub(crate) fn open_after(disk: &SimFs, damage: impl FnOnce(&SimFs)) -> String {
    damage(disk);
    text(open(disk))
}

/// Puts 25 keys: ten into each of two segments, which are then sealed, and five into a third. Syncs
/// after the first key of the third, and at the end.
pub(crate) fn fill(store: &LogEngine) -> Result<()> {
    for number in 0..25_u32 {
        store.put(&number.to_be_bytes(), &[7; 70])?;
        if number == 20 {
            store.sync()?;
        }
    }
    store.sync().map(drop)
}

/// A disk with a filled store that was closed. The manifest knows the first and second segment to
/// be sealed, and the durable length of the third.
pub(crate) fn closed() -> SimFs {
    let disk = SimFs::new();
    let store = open(&disk).unwrap();
    fill(&store).unwrap();
    store.close().unwrap();
    disk
}

/// A disk with a filled store whose process died. The manifest names all three segments, and knows
/// only that their headers are durable.
pub(crate) fn killed() -> SimFs {
    let disk = SimFs::new();
    let store = open(&disk).unwrap();
    fill(&store).unwrap();
    disk.process_death()
}
