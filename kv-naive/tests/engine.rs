//! The promises of this engine alone, which the conformance suite does not check.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failing_fs;

use failing_fs::{FailingFs, Switches};
use kv_core::fs::{DirExt, FsExt};
use kv_core::{
    Acknowledge, Background, Batch, Decision, Engine, EngineExt, Env, Error, Fs, LossWindow, Lsn, Manual,
    MaxLogSize, OpenOptions, OsFs, Pending, Periodic, PersistencePolicy, SystemClock,
};
use kv_naive::NaiveEngine;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn options(policy: impl PersistencePolicy + 'static) -> OpenOptions {
    OpenOptions { persistence: Arc::new(policy), ..OpenOptions::default() }
}

fn open(dir: &Path) -> kv_core::Result<NaiveEngine> {
    NaiveEngine::open(dir, options(Manual))
}

/// Copies the files that a crash of the process would leave.
fn copy_files(from: &Path, to: &Path) {
    OsFs.create_dir_durably(to).unwrap();
    let copy = OsFs.open_dir(to).unwrap();
    // The identity first: a ceiling may be older than the snapshot, never the other way round.
    for name in ["NAIVE", "SNAPSHOT"] {
        let content = OsFs.read_file(&from.join(name)).unwrap();
        copy.write_file_atomically(name, &content).unwrap();
    }
}

/// The changes of a writer by LSN: keys with their values, or none.
type History = Vec<(u64, Vec<(Vec<u8>, Option<Vec<u8>>)>)>;

/// Waits until `condition` holds.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn on_failing_fs(dir: &Path, background: Background, policy: OpenOptions) -> (Arc<Switches>, NaiveEngine) {
    let fs = FailingFs::on(OsFs);
    let env = Env { fs: Arc::new(fs.clone()), clock: Arc::new(SystemClock::new()), background };
    let engine = NaiveEngine::open_in(dir, &env, policy).unwrap();
    (fs.switches, engine)
}

#[test]
fn a_crash_at_any_moment_under_writers_leaves_a_point_in_time() {
    const WRITERS: u64 = 3;
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let engine = NaiveEngine::open(&live, options(MaxLogSize::new(2000))).unwrap();
    let stop = AtomicBool::new(false);
    let (histories, crashes) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (engine, stop) = (&engine, &stop);
                scope.spawn(move || {
                    let mut history = History::new();
                    for number in 0u64.. {
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                        // Writers share most keys.
                        let key = |salt: u64| {
                            (number.wrapping_mul(0x9e37_79b9) / 7 + salt).to_le_bytes()[..1].to_vec()
                        };
                        let value = [writer.to_le_bytes(), number.to_le_bytes()].concat();
                        match number % 5 {
                            0 => {
                                if let Some(lsn) = engine.delete(&key(writer)).unwrap() {
                                    history.push((lsn.get(), vec![(key(writer), None)]));
                                }
                            }
                            1 => {
                                let mut batch = Batch::new();
                                batch.put(&key(1), &value).put(&key(2), &value);
                                let lsn = engine.apply(&batch).unwrap();
                                let changes = vec![(key(1), Some(value.clone())), (key(2), Some(value))];
                                history.push((lsn.get(), changes));
                            }
                            _ => {
                                let lsn = engine.put(&key(0), &value).unwrap();
                                history.push((lsn.get(), vec![(key(0), Some(value))]));
                            }
                        }
                    }
                    history
                })
            })
            .collect();
        let mut crashes = Vec::new();
        let mut told = engine.durable_lsn();
        for number in 0..25u64 {
            // A snapshot later, however slow the disk is, and then somewhere in the next.
            let start = Instant::now();
            while engine.durable_lsn() <= told {
                assert!(start.elapsed() < Duration::from_mins(1), "a deadlock?");
                std::thread::sleep(Duration::from_micros(100));
            }
            std::thread::sleep(Duration::from_micros(number * 300));
            told = engine.durable_lsn();
            let copy = dir.path().join(format!("crash {number}"));
            copy_files(&live, &copy);
            crashes.push((copy, told));
        }
        stop.store(true, Ordering::SeqCst);
        let histories: Vec<History> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        (histories, crashes)
    });
    assert!(engine.stats().dumps > 10, "{:?}", engine.stats());
    let log: BTreeMap<u64, _> = histories.into_iter().flatten().collect();
    for (copy, told) in crashes {
        let recovered = open(&copy).unwrap();
        assert!(recovered.last_lsn() >= told);
        let mut expected = BTreeMap::new();
        for (key, value) in log.range(..=recovered.last_lsn().get()).flat_map(|(_, changes)| changes) {
            match value {
                Some(value) => drop(expected.insert(key.clone(), value.clone())),
                None => drop(expected.remove(key)),
            }
        }
        assert_eq!(recovered.to_sorted_vec().unwrap(), expected.into_iter().collect::<Vec<_>>());
        assert!(recovered.put(b"next", b"").unwrap().get() > *log.keys().next_back().unwrap());
    }
}

