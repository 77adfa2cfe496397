//! Crashes while a snapshot or a backup is written.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::fs::FsExt;
use kv_core::{
    Always, Background, Engine, Env, KeepPast, ManualClock, OpenOptions, PointInTime, Reach, Result,
};
use kv_naive::NaiveEngine;
use kv_tests::sim::{PowerCut, SimFs};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/store";
const BACKUP: &str = "/backup";

fn open_dir(disk: &SimFs, dir: &str, read_only: bool) -> Result<NaiveEngine> {
    let clock = Arc::new(ManualClock::new(1000));
    let env = Env { fs: Arc::new(disk.clone()), clock, background: Background::Inline };
    let (persistence, retention) = (Arc::new(Always), Arc::new(KeepPast::all()));
    let options = OpenOptions { persistence, retention, read_only, ..OpenOptions::default() };
    NaiveEngine::open_in(Path::new(dir), &env, options)
}

fn open(disk: &SimFs) -> NaiveEngine {
    open_dir(disk, DIR, false).unwrap()
}

fn moments(store: &NaiveEngine) -> Vec<u64> {
    match store.reach().unwrap() {
        Reach::Moments(moments) => moments.iter().map(|(lsn, _)| lsn.get()).collect(),
        Reach::EveryLsn => panic!("a snapshot is one state"),
    }
}

/// The LSN of the last state of the backup.
fn newest_of_backup(disk: &SimFs) -> Result<u64> {
    Ok(*moments(&open_dir(disk, BACKUP, true)?).last().unwrap())
}

/// Opens a store, and makes `count` changes.
fn change(disk: &SimFs, count: u8) -> NaiveEngine {
    let store = open(disk);
    for number in 0..count {
        store.put(b"k", &[number]).unwrap();
    }
    store
}

/// The disks that may be found after a crash now.
fn crashed(disk: &SimFs) -> Vec<SimFs> {
    let cuts = [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL].into_iter().chain((2..6).map(PowerCut::seeded));
    cuts.map(|cut| disk.power_cut(cut)).chain([disk.process_death()]).collect()
}

/// Crashes a backup of the store on `disk` after each operation. The backup that a crash leaves has
/// the state at one of these LSNs as its last, and the next backup succeeds.
fn crash_everywhere(disk: &SimFs, before: Option<u64>, after: u64) {
    for count in 0.. {
        let disk = disk.process_death();
        let store = open(&disk);
        disk.cut_after(disk.mutations() + count);
        let is_done = store.backup(Path::new(BACKUP)).is_ok();
        for (number, image) in crashed(&disk).into_iter().enumerate() {
            let found = newest_of_backup(&image);
            let what = || format!("crash {number} after operation {count}: {found:?}");
            match (&found, before) {
                (Ok(lsn), _) => assert!(Some(*lsn) == before || *lsn == after, "{}", what()),
                (Err(_), None) => assert!(!is_done, "{}", what()),
                (Err(_), Some(_)) => panic!("{}", what()),
            }
            let again = open(&image).backup(Path::new(BACKUP));
            assert!(again.is_ok(), "{}, and then {again:?}", what());
            assert_eq!(newest_of_backup(&image).unwrap(), after, "{}", what());
            assert_eq!(open_dir(&image, BACKUP, true).unwrap().durable_lsn().get(), after, "{}", what());
        }
        if is_done {
            return;
        }
    }
}

#[test]
fn a_crash_while_a_snapshot_is_written_leaves_the_earlier_ones() {
    let disk = SimFs::new();
    change(&disk, 2).close().unwrap();
    for count in 0.. {
        let disk = disk.process_death();
        let store = open(&disk);
        disk.cut_after(disk.mutations() + count);
        let is_done = store.put(b"k", b"v").is_ok();
        // Enough that one of them keeps the new name of `SNAPSHOT` and loses that of the link.
        for seed in 0..64 {
            let found = moments(&open(&disk.power_cut(PowerCut::seeded(seed))));
            assert!(found.starts_with(&[0, 1, 2]), "{found:?} after operation {count} and seed {seed}");
        }
        if is_done {
            return;
        }
    }
}

#[test]
fn a_first_backup_is_there_or_not() {
    let disk = SimFs::new();
    change(&disk, 2).close().unwrap();
    crash_everywhere(&disk, None, 2);
}

#[test]
fn a_later_backup_leaves_the_earlier_one() {
    let disk = SimFs::new();
    change(&disk, 2).backup(Path::new(BACKUP)).unwrap();
    change(&disk, 2).close().unwrap();
    let after = newest(&disk);
    crash_everywhere(&disk, Some(2), after);
}

fn newest(disk: &SimFs) -> u64 {
    open(disk).durable_lsn().get()
}

#[test]
fn a_backup_of_a_store_that_was_set_back_leaves_the_earlier_one() {
    let disk = SimFs::new();
    change(&disk, 2).close().unwrap();
    let early = disk.process_death();
    let store = change(&disk, 3);
    store.backup(Path::new(BACKUP)).unwrap();
    store.close().unwrap();
    // The whole backup, and the files of the store as they were before.
    for name in disk.list(Path::new(BACKUP)).unwrap() {
        let path = Path::new(BACKUP).join(name);
        let bytes = disk.read_file(&path).unwrap();
        early.create_dir_durably(Path::new(BACKUP)).unwrap();
        early.damage(&path, Some(bytes));
    }
    assert_eq!(newest_of_backup(&early).unwrap(), 5);
    crash_everywhere(&early, Some(5), 2);
}
