//! [`Stats`] explain the memory of a store: their sum agrees with the growth of the process. Each
//! test runs itself in a child process, in which no other test allocates.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test reads what the system tells of the process")]
#![allow(unsafe_code, reason = "there is no other way to ask the allocator")]

mod idle_limit;

use idle_limit::is_small;
use kv_core::{Background, Engine, Env, Stats};
use kv_log::{LogEngine, Options};
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Names the store to the child process.
const STORE: &str = "KV_LOG_TEST_RESIDENT";

/// The figures may differ from the system's by a twentieth and this: threads, small allocations.
const CONSTANT: u64 = 512 << 10;

/// Runs `test` in a child process, where it does `work` in a directory.
fn in_child(test: &str, work: impl FnOnce(&Path)) {
    if let Some(dir) = env::var_os(STORE) {
        return work(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(STORE, dir.path())
        // Of the other arenas, `malloc_trim` leaves the free end: up to twice the largest block.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

/// Memory of this process that is not of a file, bytes. Pages that the allocator keeps for later do
/// not count. The shared memory that the store has reserved does.
fn resident() -> u64 {
    // SAFETY: the call has no precondition.
    unsafe { libc::malloc_trim(0) };
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    (line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10) + shared()
}

/// The length of all mappings of shared memory, bytes.
fn shared() -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let of_store = maps.lines().filter(|line| line.contains("/kv-log-"));
    let ranges = of_store.map(|line| line.split(' ').next().unwrap().split_once('-').unwrap());
    let address = |text| u64::from_str_radix(text, 16).unwrap();
    ranges.map(|(start, end)| address(end) - address(start)).sum()
}

/// All memory that the store tells of, bytes.
fn told(stats: &Stats) -> u64 {
    stats.memory_bytes + stats.index_bytes + stats.retired_bytes
}

/// A key of 24 bytes.
fn key(number: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

/// A store, and the memory of the process without it.
struct Measured {
    store: LogEngine,
    before: u64,
    keys: u64,
    value: Vec<u8>,
}

impl Measured {
    fn open(dir: &Path, data_bytes: u64, value_len: usize, options: Options, background: Background) -> Self {
        // The first store of a process allocates some memory for good. The second is measured.
        LogEngine::open(dir.join("first"), Options::default()).unwrap().close().unwrap();
        let (value, keys) = (vec![7; value_len], data_bytes / (value_len as u64 + 24));
        let (before, env) = (resident(), Env { background, ..Env::os() });
        let store = LogEngine::open_in(&dir.join("store"), &env, options).unwrap();
        Measured { store, before, keys, value }
    }

    fn put(&self, keys: impl Iterator<Item = u64>) {
        for number in keys {
            self.store.put(&key(number), &self.value).unwrap();
        }
    }

    /// The memory that the store tells of, and the growth of the process, bytes.
    fn figures(&self) -> (u64, u64) {
        (told(&self.store.stats()), resident().saturating_sub(self.before))
    }

    fn agree((told, grown): (u64, u64)) -> bool {
        told.abs_diff(grown) <= grown / 20 + CONSTANT
    }

    fn check(&self, moment: &str) {
        self.check_until(Instant::now(), moment);
    }

    /// As `check`, for a store whose threads still work: the two figures are of two moments, and
    /// have to agree once.
    fn check_soon(&self, moment: &str) {
        self.check_until(Instant::now() + Duration::from_secs(30), moment);
    }

    fn check_until(&self, deadline: Instant, moment: &str) {
        loop {
            let (told, grown) = self.figures();
            if Self::agree((told, grown)) {
                return;
            }
            assert!(Instant::now() < deadline, "{moment}: {told} of {grown} bytes: {:?}", self.store.stats());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Without threads, so that nothing changes between the two figures.
fn fill_and_overwrite(dir: &Path, data_bytes: u64, value_len: usize, options: Options) {
    let measured = Measured::open(dir, data_bytes, value_len, options, Background::Inline);
    measured.check("empty");
    let keys = measured.keys;
    for part in 0..4 {
        measured.put(part * keys / 4..(part + 1) * keys / 4);
        measured.check("filling");
    }
    for round in 0..8 {
        measured.put((0..keys / 2).map(|key| (key * 7919 + round) % keys));
        measured.check("overwriting");
    }
    measured.store.sync().unwrap();
    measured.check("synced");
    for number in (0..keys).step_by(2) {
        measured.store.delete(&key(number)).unwrap();
    }
    measured.check("half deleted");
}

#[test]
fn a_megabyte_in_small_values() {
    in_child("a_megabyte_in_small_values", |dir| fill_and_overwrite(dir, 1 << 20, 100, Options::default()));
}

#[test]
fn ten_megabytes_in_small_values() {
    in_child("ten_megabytes_in_small_values", |dir| {
        fill_and_overwrite(dir, 10 << 20, 100, Options::default());
    });
}

#[test]
fn a_hundred_megabytes() {
    in_child("a_hundred_megabytes", |dir| fill_and_overwrite(dir, 100 << 20, 500, Options::default()));
}

#[test]
fn a_store_that_is_larger_than_its_memory() {
    in_child("a_store_that_is_larger_than_its_memory", |dir| {
        let options = Options::default().with_memory_budget(16 << 20);
        fill_and_overwrite(dir, 40 << 20, 500, options);
    });
}

#[test]
fn a_store_that_becomes_idle() {
    in_child("a_store_that_becomes_idle", |dir| {
        let measured = Measured::open(dir, 10 << 20, 100, Options::default(), Background::Threads);
        for _ in 0..3 {
            measured.put(0..measured.keys);
        }
        measured.check_soon("after overwriting");
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let stats = measured.store.stats();
            if is_small(&stats) {
                break;
            }
            assert!(Instant::now() < deadline, "{stats:?}");
            thread::sleep(Duration::from_millis(20));
        }
        measured.check_soon("idle");
    });
}