#[test]
fn no_lsn_is_given_out_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (first, crashed) = (dir.path().join("a"), dir.path().join("b"));
    let engine = open(&first).unwrap();
    let durable = engine.put_durable(b"k", b"1").unwrap();
    assert_eq!(durable, Lsn::new(1));
    let lost = engine.put(b"k", b"2").unwrap();
    copy_files(&first, &crashed);
    let recovered = open(&crashed).unwrap();
    assert_eq!((recovered.last_lsn(), recovered.durable_lsn()), (durable, durable));
    assert!(recovered.put(b"k", b"3").unwrap() > lost);

    // Closing gives unused ones back.
    engine.close().unwrap();
    let again = open(&first).unwrap();
    assert_eq!(again.last_lsn(), lost);
    assert_eq!(again.put(b"k", b"4").unwrap(), lost.next());
}

#[test]
fn directories_are_told_apart_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut no_create = options(Manual);
    no_create.create_if_missing = false;
    let refuse = |path: &Path| NaiveEngine::open(path, no_create.clone()).unwrap_err();

    let missing = dir.path().join("missing");
    assert!(matches!(refuse(&missing), Error::NotAStore { .. }));
    assert_eq!(OsFs.list_if_exists(&missing).unwrap(), None);

    let empty = dir.path().join("empty");
    OsFs.create_dir_durably(&empty).unwrap();
    assert!(matches!(refuse(&empty), Error::NotAStore { .. }));
    assert!(OsFs.list(&empty).unwrap().is_empty());

    let foreign = dir.path().join("foreign");
    OsFs.create_dir_durably(&foreign).unwrap();
    OsFs.open_dir(&foreign).unwrap().write_file_atomically("MANIFEST", b"").unwrap();
    let error = open(&foreign).unwrap_err();
    assert!(matches!(&error, Error::NotAStore { detail, .. } if detail.contains("kv-log")), "{error}");
    assert_eq!(OsFs.list(&foreign).unwrap(), ["MANIFEST"]);

    let store = dir.path().join("store");
    let engine = open(&store).unwrap();
    assert!(matches!(open(&store), Err(Error::Locked { .. })));
    engine.put(b"k", b"v").unwrap();
    engine.close().unwrap();
    OsFs.open_dir(&store).unwrap().write_file_atomically("SNAPSHOT.tmp", b"left by a crash").unwrap();
    drop(NaiveEngine::open(&store, no_create.clone()).unwrap());
    assert_eq!(OsFs.list(&store).unwrap(), ["LOCK", "NAIVE", "RESERVE", "SNAPSHOT"]);

    for lost in ["NAIVE", "SNAPSHOT"] {
        let copy = dir.path().join(format!("without {lost}"));
        copy_files(&store, &copy);
        OsFs.remove_file(&copy.join(lost)).unwrap();
        let error = open(&copy).unwrap_err();
        assert!(matches!(&error, Error::Corruption { path, .. } if path.ends_with(lost)), "{error}");
    }
}

#[test]
fn an_unfinished_creation_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    OsFs.remove_file(&dir.path().join("NAIVE")).unwrap();
    let mut no_create = options(Manual);
    no_create.create_if_missing = false;
    let refused = NaiveEngine::open(dir.path(), no_create);
    assert!(matches!(refused, Err(Error::NotAStore { .. })));
    assert_eq!(open(dir.path()).unwrap().last_lsn(), Lsn::ZERO);
}

#[test]
fn a_failed_snapshot_poisons_and_the_previous_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, engine) = on_failing_fs(dir.path(), Background::Inline, options(Manual));
    let durable = engine.put_durable(b"k", b"1").unwrap();
    let lsn = engine.put(b"k", b"2").unwrap();
    fs.fails.store(true, Ordering::SeqCst);
    assert!(matches!(engine.sync(), Err(Error::Io { .. })));
    fs.fails.store(false, Ordering::SeqCst);
    assert!(matches!(engine.sync(), Err(Error::Poisoned { .. })));
    assert!(matches!(engine.wait_durable(lsn), Err(Error::Poisoned { .. })));
    engine.wait_durable(durable).unwrap();
    assert!(matches!(engine.put(b"k", b"3"), Err(Error::Poisoned { .. })));
    assert!(matches!(engine.delete(b"k"), Err(Error::Poisoned { .. })));
    assert_eq!(engine.get(b"k").unwrap().as_deref(), Some(b"2".as_slice()));
    assert_eq!((engine.last_lsn(), engine.durable_lsn()), (lsn, durable));
    assert!(matches!(engine.close(), Err(Error::Poisoned { .. })));
    assert!(matches!(engine.close(), Err(Error::Poisoned { .. })), "a close answers as the first one did");
    assert!(matches!(engine.get(b"k"), Err(Error::Closed)));
    let again = open(dir.path()).unwrap();
    assert_eq!(again.get(b"k").unwrap().as_deref(), Some(b"1".as_slice()));
}

