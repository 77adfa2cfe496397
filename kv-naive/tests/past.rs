//! The files of old snapshots, which the conformance suite does not see: their number, damage, full
//! disks, and file systems without links.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failing_fs;

use failing_fs::FailingFs;
use kv_core::fs::FsExt;
use kv_core::{
    Always, Background, Engine, Env, Error, Fs, KeepPast, Lsn, Manual, ManualClock, OpenOptions,
    PersistencePolicy, PointInTime, Reach, Target,
};
use kv_naive::NaiveEngine;
use kv_tests::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const DIR: &str = "/store";

fn env(fs: impl Fs + 'static) -> Env {
    Env { fs: Arc::new(fs), clock: Arc::new(ManualClock::new(1000)), background: Background::Inline }
}

fn keeping(count: usize, policy: impl PersistencePolicy + 'static) -> OpenOptions {
    let retention = Arc::new(KeepPast::all().count_max(count));
    OpenOptions { persistence: Arc::new(policy), retention, ..OpenOptions::default() }
}

fn open(disk: &SimFs, count: usize) -> kv_core::Result<NaiveEngine> {
    NaiveEngine::open_in(Path::new(DIR), &env(disk.clone()), keeping(count, Always))
}

/// The LSNs in the names of old snapshots.
fn old_snapshots(fs: &dyn Fs) -> Vec<u64> {
    let names = fs.list(Path::new(DIR)).unwrap();
    let digits = names.iter().filter_map(|name| name.strip_prefix("SNAPSHOT."));
    digits.map(|digits| u64::from_str_radix(digits, 16).unwrap()).collect()
}

fn moments(store: &NaiveEngine) -> Vec<u64> {
    match store.reach().unwrap() {
        Reach::Moments(moments) => moments.iter().map(|(lsn, _)| lsn.get()).collect(),
        Reach::EveryLsn => panic!("a snapshot is one state"),
    }
}

fn at(store: &NaiveEngine, lsn: u64) -> kv_core::Result<Option<kv_core::Value>> {
    store.read_at(&Target::Lsn(Lsn::new(lsn)))?.engine.get(b"k")
}

fn old_file(lsn: u64) -> PathBuf {
    Path::new(DIR).join(format!("SNAPSHOT.{lsn:016x}"))
}

#[test]
fn only_the_last_snapshots_stay_on_the_disk() {
    let disk = SimFs::new();
    let store = open(&disk, 2).unwrap();
    for number in 0..5_u8 {
        store.put(b"k", &[number]).unwrap();
    }
    assert_eq!((old_snapshots(&disk), moments(&store)), (vec![3, 4], vec![3, 4, 5]));
    store.pin("third", &Target::Lsn(Lsn::new(3)), None).unwrap();
    for number in 5..8_u8 {
        store.put(b"k", &[number]).unwrap();
    }
    assert_eq!((old_snapshots(&disk), moments(&store)), (vec![3, 6, 7], vec![3, 6, 7, 8]));
    assert_eq!(at(&store, 5).unwrap().as_deref(), Some(&[2][..]), "the moment before");
    store.unpin("third").unwrap();
    assert_eq!(old_snapshots(&disk), [6, 7]);
    drop(store);
    // Without the policy they go at the next open.
    assert_eq!(moments(&open(&disk, 0).unwrap()), [8]);
    assert_eq!(old_snapshots(&disk), [0; 0]);
}

#[test]
fn a_full_disk_takes_old_snapshots_before_it_refuses_a_change() {
    let disk = SimFs::new();
    let store = open(&disk, 4).unwrap();
    for number in 0..6_u8 {
        store.put(b"k", &[number; 4000]).unwrap();
    }
    assert_eq!(old_snapshots(&disk), [2, 3, 4, 5]);
    let used: usize = disk.files().iter().map(|(_, bytes)| bytes.len()).sum();
    disk.limit_space(Some(used as u64 + 100));
    store.put(b"k", &[6; 4000]).unwrap();
    assert_eq!(old_snapshots(&disk), [3, 4, 5, 6], "the new one has the room of the oldest");
    disk.limit_space(Some(used as u64 - 8000));
    store.put(b"k", &[7; 4000]).unwrap();
    assert_eq!(old_snapshots(&disk), [6, 7]);
    for number in 8..20_u8 {
        store.put(b"k", &[number; 4000]).unwrap();
    }
    assert_eq!(store.durable_lsn(), Lsn::new(20));
}

