//! An idle store is small, and its threads sleep. Alone in its process, whose threads are counted.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test looks at what the system tells of the process")]

mod idle_limit;

use idle_limit::{HEADER_LEN, is_small, record_bytes};
use kv_core::{Engine, Periodic, Stats};
use kv_log::{LogEngine, Options};
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const KEYS: u32 = 20_000;

/// How often the three threads of the store have gone to sleep. `None` before all have started.
fn sleeps() -> Option<u64> {
    let (mut sum, mut threads) = (0, 0);
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        if status.starts_with("Name:\tkv-log") {
            threads += 1;
            let switches = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
            sum += switches.map(|(_, count)| count.trim().parse::<u64>().unwrap()).sum::<u64>();
        }
    }
    (threads == 3).then_some(sum)
}

/// Longer than the pause after which a thread looks whether the store is idle.
const WATCHED: Duration = Duration::from_millis(1500);

/// Waits until the store's threads sleep all the time for a while.
fn wait_until_idle(store: &LogEngine) -> Stats {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let before = sleeps();
        thread::sleep(WATCHED);
        let stats = store.stats();
        if before.is_some() && sleeps() == before && stats.unflushed_bytes == 0 {
            return stats;
        }
        assert!(Instant::now() < deadline, "the threads do not come to rest: {stats:?}");
    }
}

/// The files, the reserve and the active segment take at most 1.5 times the data, and tombstones
/// that still hide a put. An empty store may take 256 KiB of the disk.
fn check(stats: &Stats, moment: &str, deleted: u64) {
    assert!(is_small(stats), "{moment}: {stats:?}");
    let tombstones = deleted * (size_of::<u32>() as u64 + HEADER_LEN);
    let disk_max = record_bytes(stats) * 15 / 10 + tombstones + (256 << 10);
    assert!(stats.disk_bytes <= disk_max, "{moment}: {stats:?}");
}

#[test]
fn an_idle_store_sleeps_and_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), Options::default()).unwrap();
    check(&wait_until_idle(&store), "empty", 0);
    let put = |key: u32| {
        store.put(&key.to_be_bytes(), &[7; 500]).unwrap();
    };
    (0..KEYS).for_each(put);
    check(&wait_until_idle(&store), "filled", 0);
    for round in 0..10 {
        (0..KEYS).for_each(|key| put(key * 7919 % KEYS / (round + 1)));
    }
    check(&wait_until_idle(&store), "overwritten", 0);
    for key in (0..KEYS).filter(|key| key % 4 > 0) {
        store.delete(&key.to_be_bytes()).unwrap();
    }
    check(&wait_until_idle(&store), "mostly deleted", u64::from(KEYS * 3 / 4));
    store.close().unwrap();
    drop(store);

    // It dumps only after the pause that makes it idle.
    let dir = tempfile::tempdir().unwrap();
    let late = Arc::new(Periodic::new(Duration::from_secs(3)));
    let store = LogEngine::open(dir.path(), Options { persistence: late, ..Options::default() }).unwrap();
    for key in (0..10 * KEYS).map(|key| key * 7919 % KEYS) {
        store.put(&key.to_be_bytes(), &[7; 500]).unwrap();
    }
    check(&wait_until_idle(&store), "dumped late", 0);
}
