//! Trouble under the ceiling for slack: a slow disk, a full one, readers that stall. The ceiling
//! holds, or a counter says why it cannot.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::{Background, Clock, Engine, Env, Manual, ManualClock, Stats, SystemClock};
use kv_log::{LogEngine, Options};
use kv_tests::sim::SimFs;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

const KEYS: u32 = 2000;
const VALUE: [u8; 1000] = [7; 1000];
const SYNC: Duration = Duration::from_millis(50);

/// The ceiling of a full store, and the headers of its records.
const CEILING: u64 = (1 << 20) + KEYS as u64 * 1004 / 4 + KEYS as u64 * 32;

/// One test at a time: a reader that is pinned in one of them holds retired memory of the others.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(disk: &SimFs, clock: Arc<dyn Clock>, background: Background) -> LogEngine {
    let env = Env { fs: Arc::new(disk.clone()), clock, background };
    let options = Options {
        slack_share: 0.25,
        slack_bytes: 1 << 20,
        persistence: Arc::new(Manual),
        ..Options::default()
    };
    LogEngine::open_in(Path::new("/store"), &env, options).unwrap()
}

fn open_inline(disk: &SimFs) -> LogEngine {
    open(disk, Arc::new(ManualClock::new(0)), Background::Inline)
}

fn put(store: &LogEngine, key: u32) {
    store.put(&key.to_be_bytes(), &VALUE).unwrap();
}

/// Memory that holds no live key or value, bytes.
fn slack(stats: &Stats) -> u64 {
    (stats.memory_bytes + stats.retired_bytes).saturating_sub(stats.live_bytes)
}

/// The ceiling holds, or a writer went on above it and was counted.
fn check(store: &LogEngine) {
    let stats = store.stats();
    assert!(slack(&stats) <= CEILING || stats.slack_excesses > 0, "{stats:?}");
}

#[test]
fn on_a_slow_disk_the_ceiling_holds_and_the_work_of_a_put_has_an_end() {
    let _alone = alone();
    let (disk, clock) = (SimFs::new(), Arc::new(ManualClock::new(0)));
    let store = open(&disk, Arc::clone(&clock) as _, Background::Inline);
    let of_disk = Arc::clone(&clock);
    disk.slow_syncs(move || of_disk.advance(SYNC));
    let (mut longest, mut waits) = (Duration::ZERO, 0);
    for round in 0..6 {
        for key in 0..KEYS {
            let before = clock.monotonic();
            put(&store, key * 7919 % KEYS);
            let took = clock.monotonic().saturating_sub(before);
            waits += u32::from(!took.is_zero());
            longest = longest.max(took);
            let stats = store.stats();
            assert!(round == 0 || slack(&stats) <= CEILING, "{stats:?}");
        }
    }
    let stats = store.stats();
    assert_eq!(stats.slack_excesses, 0);
    // Inline, the writer also compacts: the longest wait is for eight segments, and the new files
    // of a compaction, each with its directory and manifest.
    assert!(waits > 50 && longest <= 48 * SYNC, "{waits} waits, the longest {longest:?}: {stats:?}");
}

#[test]
fn the_threads_of_a_store_on_a_slow_disk_keep_the_ceiling_or_count() {
    let _alone = alone();
    let disk = SimFs::new();
    let store = open(&disk, Arc::new(SystemClock::new()), Background::Threads);
    disk.slow_syncs(|| thread::sleep(SYNC));
    for round in 0..3 {
        for key in 0..KEYS {
            put(&store, key * 7919 % KEYS);
            if round > 0 && key % 50 == 0 {
                check(&store);
            }
        }
    }
    let stats = store.stats();
    assert!(stats.stalls > 0 && stats.stall_time > Duration::ZERO, "{stats:?}");
}

#[test]
fn a_full_disk_keeps_the_ceiling_or_counts() {
    let _alone = alone();
    let disk = SimFs::new();
    let store = open_inline(&disk);
    (0..KEYS).for_each(|key| put(&store, key));
    store.sync().unwrap();
    let full = disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    disk.limit_space(Some(full));
    let (mut taken, mut refused) = (0, 0);
    for number in 0..3 * KEYS {
        match store.put(&(number * 7919 % KEYS).to_be_bytes(), &VALUE) {
            Ok(_) => taken += 1,
            Err(error) => {
                assert!(error.is_refusal(), "{error}");
                refused += 1;
            }
        }
        check(&store);
    }
    assert!(taken > 0, "{taken} taken, {refused} refused");
    disk.limit_space(None);
    (0..KEYS).for_each(|key| put(&store, key));
    store.sync().unwrap();
}

#[test]
fn a_visitor_that_stalls_holds_one_image() {
    let _alone = alone();
    let disk = SimFs::new();
    let store = open_inline(&disk);
    (0..KEYS).for_each(|key| put(&store, key));
    let (stalled, go_on) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let found = store.read(&0_u32.to_be_bytes(), &mut |value| {
                stalled.wait();
                go_on.wait();
                assert_eq!(value, VALUE);
            });
            assert!(found.unwrap());
        });
        stalled.wait();
        for round in 0..4 {
            for key in 0..KEYS {
                put(&store, key * 7919 % KEYS);
                if round > 0 {
                    check(&store);
                }
            }
        }
        let stats = store.stats();
        go_on.wait();
        // The held image fits below the ceiling, so no writer has to exceed it.
        assert!(stats.retired_bytes > 0 && stats.slack_excesses == 0, "{stats:?}");
    });
}