#[test]
fn damage_in_an_old_snapshot_is_an_error_of_its_states_only() {
    let disk = SimFs::new();
    let store = open(&disk, 9).unwrap();
    for number in 0..4_u8 {
        store.put(b"k", &[number]).unwrap();
    }
    drop(store);
    let mut bytes = disk.read_file(&old_file(2)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    disk.damage(&old_file(2), Some(bytes));
    let store = open(&disk, 9).unwrap();
    let error = at(&store, 2).unwrap_err();
    assert!(matches!(&error, Error::Corruption { path, .. } if *path == old_file(2)), "{error}");
    assert!(store.backup(Path::new("/backup")).is_err(), "no backup passes damage on");
    for (lsn, value) in [(1, 0), (3, 2), (4, 3)] {
        assert_eq!(at(&store, lsn).unwrap().as_deref(), Some(&[value][..]));
    }
    drop(store);
    // One in the place of another.
    disk.damage(&old_file(2), Some(disk.read_file(&old_file(3)).unwrap()));
    let error = open(&disk, 9).unwrap_err().to_string();
    assert!(
        error.contains("0002 is damaged") && error.contains("not the snapshot that its name says"),
        "{error}"
    );
    disk.damage(&old_file(2), None);
    // The newest snapshot and an old one were swapped: neither is removed.
    let newest = Path::new(DIR).join("SNAPSHOT");
    let (old_bytes, bytes) = (disk.read_file(&old_file(3)).unwrap(), disk.read_file(&newest).unwrap());
    disk.damage(&newest, Some(old_bytes.clone()));
    disk.damage(&old_file(3), Some(bytes));
    assert!(open(&disk, 9).unwrap_err().to_string().contains("older than the one of the last close"));
    let names = |disk: &SimFs| disk.list(Path::new(DIR)).unwrap();
    assert!(names(&disk).contains(&"SNAPSHOT.0000000000000003".to_owned()));
    disk.damage(&old_file(3), Some(old_bytes));
    disk.damage(&newest, Some(disk.read_file(&old_file(1)).unwrap()));
    assert!(open(&disk, 9).unwrap_err().to_string().contains("older than the one of the last close"));
}

#[test]
fn an_old_snapshot_that_cannot_be_read_keeps_no_store_closed() {
    let disk = SimFs::new();
    let store = open(&disk, 9).unwrap();
    for number in 0..4_u8 {
        store.put(b"k", &[number]).unwrap();
    }
    store.close().unwrap();
    let unreadable = |nth| Fault { kind: FaultKind::ReadIo, nth, repeat: Repeat::Once };
    let mut opened = 0;
    for nth in 0.. {
        let disk = disk.process_death();
        disk.inject(unreadable(nth));
        let store = open(&disk, 9);
        if disk.faults_fired() == 0 {
            break;
        }
        if let Ok(store) = store {
            opened += 1;
            assert_eq!(moments(&store), [0, 1, 2, 3, 4], "read {nth}");
            assert_eq!(at(&store, 2).unwrap().as_deref(), Some(&[1][..]), "read {nth}");
        }
    }
    // Each of the four is opened, measured and read.
    assert!(opened >= 12, "{opened}");
    // A process without descriptors must not take them for damaged.
    let mut tolerated = 0;
    for nth in 0.. {
        let disk = disk.process_death();
        disk.inject(Fault { kind: FaultKind::NoDescriptors, ..unreadable(nth) });
        let store = open(&disk, 9);
        if disk.faults_fired() == 0 {
            break;
        }
        tolerated += usize::from(store.is_ok());
    }
    // Only the reserve can wait.
    assert_eq!(tolerated, 1);
}

#[test]
fn a_damaged_list_of_points_keeps_no_store_closed_and_lets_nothing_expire() {
    let disk = SimFs::new();
    let store = open(&disk, 0).unwrap();
    store.put(b"k", b"v").unwrap();
    store.pin("first", &Target::Lsn(Lsn::new(1)), None).unwrap();
    store.put(b"k", b"w").unwrap();
    store.close().unwrap();
    let list = Path::new(DIR).join("POINTS");
    let whole = disk.read_file(&list).unwrap();
    disk.damage(&list, Some(whole[1..].to_vec()));
    let store = open(&disk, 0).unwrap();
    assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"w"[..]));
    store.put(b"k", b"x").unwrap();
    assert_eq!((old_snapshots(&disk), moments(&store)), (vec![1, 2], vec![1, 2, 3]));
    let first = Target::Point("first".to_owned());
    for refused in [
        store.points().map(drop),
        store.pin("second", &Target::Lsn(Lsn::new(2)), None).map(drop),
        store.unpin("first").map(drop),
        store.read_at(&first).map(drop),
        store.backup(Path::new("/backup")).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(&error, Error::Corruption { path, .. } if *path == list), "{error}");
    }
    store.close().unwrap();
    disk.damage(&list, Some(whole));
    let store = open(&disk, 0).unwrap();
    assert_eq!(moments(&store), [1, 3]);
    assert_eq!(store.read_at(&first).unwrap().moment.lsn, Lsn::new(1));
}

