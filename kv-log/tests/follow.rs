//! A follower sees each change of an open store once, in the order of LSNs, whatever becomes of the
//! segments.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test damages the files of a store")]

use kv_core::fs::FsExt;
use kv_core::{
    Background, Batch, Compact, Engine, Env, Error, Greedy, Lsn, Manual, ManualClock, MaxLogSize, Never,
};
use kv_log::inspect::{Followed, Follower};
use kv_log::{LogEngine, Options};
use kv_tests::sim::SimFs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a follower has told: LSNs, keys and values of changes, and the ends of gaps.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    changes: Vec<(u64, Vec<u8>, Vec<u8>)>,
    gaps: Vec<(u64, u64)>,
    damage: Vec<u64>,
}

impl Told {
    fn poll(&mut self, follower: &mut Follower) {
        let mut visit = |followed: Followed<'_>| {
            match followed {
                Followed::Change(record) => {
                    self.changes.push((record.lsn, record.key.to_vec(), record.value.to_vec()));
                }
                Followed::Gap { first, last } => self.gaps.push((first.get(), last.get())),
                Followed::Damage { offset, .. } => self.damage.push(offset),
                other => panic!("{other:?}"),
            }
            ControlFlow::Continue(())
        };
        follower.poll(&mut visit).unwrap();
    }

    fn lsns(&self) -> Vec<u64> {
        self.changes.iter().map(|(lsn, ..)| *lsn).collect()
    }
}

/// Small segments, and compaction of all that is dead.
fn options() -> Options {
    Options {
        segment_bytes: 4096,
        unflushed_bytes_max: 8192,
        persistence: Arc::new(MaxLogSize::new(1000)),
        compaction: Arc::new(Greedy {
            disk_utilization_min: 0.8,
            disk_slack_segments: 0,
            idle_disk_utilization_min: 0.9,
            ..Greedy::default()
        }),
        ..Options::default()
    }
}

fn without_compaction() -> Options {
    Options { compaction: Arc::new(Never), ..options() }
}

/// Changes that overwrite few keys, so most segments are soon dead.
fn change(store: &LogEngine, numbers: std::ops::Range<u64>) {
    for number in numbers {
        store.put(&(number % 10).to_le_bytes(), &[&number.to_le_bytes()[..], &[7; 40]].concat()).unwrap();
    }
}

/// The change with the LSN n has the number n - 1. Gaps and changes are apart, and leave out none.
fn assert_each_once(told: &Told, count: u64) {
    assert!(told.damage.is_empty());
    assert!(told.lsns().is_sorted_by(|one, next| one < next));
    let gaps = told.gaps.iter().flat_map(|(first, last)| *first..=*last);
    let mut all: Vec<u64> = told.lsns().into_iter().chain(gaps).collect();
    all.sort_unstable();
    assert_eq!(all, (1..=count).collect::<Vec<_>>());
    for (lsn, key, value) in &told.changes {
        let number = lsn - 1;
        assert_eq!((&key[..], &value[..8]), (&(number % 10).to_le_bytes()[..], &number.to_le_bytes()[..]));
    }
}

#[test]
fn each_change_comes_once_while_segments_are_compacted_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = LogEngine::open(dir.path(), options()).unwrap();
    let mut follower = Follower::open(&Env::os(), dir.path(), None).unwrap();
    let (mut told, is_over) = (Told::default(), AtomicBool::new(false));
    let store = thread::scope(|scope| {
        let follow = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                told.poll(&mut follower);
            }
            told.poll(&mut follower);
        });
        for round in 0..5 {
            change(&store, round * 2000..(round + 1) * 2000);
            // A follower goes on over a close and an opening.
            if round % 2 == 1 {
                store.close().unwrap();
                drop(store);
                store = LogEngine::open(dir.path(), options()).unwrap();
            }
        }
        store.sync().unwrap();
        is_over.store(true, Ordering::Relaxed);
        follow.join().unwrap();
        store
    });
    assert!(store.stats().compactions > 0);
    assert_each_once(&told, 10_000);
    // A thread that gets no processor for long may miss whole segments.
    assert!(told.changes.len() > 100, "{:?}", told.gaps);
}

