//! The tail in shared memory: an opening adopts it after the death of the process, and passes over
//! objects that do not fit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::{Background, Engine, EngineExt, Env, Error, Lsn, Manual, ManualClock, ProcessSafety};
use kv_log::tail::{State, list, remove};
use kv_log::{LogEngine, Options, ProcessSafe};
use kv_tests::sim::{PowerCut, SimFs};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/store";
/// Length of the control block in front of an image, bytes.
const CONTROL_LEN: usize = 4096;

fn env(disk: &SimFs) -> Env {
    let clock = Arc::new(ManualClock::new(0));
    Env { fs: Arc::new(disk.clone()), clock, background: Background::Inline }
}

fn options() -> Options {
    Options { segment_bytes: 2048, persistence: Arc::new(Manual), index_shards: 4, ..Options::default() }
}

fn open_with(disk: &SimFs, options: Options) -> Result<LogEngine, Error> {
    LogEngine::open_in(Path::new(DIR), &env(disk), options)
}

fn open(disk: &SimFs) -> LogEngine {
    open_with(disk, options()).unwrap()
}

/// Puts `count` numbers after `from` under keys of their own.
fn put(store: &LogEngine, from: u32, count: u32) {
    for number in from..from + count {
        store.put(&number.to_be_bytes(), &[7; 100]).unwrap();
    }
}

/// The numbers that a store holds, which are those from 0 up to one of them.
fn count(store: &LogEngine) -> u32 {
    let pairs = store.to_sorted_vec().unwrap();
    let numbers = pairs.iter().map(|(key, _)| u32::from_be_bytes(key.as_slice().try_into().unwrap()));
    assert!(numbers.eq(0..u32::try_from(pairs.len()).unwrap()), "no prefix");
    u32::try_from(pairs.len()).unwrap()
}

/// A machine on which a process died: 50 changes in four segments, none of them dumped.
fn dead() -> SimFs {
    let disk = SimFs::new();
    let store = open(&disk);
    put(&store, 0, 50);
    assert_eq!((store.durable_lsn(), store.stats().process_safety), (Lsn::ZERO, ProcessSafety::Safe));
    disk.process_death()
}

/// Opens copies of `whole`. The first opening dies before it changes the disk, each later one after
/// one change more, until one survives. Calls `check` with each copy and the number of changes.
fn at_each_death_of_an_opening(whole: &SimFs, check: impl Fn(&SimFs, u64)) {
    for cut in 0.. {
        let image = whole.process_death();
        image.cut_after(cut);
        let opened = open_with(&image, options());
        let is_over = !image.has_lost_power();
        drop(opened);
        check(&image, cut);
        if is_over {
            break;
        }
    }
}

#[test]
fn a_death_loses_nothing_and_a_power_cut_what_was_not_durable() {
    let disk = dead();
    let cut = disk.power_cut(PowerCut::KEEP_ALL);
    let store = open(&disk);
    assert_eq!((count(&store), store.durable_lsn()), (50, store.last_lsn()));
    let report = store.recovery_report();
    assert!(report.adopted_bytes > 5000 && report.warnings.is_empty(), "{report:?}");
    assert_eq!(count(&open(&cut)), 0);
}

#[test]
fn after_a_clean_close_nothing_is_left() {
    let disk = dead();
    let store = open(&disk);
    put(&store, 50, 50);
    store.close().unwrap();
    assert!(disk.shared_objects().is_empty());
    let store = open(&disk);
    assert_eq!((count(&store), store.recovery_report().adopted_bytes), (100, 0));
}

#[test]
fn a_poisoned_store_leaves_its_tail() {
    use kv_tests::sim::{Fault, FaultKind, Repeat};
    let disk = SimFs::new();
    let store = open(&disk);
    put(&store, 0, 5);
    disk.inject(Fault { kind: FaultKind::Sync, nth: 0, repeat: Repeat::Once });
    store.sync().unwrap_err();
    store.close().unwrap_err();
    drop(store);
    assert_eq!(count(&open(&disk.process_death())), 5);
}

#[test]
fn a_store_torn_at_any_byte_leaves_a_prefix() {
    let disk = SimFs::new();
    let store = open(&disk);
    put(&store, 0, 30);
    let before = disk.shared_objects();
    put(&store, 30, 1);
    let after = disk.shared_objects();
    let changed: Vec<(usize, usize)> = after
        .iter()
        .enumerate()
        .flat_map(|(object, (name, bytes))| {
            let (known, old) = &before[object];
            assert_eq!(name, known);
            let changed = bytes.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old);
            changed.map(move |(at, _)| (object, at)).collect::<Vec<_>>()
        })
        .collect();
    assert!(changed.len() > 100);
    for kept in 0..=changed.len() {
        let image = disk.process_death();
        let mut torn = before.clone();
        for (object, at) in &changed[..kept] {
            torn[*object].1[*at] = after[*object].1[*at];
        }
        for (name, bytes) in torn {
            image.damage_shared(&name, Some(bytes));
        }
        let found = count(&open(&image));
        assert_eq!(found, if kept == changed.len() { 31 } else { 30 }, "{kept} bytes");
    }
}