#[test]
fn an_expired_point_does_not_come_back_with_an_earlier_time() {
    let disk = SimFs::new();
    let open_at = |unix_ms| {
        let env = Env { clock: Arc::new(ManualClock::new(unix_ms)), ..env(disk.clone()) };
        NaiveEngine::open_in(Path::new(DIR), &env, keeping(0, Always)).unwrap()
    };
    let store = open_at(1000);
    store.put(b"k", b"v").unwrap();
    store.pin("first", &Target::Lsn(Lsn::new(1)), Some(2000)).unwrap();
    store.put(b"k", b"w").unwrap();
    assert_eq!(old_snapshots(&disk), [1]);
    store.close().unwrap();
    let store = open_at(3000);
    assert_eq!(old_snapshots(&disk), [0; 0]);
    store.close().unwrap();
    let store = open_at(1500);
    assert_eq!(store.points().unwrap(), []);
    let error = store.read_at(&Target::Point("first".to_owned())).unwrap_err();
    assert!(matches!(error, Error::OutsideWindow { .. }), "{error}");
}

#[test]
fn after_a_crash_an_older_snapshot_in_the_place_of_the_newest_is_noticed() {
    let disk = SimFs::new();
    let store = open(&disk, 9).unwrap();
    for number in 0..4_u8 {
        store.put(b"k", &[number]).unwrap();
    }
    let crashed = || disk.process_death();
    let swapped = |crashed: &SimFs| {
        let newest = Path::new(DIR).join("SNAPSHOT");
        let (one, other) = (crashed.read_file(&old_file(3)).unwrap(), crashed.read_file(&newest).unwrap());
        crashed.damage(&newest, Some(one));
        crashed.damage(&old_file(3), Some(other));
    };
    let both = crashed();
    swapped(&both);
    let error = open(&both, 9).unwrap_err().to_string();
    assert!(error.contains("not the snapshot that its name says"), "{error}");
    let replaced = crashed();
    replaced.damage(&Path::new(DIR).join("SNAPSHOT"), Some(replaced.read_file(&old_file(1)).unwrap()));
    let error = open(&replaced, 9).unwrap_err().to_string();
    assert!(error.contains("is older than SNAPSHOT.0000000000000002"), "{error}");
}

#[test]
fn times_survive_an_open_and_later_ones_lead_no_further() {
    let disk = SimFs::new();
    let clock = Arc::new(ManualClock::new(1000));
    let env = Env { clock: clock.clone(), ..env(disk) };
    let open = || NaiveEngine::open_in(Path::new(DIR), &env, keeping(9, Manual)).unwrap();
    let store = open();
    for _ in 0..3 {
        clock.advance(std::time::Duration::from_millis(10));
        store.put(b"k", b"v").unwrap();
        store.sync().unwrap();
    }
    store.close().unwrap();
    let store = open();
    assert_eq!(store.reach().unwrap(), {
        let moments = [(0, 1000), (1, 1010), (2, 1020), (3, 1030)];
        Reach::Moments(moments.map(|(lsn, time)| (Lsn::new(lsn), time)).to_vec())
    });
    assert_eq!(store.read_at(&Target::UnixMs(1029)).unwrap().moment.lsn, Lsn::new(2));
}