/// A writer that does nothing on its own.
fn inline(disk: &SimFs) -> Env {
    let clock = Arc::new(ManualClock::new(0));
    Env { fs: Arc::new(disk.clone()), clock, background: Background::Inline }
}

#[test]
fn compacted_changes_are_a_gap_for_a_late_follower() {
    let disk = SimFs::new();
    let (dir, env) = (Path::new("/store"), inline(&disk));
    let store = LogEngine::open_in(dir, &env, options()).unwrap();
    change(&store, 0..990);
    store.compact().unwrap();
    change(&store, 990..1000);
    store.sync().unwrap();

    for (from, first) in [(Some(1), 1), (Some(5), 5)] {
        let mut told = Told::default();
        told.poll(&mut Follower::open(&env, dir, from.map(Lsn::new)).unwrap());
        let [(gap_first, gap_last)] = told.gaps[..] else { panic!("{:?}", told.gaps) };
        assert_eq!((gap_first, told.lsns()), (first, (gap_last + 1..=1000).collect()));
        assert!(gap_last > 500);
    }
    // All that is left, and only what is new.
    for (from, count) in [(Some(0), 500), (Some(1000), 1), (Some(1001), 0), (None, 0)] {
        let added = store.stats().last_lsn.get() - 1000;
        let from = from.map(|from| if from > 0 { from + added } else { 0 });
        let mut follower = Follower::open(&env, dir, from.map(Lsn::new)).unwrap();
        let mut told = Told::default();
        told.poll(&mut follower);
        assert!(told.gaps.is_empty() && told.changes.len() <= count, "{from:?}: {told:?}");
        change(&store, 1000..1001);
        store.sync().unwrap();
        told.poll(&mut follower);
        assert_eq!(told.lsns().last(), Some(&store.stats().last_lsn.get()), "{from:?}");
    }
}

#[test]
fn a_segment_is_read_to_its_end_after_its_removal() {
    let disk = SimFs::new();
    let (dir, env) = (Path::new("/store"), inline(&disk));
    let store = LogEngine::open_in(dir, &env, options()).unwrap();
    change(&store, 0..20);
    let mut follower = Follower::open(&env, dir, Some(Lsn::ZERO)).unwrap();
    let mut told = Told::default();
    told.poll(&mut follower);
    let (segments, seen) = (names(&disk), told.changes.len() as u64);
    assert!(seen < 20 && segments.len() < 10);
    change(&store, 20..2000);
    store.compact().unwrap();
    assert!(names(&disk).iter().all(|name| !segments.contains(name)), "each segment is gone");
    change(&store, 2000..2001);
    store.sync().unwrap();
    told.poll(&mut follower);
    assert_each_once(&told, 2001);
    assert!(told.gaps.len() == 1 && told.gaps[0].0 > 40, "{:?}", told.gaps);
}

fn names(disk: &SimFs) -> Vec<String> {
    let mut names = disk.list_if_exists(Path::new("/store")).unwrap().unwrap_or_default();
    names.retain(|name| name.ends_with(".segment"));
    names
}

#[test]
fn a_batch_comes_whole_and_a_torn_end_not_at_all() {
    let disk = SimFs::new();
    let (dir, env) = (Path::new("/store"), inline(&disk));
    let options = Options {
        segment_bytes: 64 << 10,
        unflushed_bytes_max: 128 << 10,
        persistence: Arc::new(Manual),
        ..options()
    };
    let store = LogEngine::open_in(dir, &env, options).unwrap();
    change(&store, 0..3);
    store.sync().unwrap();
    let mut follower = Follower::open(&env, dir, Some(Lsn::ZERO)).unwrap();
    let mut told = Told::default();
    told.poll(&mut follower);
    assert_eq!(told.lsns(), [1, 2, 3]);
    // Longer than the first piece that a follower reads.
    let mut batch = Batch::new();
    for key in 0_u8..9 {
        batch.put(&[key], &[7; 3000]);
    }
    store.apply(&batch).unwrap();
    told.poll(&mut follower);
    assert_eq!(told.changes.len(), 3, "it is in memory only");
    store.sync().unwrap();
    told.poll(&mut follower);
    assert_eq!(told.lsns(), [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4]);
    told.poll(&mut follower);
    assert_eq!(told.changes.len(), 12);
}