#[test]
fn a_torn_segment_cuts_all_that_follow_it() {
    let whole = dead();
    for (name, bytes) in whole.shared_objects() {
        let image = whole.process_death();
        let mut torn = bytes.clone();
        torn[CONTROL_LEN + 300] ^= 1;
        image.damage_shared(&name, Some(torn));
        let found = count(&open(&image));
        assert!(found <= 50, "{name}");
        // The changes that were cut are gone for good.
        assert_eq!(count(&open(&image.power_cut(PowerCut::LOSE_ALL))), found);
    }
}

#[test]
fn damaged_truncated_and_foreign_objects_never_stop_an_opening() {
    let whole = dead();
    for (name, bytes) in whole.shared_objects() {
        let damages: Vec<Option<Vec<u8>>> = vec![
            None,
            Some(Vec::new()),
            Some(bytes[..100].to_vec()),
            Some(bytes[..CONTROL_LEN].to_vec()),
            Some(bytes[..bytes.len() - 1].to_vec()),
            Some([&[0; CONTROL_LEN][..], &bytes[CONTROL_LEN..]].concat()),
            Some([&bytes[..CONTROL_LEN], &vec![0xff; bytes.len() - CONTROL_LEN]].concat()),
        ];
        for damaged in damages {
            let image = whole.process_death();
            image.damage_shared(&name, damaged);
            let store = open(&image);
            assert!(count(&store) < 51);
            store.put(b"\0\0\xff\xff", b"new").unwrap();
        }
    }
}

/// Its process died before it gave the object a length, or before it wrote the control block.
#[test]
fn an_object_that_was_never_in_use_is_removed_without_a_warning() {
    for len in [0, 1, CONTROL_LEN, 2 * CONTROL_LEN] {
        let disk = dead();
        let (name, _) = disk.shared_objects().into_iter().next().unwrap();
        disk.damage_shared(&format!("{name}0"), Some(vec![0; len]));
        let store = open(&disk);
        assert_eq!((count(&store), &store.recovery_report().warnings), (50, &Vec::new()), "{len}");
        store.close().unwrap();
        assert!(disk.shared_objects().is_empty(), "{len}");
    }
}

#[test]
fn the_tail_of_another_boot_is_ignored_and_removed() {
    let disk = dead();
    disk.change_boot();
    let store = open(&disk);
    let warnings = &store.recovery_report().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("earlier boot")), "{warnings:?}");
    assert_eq!(count(&store), 0);
    store.close().unwrap();
    assert!(disk.shared_objects().is_empty());
}

#[test]
fn a_tail_that_an_opening_passed_over_is_stale() {
    let disk = dead();
    let tail = disk.shared_objects();
    let store = open(&disk);
    store.close().unwrap();
    for (name, bytes) in tail {
        disk.damage_shared(&name, Some(bytes));
    }
    let store = open(&disk);
    let report = store.recovery_report();
    assert_eq!((count(&store), report.adopted_bytes), (50, 0));
    assert!(report.warnings.iter().any(|warning| warning.contains("earlier opening")), "{report:?}");
}

#[test]
fn a_copy_of_the_directory_adopts_nothing() {
    let disk = dead();
    kv_core::Fs::create_dir(&disk, Path::new("/copy")).unwrap();
    for (path, bytes) in disk.files() {
        disk.damage(&Path::new("/copy").join(path.file_name().unwrap()), Some(bytes));
    }
    let copy = LogEngine::open_in(Path::new("/copy"), &env(&disk), options()).unwrap();
    assert_eq!(count(&copy), 0);
    assert_eq!(count(&open(&disk)), 50, "the copy took nothing from the store");
}

#[test]
fn where_memory_is_short_stats_say_so_until_it_is_back() {
    let disk = SimFs::new();
    disk.limit_shared_memory(Some(100));
    let store = open(&disk);
    put(&store, 0, 1);
    let ProcessSafety::Unsafe(why) = store.stats().process_safety else { panic!("it has no memory") };
    assert!(why.contains("/dev/shm"), "{why}");
    disk.limit_shared_memory(None);
    put(&store, 1, 30);
    store.sync().unwrap();
    assert_eq!(store.stats().process_safety, ProcessSafety::Safe);
    put(&store, 31, 30);
    assert_eq!(count(&open(&disk.process_death())), 61);
}

