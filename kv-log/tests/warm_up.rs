//! The warm-up after an open from a checkpoint, on its own thread: callers and compactions go on
//! beside it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gated_fs;

use gated_fs::{Gate, GatedFs};
use kv_core::{Checkpoint, Compact, Engine, EngineExt, Env, Manual, OnRequest};
use kv_log::{LogEngine, Options};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys of the store.
const KEYS: u32 = 3000;
/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(1);

fn options() -> Options {
    Options {
        segment_bytes: 8 << 10,
        persistence: Arc::new(Manual),
        checkpoint: Arc::new(OnRequest),
        index_shards: 16,
        ..Options::default()
    }
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn value(number: u32, round: u8) -> Vec<u8> {
    let len = 50 + usize::try_from(number % 90).unwrap();
    vec![round; len]
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_micros(100));
    }
}

/// A directory with a store of many sealed segments, whose checkpoint covers them.
fn closed() -> (TempDir, Pairs) {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), options()).unwrap();
    let mut pairs = Pairs::new();
    for number in 0..KEYS {
        store.put(&key(number), &value(number, 0)).unwrap();
        pairs.insert(key(number).to_vec(), value(number, 0));
    }
    // A third is dead, so compaction has something to do.
    for number in (0..KEYS).step_by(3) {
        store.delete(&key(number)).unwrap();
        pairs.remove(&key(number)[..]);
    }
    store.checkpoint().unwrap();
    store.close().unwrap();
    (dir, pairs)
}

/// Opens the store. Its warm-up waits before it has read the first segment.
fn open_cold(dir: &Path) -> (LogEngine, Arc<Gate>) {
    let fs = GatedFs::default();
    fs.0.whole_reads.shut(true);
    let env = Env { fs: Arc::new(fs.clone()), ..Env::os() };
    let store = LogEngine::open_in(dir, &env, options()).unwrap();
    wait_until("the warm-up begins", || fs.0.whole_reads.waiting.load(Ordering::SeqCst) > 0);
    let stats = store.stats();
    assert!(stats.warm_up_bytes > 100_000 && stats.recovery.checkpoint_keys > 1000, "{stats:?}");
    (store, fs.0)
}

fn wait_until_warm(store: &LogEngine) {
    wait_until("the warm-up ends", || store.stats().warm_up_bytes == 0);
}

fn state(store: &LogEngine) -> Pairs {
    store.to_sorted_vec().unwrap().into_iter().collect()
}

/// Checks the store, and the same store after a close and an open.
fn check(store: LogEngine, dir: &Path, pairs: &Pairs) {
    assert!(state(&store) == *pairs, "the open store");
    let stats = store.stats();
    let live: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!((stats.keys, stats.live_bytes), (pairs.len() as u64, live as u64));
    store.close().unwrap();
    drop(store);
    let store = LogEngine::open(dir, Options { warm_up: true, ..options() }).unwrap();
    assert!(state(&store) == *pairs, "the next opening");
}

#[test]
fn cold_segments_are_read_and_changed_before_the_first_is_warm() {
    let (dir, mut pairs) = closed();
    let (store, gate) = open_cold(dir.path());
    for number in 0..KEYS {
        let expected = pairs.get(&key(number)[..]);
        assert_eq!(store.get(&key(number)).unwrap().as_deref(), expected.map(Vec::as_slice), "{number}");
    }
    for number in (0..KEYS).step_by(5) {
        store.put(&key(number), &value(number, 1)).unwrap();
        pairs.insert(key(number).to_vec(), value(number, 1));
    }
    for number in (0..KEYS).step_by(7) {
        assert_eq!(store.delete(&key(number)).unwrap().is_some(), pairs.remove(&key(number)[..]).is_some());
    }
    store.sync().unwrap();
    assert!(state(&store) == pairs);
    assert!(store.stats().warm_up_bytes > 100_000, "it still waits");
    gate.whole_reads.shut(false);
    wait_until_warm(&store);
    check(store, dir.path(), &pairs);
}

/// Readers of unchanged keys, a writer and a compactor run while segments become warm one by one.
#[test]
fn reads_overwrites_and_compactions_race_with_the_warm_up() {
    for round in 1..=6 {
        let (dir, mut pairs) = closed();
        let (store, gate) = open_cold(dir.path());
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for reader in 0..2 {
                let (store, is_over, pairs) = (&store, &is_over, pairs.clone());
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        for number in (reader..KEYS).step_by(2).filter(|number| number % 4 != 0) {
                            let expected = pairs.get(&key(number)[..]).map(Vec::as_slice);
                            let found = store.get(&key(number)).unwrap();
                            assert_eq!(found.as_deref(), expected, "key {number}");
                        }
                    }
                });
            }
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    store.compact().unwrap();
                }
            });
            gate.whole_reads.shut(false);
            for number in (0..KEYS).step_by(4) {
                store.put(&key(number), &value(number, round)).unwrap();
                pairs.insert(key(number).to_vec(), value(number, round));
                if number % 8 == 0 {
                    store.delete(&key(number)).unwrap();
                    pairs.remove(&key(number)[..]);
                }
            }
            wait_until_warm(&store);
            is_over.store(true, Ordering::Relaxed);
        });
        check(store, dir.path(), &pairs);
    }
}

#[test]
fn a_checkpoint_waits_for_no_warm_up_and_covers_what_is_cold() {
    let (dir, mut pairs) = closed();
    let (store, gate) = open_cold(dir.path());
    for number in (0..KEYS).step_by(11) {
        store.put(&key(number), &value(number, 9)).unwrap();
        pairs.insert(key(number).to_vec(), value(number, 9));
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            store.checkpoint().unwrap();
            done.store(true, Ordering::SeqCst);
        });
        wait_until("the checkpoint is written", || done.load(Ordering::SeqCst));
    });
    gate.whole_reads.shut(false);
    drop(store);
    let store = LogEngine::open(dir.path(), options()).unwrap();
    assert!(store.recovery_report().checkpoint_bytes > 0 && state(&store) == pairs);
}

/// The owner of the store closes or drops it. The thread of the warm-up ends after the segment that
/// it is reading.
#[test]
fn a_close_and_a_drop_end_the_warm_up() {
    for closes in [true, false] {
        let (dir, pairs) = closed();
        let (store, gate) = open_cold(dir.path());
        let left = thread::scope(|scope| {
            let ending = scope.spawn(|| {
                if closes {
                    store.close().unwrap();
                }
                let left = store.stats().warm_up_bytes;
                drop(store);
                left
            });
            thread::sleep(Duration::from_millis(30));
            assert!(!ending.is_finished(), "a thread of the store still reads");
            gate.whole_reads.shut(false);
            ending.join().unwrap()
        });
        assert!(left > 50_000, "it warmed the whole store: {left} bytes are left");
        // The directory is free.
        let store = LogEngine::open(dir.path(), options()).unwrap();
        assert!(state(&store) == pairs);
    }
}

#[test]
fn moments_of_a_close_during_the_warm_up() {
    let (dir, mut pairs) = closed();
    for round in 1..=40_u8 {
        let store = LogEngine::open(dir.path(), options()).unwrap();
        thread::sleep(Duration::from_micros(u64::from(round) * 50));
        let number = u32::from(round);
        store.put(&key(number), &value(number, round)).unwrap();
        pairs.insert(key(number).to_vec(), value(number, round));
        if round % 2 == 0 {
            store.close().unwrap();
        }
    }
    let store = LogEngine::open(dir.path(), options()).unwrap();
    assert!(state(&store) == pairs);
}