#[test]
fn a_file_system_without_links_gets_copies() {
    let env = env(FailingFs::on(SimFs::new()));
    let store = NaiveEngine::open_in(Path::new(DIR), &env, keeping(2, Always)).unwrap();
    for number in 0..5_u8 {
        store.put(b"k", &[number]).unwrap();
    }
    assert_eq!(old_snapshots(&*env.fs), [3, 4]);
    assert_eq!(at(&store, 3).unwrap().as_deref(), Some(&[2][..]));
}

#[test]
fn an_expired_snapshot_that_cannot_be_removed_is_no_moment_again() {
    let fs = FailingFs::on(SimFs::new());
    let keeps_files = |keeps| fs.switches.keeps_files.store(keeps, Ordering::SeqCst);
    let open = |count, read_only| {
        let options = OpenOptions { read_only, ..keeping(count, Always) };
        NaiveEngine::open_in(Path::new(DIR), &env(fs.clone()), options).unwrap()
    };
    let store = open(2, false);
    keeps_files(true);
    for number in 0..5_u8 {
        store.put(b"k", &[number]).unwrap();
    }
    store.pin("third", &Target::Lsn(Lsn::new(3)), None).unwrap();
    store.put(b"k", b"").unwrap();
    assert_eq!(moments(&store), [3, 4, 5, 6]);
    store.unpin("third").unwrap();
    assert_eq!((moments(&store), store.stats().leftover_files), (vec![4, 5, 6], 4));
    drop(store);
    // A process that reads, and one that keeps more.
    for read_only in [true, false] {
        let store = open(9, read_only);
        assert_eq!((moments(&store), store.stats().leftover_files), (vec![4, 5, 6], 4));
    }
    assert_eq!(old_snapshots(&fs), [0, 1, 2, 3, 4, 5]);
    keeps_files(false);
    let store = open(9, false);
    assert_eq!((moments(&store), store.stats().leftover_files), (vec![4, 5, 6], 0));
    assert_eq!(old_snapshots(&fs), [4, 5]);
}

#[test]
fn after_the_call_in_which_a_snapshot_expires_no_power_cut_brings_it_back() {
    for count in 0.. {
        let disk = SimFs::new();
        let fs = FailingFs::on(disk.clone());
        let store = NaiveEngine::open_in(Path::new(DIR), &env(fs.clone()), keeping(1, Always)).unwrap();
        for number in 0..3_u8 {
            store.put(b"k", &[number]).unwrap();
        }
        fs.switches.keeps_files.store(true, Ordering::SeqCst);
        disk.cut_after(disk.mutations() + count);
        let answer = store.put(b"k", &[3]);
        let found = moments(&open(&disk.power_cut(PowerCut::seeded(count)), 9).unwrap());
        let expected: &[&[u64]] = if answer.is_ok() { &[&[3, 4]] } else { &[&[2, 3], &[2, 3, 4], &[3, 4]] };
        assert!(expected.contains(&found.as_slice()), "after {count}: {found:?}, {answer:?}");
        if !disk.has_lost_power() {
            assert!(answer.is_ok() && count > 5, "{count}");
            break;
        }
    }
}

#[test]
fn a_denied_sync_poisons_also_where_the_list_of_points_names_an_expired_snapshot() {
    for count in 0.. {
        let fs = FailingFs::on(SimFs::new());
        let options = OpenOptions { persistence: Arc::new(Always), ..OpenOptions::default() };
        let store = NaiveEngine::open_in(Path::new(DIR), &env(fs.clone()), options).unwrap();
        store.put(b"k", b"1").unwrap();
        store.pin("point", &Target::Lsn(Lsn::new(1)), None).unwrap();
        store.put(b"k", b"2").unwrap();
        // The snapshot expires and stays, so the list of points has to name it.
        fs.switches.keeps_files.store(true, Ordering::SeqCst);
        fs.switches.syncs_before.store(count, Ordering::SeqCst);
        fs.switches.denies_a_sync.store(true, Ordering::SeqCst);
        let answer = store.unpin("point");
        let is_denied = !fs.switches.denies_a_sync.swap(false, Ordering::SeqCst);
        let later = store.put(b"k", b"3");
        if !is_denied {
            assert!(answer.is_ok() && later.is_ok() && count == 2, "{count}: {answer:?}, {later:?}");
            break;
        }
        assert!(matches!(later, Err(Error::Poisoned { .. })), "{count}: {answer:?}, {later:?}");
    }
}