#[test]
fn failures_and_panics_of_the_worker_poison() {
    for panics in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let policy = options(Periodic::new(Duration::from_millis(5)));
        let (fs, engine) = on_failing_fs(dir.path(), Background::Threads, policy);
        if panics { &fs.panics } else { &fs.fails }.store(true, Ordering::SeqCst);
        engine.put(b"k", b"v").unwrap();
        wait_until("poisoning", || matches!(engine.put(b"k", b"w"), Err(Error::Poisoned { .. })));
        assert!(matches!(engine.close(), Err(Error::Poisoned { .. })));
    }
}

#[test]
fn everybody_who_waits_hears_of_the_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, engine) = on_failing_fs(dir.path(), Background::Threads, options(kv_core::Always));
    fs.fails.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        for key in 0..4u8 {
            let engine = &engine;
            scope.spawn(move || engine.put(&[key], b"v").unwrap_err());
        }
    });
    assert_eq!(engine.durable_lsn(), Lsn::ZERO);
}

#[test]
fn the_worker_snapshots_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = NaiveEngine::open(dir.path(), options(Periodic::new(Duration::from_millis(2)))).unwrap();
    for number in 0..150u64 {
        let lsn = engine.put(b"k", &number.to_le_bytes()).unwrap();
        wait_until("a periodic snapshot", || engine.durable_lsn() >= lsn);
    }
    let stats = engine.stats();
    assert_eq!((stats.keys, stats.changes, stats.unflushed_bytes), (1, 150, 0));
    assert!(stats.dumps >= 1 && stats.syncs >= 2 * stats.dumps, "{stats:?}");
}

/// Syncs every hundred changes, and counts how often it was asked.
#[derive(Debug, Default)]
struct EveryHundred(Arc<AtomicU64>);

impl PersistencePolicy for EveryHundred {
    fn decide(&self, pending: &Pending) -> Decision {
        self.0.fetch_add(1, Ordering::Relaxed);
        Decision::now(if pending.records >= 100 {
            kv_core::Action::WriteAndSync
        } else {
            kv_core::Action::Hold
        })
    }
    fn acknowledge(&self) -> Acknowledge {
        Acknowledge::WhenVisible
    }
    fn loss_window(&self) -> LossWindow {
        LossWindow::default()
    }
}

#[test]
fn a_policy_of_ones_own_is_asked_after_every_change() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let env = Env { background: Background::Inline, ..Env::os() };
    let engine = NaiveEngine::open_in(dir.path(), &env, options(EveryHundred(Arc::clone(&asked)))).unwrap();
    for number in 1..=250u64 {
        let lsn = engine.put(&number.to_le_bytes(), b"v").unwrap();
        assert_eq!(engine.durable_lsn().get(), lsn.get() / 100 * 100);
    }
    assert_eq!((asked.load(Ordering::Relaxed), engine.stats().dumps), (250, 2));
}

#[test]
fn concurrent_waiters_share_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let engine = NaiveEngine::open(dir.path(), options(kv_core::Always)).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8u8 {
            let engine = &engine;
            scope.spawn(move || {
                for number in 0..20u8 {
                    let lsn = engine.put(&[writer, number], b"v").unwrap();
                    assert!(engine.durable_lsn() >= lsn);
                }
            });
        }
    });
    let stats = engine.stats();
    assert!(stats.dumps < stats.changes, "{stats:?}");
    engine.close().unwrap();
    assert_eq!(open(dir.path()).unwrap().stats().keys, 160);
}

#[test]
fn a_scan_visits_stable_keys_once_and_may_change_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    for number in 0..1000u64 {
        engine.put(&number.to_le_bytes(), b"v").unwrap();
    }
    let mut visits = BTreeMap::new();
    engine
        .scan(&mut |key, _| {
            *visits.entry(key.to_vec()).or_insert(0) += 1;
            engine.put(key, b"changed").unwrap();
            engine.put(&[key, b"new"].concat(), b"v").unwrap();
            engine.sync().unwrap();
            if visits.len() < 200 {
                std::ops::ControlFlow::Continue(())
            } else {
                std::ops::ControlFlow::Break(())
            }
        })
        .unwrap();
    assert!(visits.values().all(|times| *times == 1));
    let mut seen = 0;
    engine
        .scan(&mut |key, _| {
            seen += u32::from(key.len() == 8);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, 1000);
}