/// An opening removes the spares of the writer before.
#[test]
fn a_follower_goes_on_with_the_next_writer() {
    let disk = SimFs::new();
    let (dir, env) = (Path::new("/store"), inline(&disk));
    let store = LogEngine::open_in(dir, &env, without_compaction()).unwrap();
    change(&store, 0..500);
    store.sync().unwrap();
    let mut follower = Follower::open(&env, dir, Some(Lsn::ZERO)).unwrap();
    let mut told = Told::default();
    told.poll(&mut follower);
    drop(store);
    let store = LogEngine::open_in(dir, &env, without_compaction()).unwrap();
    change(&store, 500..900);
    store.sync().unwrap();
    told.poll(&mut follower);
    assert_each_once(&told, 900);
    assert_eq!(told.changes.len(), 900);
}

#[test]
fn a_damaged_segment_is_told_once_and_passed_over() {
    // A byte of its header, and one of a record.
    for damaged in [3, 1000] {
        let dir = tempfile::tempdir().unwrap();
        let store = LogEngine::open(dir.path(), without_compaction()).unwrap();
        change(&store, 0..500);
        store.close().unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
        names.sort();
        let mut bytes = std::fs::read(&names[1]).unwrap();
        bytes[damaged] ^= 1;
        std::fs::write(&names[1], bytes).unwrap();

        let mut follower = Follower::open(&Env::os(), dir.path(), Some(Lsn::new(1))).unwrap();
        let mut told = Told::default();
        told.poll(&mut follower);
        told.poll(&mut follower);
        assert_eq!((told.damage.len(), told.gaps.len()), (1, 1), "{told:?}");
        assert!(told.damage[0] <= damaged as u64 && told.lsns().last() == Some(&500));
        let gap = told.gaps[0];
        assert_eq!(told.changes.len() as u64, 500 - (gap.1 - gap.0 + 1));
    }
}

/// Few files are open at a time.
#[test]
fn many_segments_are_read_in_turn() {
    let disk = SimFs::new();
    let (dir, env) = (Path::new("/store"), inline(&disk));
    let store = LogEngine::open_in(dir, &env, without_compaction()).unwrap();
    change(&store, 0..5000);
    store.sync().unwrap();
    assert!(names(&disk).len() > 50);
    let mut told = Told::default();
    told.poll(&mut Follower::open(&env, dir, Some(Lsn::ZERO)).unwrap());
    assert_each_once(&told, 5000);
    assert!(told.gaps.is_empty());
}

#[test]
fn a_store_in_the_place_of_another_one_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), options()).unwrap();
    let mut follower = Follower::open(&Env::os(), dir.path(), None).unwrap();
    store.close().unwrap();
    drop(store);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let _other = LogEngine::open(dir.path(), options()).unwrap();
    let answer = follower.poll(&mut |_| ControlFlow::Continue(()));
    assert!(matches!(answer, Err(Error::NotAStore { .. })), "{answer:?}");
}

#[test]
fn what_is_no_store_or_gone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    assert!(Follower::open(&Env::os(), &path, None).is_err());
    assert!(Follower::open(&Env::os(), dir.path(), None).is_err());
    let store = LogEngine::open(&path, options()).unwrap();
    let mut follower = Follower::open(&Env::os(), &path, None).unwrap();
    store.close().unwrap();
    drop(store);
    std::fs::remove_dir_all(&path).unwrap();
    let start = Instant::now();
    while follower.poll(&mut |_| ControlFlow::Continue(())).is_ok() {
        assert!(start.elapsed() < Duration::from_mins(1), "the store is gone");
    }
}