#[test]
fn where_process_safety_is_required_a_lack_is_refused() {
    let required = || Options { process_safe: ProcessSafe::Required, ..options() };
    let refused = |disk: &SimFs| matches!(open_with(disk, required()), Err(Error::NotProcessSafe { .. }));
    let disk = SimFs::new();
    disk.lack_shared_memory(true);
    assert!(refused(&disk));
    assert!(matches!(open(&disk).stats().process_safety, ProcessSafety::Unsafe(_)));

    let disk = dead();
    disk.deny_shared_memory(true);
    assert!(refused(&disk), "another user's tail");
    let store = open(&disk.process_death());
    assert!(!store.recovery_report().warnings.is_empty());

    let disk = SimFs::new();
    let store = open_with(&disk, required()).unwrap();
    disk.limit_shared_memory(Some(0));
    let answers: Vec<bool> =
        (0..40_u32).map(|key| store.put(&key.to_be_bytes(), &[7; 100]).is_ok()).collect();
    let taken = u32::try_from(answers.iter().filter(|is_ok| **is_ok).count()).unwrap();
    assert!(taken > 5 && taken < 40);
    disk.limit_shared_memory(None);
    put(&store, taken, 1);
    assert_eq!(count(&open(&disk.process_death())), taken + 1);
}

#[test]
fn switched_off_nothing_is_shared_and_a_tail_is_still_adopted() {
    let off = || Options { process_safe: ProcessSafe::Off, ..options() };
    let disk = dead();
    let store = open_with(&disk, off()).unwrap();
    assert_eq!((count(&store), store.stats().process_safety), (50, ProcessSafety::NotPromised));
    put(&store, 50, 10);
    assert!(disk.shared_objects().is_empty());
}

#[test]
fn a_death_or_power_cut_while_adopting_loses_nothing_that_was_there() {
    at_each_death_of_an_opening(&dead(), |image, cut| {
        // Three deaths in a row, each a little later.
        let mut next = image.process_death();
        for later in [cut / 2, cut] {
            next.cut_after(later);
            drop(open_with(&next, options()));
            next = next.process_death();
        }
        assert_eq!(count(&open(&next)), 50, "death after {cut}");
        for power in [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL, PowerCut::seeded(cut + 2)] {
            let store = open(&image.power_cut(power));
            assert!(count(&store) <= 50, "power cut after {cut}");
        }
    });
}

#[test]
fn a_reader_sees_the_tail_and_leaves_it() {
    let disk = dead();
    let reader = open_with(&disk, Options { read_only: true, ..options() }).unwrap();
    assert_eq!(count(&reader), 50);
    reader.close().unwrap();
    assert_eq!(disk.mutations(), 0);
    assert_eq!(count(&open(&disk)), 50);
}

#[test]
#[cfg(target_os = "linux")]
fn an_open_store_uses_its_tail() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), options()).unwrap();
    if store.stats().process_safety != ProcessSafety::Safe {
        return;
    }
    let of_store = || {
        let mut all = list(&Env::os()).unwrap();
        all.retain(|one| one.store.as_deref() == Some(dir.path()));
        all.into_iter().map(|one| one.state).collect::<Vec<_>>()
    };
    assert_eq!(of_store(), [State::InUse]);
    store.close().unwrap();
    assert!(of_store().is_empty());
}

#[test]
fn tails_are_listed_and_those_of_gone_stores_are_removed() {
    let disk = dead();
    let states =
        |disk: &SimFs| list(&env(disk)).unwrap().into_iter().map(|one| one.state).collect::<Vec<_>>();
    let before = states(&disk);
    assert!(before.len() >= 4 && before.iter().all(|state| *state == State::Waiting), "{before:?}");
    // The store has moved: it may come back.
    disk.move_dir(Path::new(DIR), Some(Path::new("/moved"))).unwrap();
    assert!(states(&disk).iter().all(|state| *state == State::Waiting));
    let other = LogEngine::open_in(Path::new("/other"), &env(&disk), options()).unwrap();
    assert!(states(&disk).len() > before.len());
    other.close().unwrap();
    disk.move_dir(Path::new("/moved"), None).unwrap();
    assert!(states(&disk).iter().all(|state| *state == State::StoreGone));
    // Its file system may only be unmounted, so no opening of another store removes them.
    LogEngine::open_in(Path::new("/other"), &env(&disk), options()).unwrap().close().unwrap();
    assert!(states(&disk).len() == before.len());
    for one in list(&env(&disk)).unwrap() {
        remove(&env(&disk), &one.name).unwrap();
    }
    assert!(disk.shared_objects().is_empty());
}

/// The log ends in the torn bytes of segment 1. The objects of its successors hold what came after
/// them.
#[test]
fn no_death_revives_the_changes_behind_a_torn_segment() {
    let whole = dead();
    let path = Path::new(DIR).join("0000000000000001.segment");
    let header = kv_core::fs::FsExt::read_file(&whole, &path).unwrap()[..40].to_vec();
    let objects = whole.shared_objects();
    let (object, bytes) =
        objects.iter().find(|(_, bytes)| bytes[CONTROL_LEN..].starts_with(&header)).unwrap();
    let mut torn = bytes[CONTROL_LEN..].to_vec();
    torn[700] ^= 1;
    whole.damage(&path, Some(torn));
    whole.damage_shared(object, None);
    let expected = count(&open(&whole.process_death()));
    assert!(expected > 0 && expected < 15);
    at_each_death_of_an_opening(&whole, |image, cut| {
        assert_eq!(count(&open(&image.process_death())), expected, "death after {cut}");
    });
}
