//! The newest past state after a death or a power cut: the tools for closed stores, readers and
//! ordinary openings agree about it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::{
    Background, Engine, EngineExt, Env, Error, KeepPast, Lsn, Manual, ManualClock, PointInTime, Target,
};
use kv_log::inspect::ClosedPast;
use kv_log::{LogEngine, Options};
use kv_tests::sim::SimFs;
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/store";

fn env(disk: &SimFs) -> Env {
    Env { fs: Arc::new(disk.clone()), clock: Arc::new(ManualClock::new(0)), background: Background::Inline }
}

fn options() -> Options {
    Options {
        segment_bytes: 2048,
        persistence: Arc::new(Manual),
        retention: Arc::new(KeepPast::all()),
        ..Options::default()
    }
}

fn open_with(disk: &SimFs, options: Options) -> LogEngine {
    LogEngine::open_in(Path::new(DIR), &env(disk), options).unwrap()
}

fn open(disk: &SimFs) -> LogEngine {
    open_with(disk, options())
}

fn reader(disk: &SimFs) -> LogEngine {
    open_with(disk, Options { read_only: true, ..options() })
}

fn closed(disk: &SimFs) -> ClosedPast {
    ClosedPast::open(&env(disk), Path::new(DIR)).unwrap()
}

/// Puts `count` numbers after `from` under keys of their own, so that each LSN tells how many keys
/// its state has.
fn put(store: &LogEngine, from: u32, count: u32) {
    for number in from..from + count {
        store.put(&number.to_be_bytes(), &[7; 100]).unwrap();
    }
}

/// Number of keys of the state at `lsn`.
fn keys_at(past: &dyn PointInTime, lsn: Lsn) -> u64 {
    let past = past.read_at(&Target::Lsn(lsn)).unwrap();
    assert_eq!(past.moment.lsn, lsn);
    past.engine.to_sorted_vec().unwrap().len() as u64
}

fn last_lsn(past: &dyn PointInTime) -> Lsn {
    past.window().unwrap().last_lsn
}
/// A process died: 20 changes are in the files, and 30 more in shared memory.
fn dead() -> SimFs {
    let disk = SimFs::new();
    let store = open(&disk);
    put(&store, 0, 20);
    store.sync().unwrap();
    put(&store, 20, 30);
    assert_eq!(store.durable_lsn(), Lsn::new(20));
    disk.process_death()
}

fn check_whole(past: &dyn PointInTime, disk: &SimFs) {
    assert_eq!(last_lsn(past), Lsn::new(50));
    for lsn in 0..=50 {
        assert_eq!(keys_at(past, Lsn::new(lsn)), lsn);
    }
    let versions = past.history(&40_u32.to_be_bytes()).unwrap();
    assert_eq!(versions.iter().map(|version| version.lsn.get()).collect::<Vec<_>>(), [41]);
    assert_eq!(disk.mutations(), 0, "the store stays as it is");

    let target = Target::Lsn(Lsn::new(45));
    past.restore(&target, Path::new("/restored")).unwrap();
    let restored = LogEngine::open_in(Path::new("/restored"), &env(disk), options()).unwrap();
    assert_eq!((restored.last_lsn(), restored.stats().keys), (Lsn::new(45), 45));

    let backup = past.backup(Path::new("/backup")).unwrap();
    assert_eq!(backup.moment.lsn, Lsn::new(50));
    let of_backup = ClosedPast::open(&env(disk), Path::new("/backup")).unwrap();
    assert!((0..=50).all(|lsn| keys_at(&of_backup, Lsn::new(lsn)) == lsn));
}

#[test]
fn a_reader_reaches_the_changes_that_only_shared_memory_holds() {
    let disk = dead();
    let reader = reader(&disk);
    check_whole(&reader, &disk);
    reader.close().unwrap();
    assert_eq!(open(&disk).stats().keys, 50);
}

#[test]
fn the_tools_for_closed_stores_reach_them_too() {
    let disk = dead();
    let past = closed(&disk);
    check_whole(&past, &disk);
    drop(past);
    assert_eq!(open(&disk).stats().keys, 50);
}

/// Both go by the files, as an opening would.
#[test]
fn a_tail_that_does_not_fit_takes_no_part_in_past_states() {
    let disk = dead();
    disk.change_boot();
    let reader = reader(&disk);
    assert_eq!(last_lsn(&reader), last_lsn(&closed(&disk)));
    assert_eq!(keys_at(&reader, Lsn::new(20)), 20);
    reader.close().unwrap();
    let store = open(&disk);
    assert_eq!((store.last_lsn(), store.stats().keys), (Lsn::new(20), 20));
}

/// The changes of the segments behind a damaged one are beyond reach.
#[test]
fn the_window_ends_before_a_hole() {
    let (disk, mut found) = (SimFs::new(), 0);
    let store = open(&disk);
    put(&store, 0, 60);
    store.sync().unwrap();
    let whole = disk.process_death();
    // Otherwise the tail has the bytes that are damaged here.
    whole.change_boot();
    for (path, mut bytes) in whole.files() {
        if path.extension().is_none_or(|extension| extension != "segment") || bytes.len() < 1000 {
            continue;
        }
        let disk = whole.process_death();
        bytes[1000] ^= 1;
        disk.damage(&path, Some(bytes));
        let past = closed(&disk);
        let last = last_lsn(&past);
        assert!(last < Lsn::new(60), "{}", path.display());
        assert_eq!(keys_at(&past, last), last.get(), "{}", path.display());
        found += 1;
    }
    assert!(found > 3);
}

/// The log of a restored store goes on in a segment whose changes get LSNs far above.
#[test]
fn the_window_of_a_restored_store_ends_at_its_newest_change() {
    let disk = SimFs::new();
    let store = open(&disk);
    put(&store, 0, 1);
    let (target, into) = (Target::Lsn(Lsn::new(1)), Path::new("/restored"));
    store.restore(&target, into).unwrap();
    let restored = LogEngine::open_in(into, &env(&disk), options()).unwrap();
    assert_eq!(restored.last_lsn(), Lsn::new(1));
    restored.close().unwrap();

    let past = ClosedPast::open(&env(&disk), into).unwrap();
    assert_eq!(last_lsn(&past), Lsn::new(1));
    let beyond = past.restore(&Target::Lsn(Lsn::new(2)), Path::new("/beyond"));
    assert!(matches!(beyond, Err(Error::OutsideWindow { .. })), "{beyond:?}");
    let copied = Path::new("/backup");
    assert_eq!(past.backup(copied).unwrap().moment.lsn, Lsn::new(1));
    let backup = LogEngine::open_in(copied, &env(&disk), Options { read_only: true, ..options() }).unwrap();
    assert_eq!((backup.durable_lsn(), last_lsn(&backup)), (Lsn::new(1), Lsn::new(1)));
    assert_eq!(last_lsn(&ClosedPast::open(&env(&disk), copied).unwrap()), Lsn::new(1));
}
