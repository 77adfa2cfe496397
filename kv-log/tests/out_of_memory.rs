//! A process with a limited address space: the index cannot grow, the store refuses changes, and
//! loses nothing. Each test starts a child process, which limits its own address space.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::{Batch, Engine, Error, Manual, Op, ProcessSafety, Result};
use kv_log::{LogEngine, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::{env, fs};

/// Names the store to the child process.
const STORE: &str = "KV_LOG_TEST_OUT_OF_MEMORY";

/// At these numbers of keys the index grows by 8 MiB or more, so there is memory for small needs.
const KEYS: u32 = 1_200_000;

fn options() -> Options {
    // One table, and few other mappings.
    Options { index_shards: 1, segment_bytes: 4 << 20, ..Options::default() }.with_memory_budget(128 << 20)
}

/// Runs a test of this file in a child process on the store in `dir`.
fn run_child(test: &str, dir: &Path) {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(STORE, dir)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

/// Bytes of this process's address space.
fn address_space() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Limits the growth of the address space. `None` removes the limit.
fn allow(more: Option<u64>) {
    let Rlimit { maximum, .. } = getrlimit(Resource::As);
    let current = more.map(|more| address_space() + more).or(maximum);
    setrlimit(Resource::As, Rlimit { current, maximum }).unwrap();
}

/// Leaves free memory in the allocator. Where a small allocation fails, the process aborts, and
/// these tests are about large ones. The answer keeps the allocator from giving the memory back.
fn leave_free_memory() -> Vec<u8> {
    let free: Vec<Vec<u8>> = (0..256).map(|_| vec![1; 16 << 10]).collect();
    let behind = vec![1; 100];
    drop(free);
    behind
}

fn put(store: &LogEngine, number: u32) -> Result<()> {
    store.put(&number.to_le_bytes(), b"v").map(drop)
}

fn is_refused<T: std::fmt::Debug>(answer: Result<T>) {
    match answer {
        Err(Error::Io { op: Op::GrowIndex, source, .. }) if source.kind() == ErrorKind::OutOfMemory => {}
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn changes_are_refused_and_the_store_goes_on() {
    let Some(dir) = env::var_os(STORE) else {
        let dir = tempfile::tempdir().unwrap();
        return run_child("changes_are_refused_and_the_store_goes_on", dir.path());
    };
    let store = LogEngine::open(&dir, options()).unwrap();
    let mut keys = 0;
    // Just after a growth, so that the next growth is the largest need.
    let mut index_bytes = 0;
    while keys < KEYS || store.stats().index_bytes == index_bytes {
        index_bytes = store.stats().index_bytes;
        (keys..keys + 1000).for_each(|number| put(&store, number).unwrap());
        keys += 1000;
    }
    let last_before = keys;
    // The next table would be half as large again. New segments need some memory until then.
    allow(Some(store.stats().index_bytes));
    let refused = loop {
        match put(&store, keys) {
            Ok(()) => keys += 1,
            refused => break refused,
        }
    };
    is_refused(refused);
    assert!(keys > last_before);
    let last = store.last_lsn();
    let mut batch = Batch::new();
    batch.put(&0_u32.to_le_bytes(), b"w").put(&keys.to_le_bytes(), b"w");
    is_refused(store.apply(&batch));
    assert_eq!(store.last_lsn(), last);
    for number in [0, 1, last_before, keys - 1] {
        assert_eq!(store.get(&number.to_le_bytes()).unwrap().as_deref(), Some(&b"v"[..]), "{number}");
    }
    // Changes that need no room go on.
    put(&store, 5).unwrap();
    store.delete(&7_u32.to_le_bytes()).unwrap().unwrap();
    put(&store, keys).unwrap();
    store.sync().unwrap();
    allow(None);
    (keys..keys + 1000).for_each(|number| put(&store, number).unwrap());
    store.close().unwrap();
    let store = LogEngine::open(&dir, options()).unwrap();
    assert_eq!(store.stats().keys, u64::from(keys) + 1000 - 1);
}

#[test]
fn a_recovery_says_so_and_the_next_one_recovers() {
    let Some(dir) = env::var_os(STORE) else {
        let dir = tempfile::tempdir().unwrap();
        let store = LogEngine::open(dir.path(), options()).unwrap();
        (0..KEYS).for_each(|number| put(&store, number).unwrap());
        store.close().unwrap();
        return run_child("a_recovery_says_so_and_the_next_one_recovers", dir.path());
    };
    // There is memory for segments, and for all but the last tables. Recovery starts fewer threads
    // if there is no memory for them.
    let mut refusals = 0;
    let _behind = leave_free_memory();
    for more in [1, 2, 4, 8, 16, 24, 32, 48, 64] {
        allow(Some(more << 20));
        let opened = LogEngine::open(&dir, options());
        allow(None);
        match opened {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::OutOfMemory => refusals += 1,
            // The system refused a thread of the open store.
            Err(Error::Io { op: Op::StartThread, .. }) | Ok(_) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refusals > 0, "no open ran short of memory");
    assert_eq!(LogEngine::open(&dir, options()).unwrap().stats().keys, u64::from(KEYS));
}

/// The changes of a dead process lie in objects of up to 64 MiB.
#[test]
fn an_adoption_says_so_and_the_next_one_adopts() {
    const ROLE: &str = "KV_LOG_TEST_DIES";
    const VALUES: u32 = 300;
    let value = vec![7; 100 << 10];
    let key = |number: u32| number.to_le_bytes();
    let options = || Options {
        segment_bytes: 64 << 20,
        slack_bytes: 1 << 30,
        persistence: Arc::new(Manual),
        ..Options::default()
    };
    let Some(dir) = env::var_os(STORE) else {
        let dir = tempfile::tempdir().unwrap();
        let dies = Command::new(env::current_exe().unwrap())
            .args(["--exact", "an_adoption_says_so_and_the_next_one_adopts"])
            .envs([(STORE, dir.path().as_os_str()), (ROLE, "".as_ref())])
            .output()
            .unwrap();
        assert_eq!(dies.status.signal(), Some(6), "{}", String::from_utf8_lossy(&dies.stderr));
        return run_child("an_adoption_says_so_and_the_next_one_adopts", dir.path());
    };
    if env::var_os(ROLE).is_some() {
        let store = LogEngine::open(&dir, options()).unwrap();
        for number in 0..VALUES {
            store.put(&key(number), &value).unwrap();
        }
        let stats = store.stats();
        assert_eq!(stats.process_safety, ProcessSafety::Safe);
        assert!(stats.unflushed_bytes > 16 << 20, "{stats:?}");
        std::process::abort();
    }
    let _behind = leave_free_memory();
    for more in [1, 16, 48] {
        allow(Some(more << 20));
        let opened = LogEngine::open(&dir, options());
        allow(None);
        // The object, the file of its segment, or an image of it.
        let Err(Error::Io { source, .. }) = opened else { panic!("{more} MiB: {opened:?}") };
        assert_eq!(source.kind(), ErrorKind::OutOfMemory, "{more} MiB");
    }
    let store = LogEngine::open(&dir, options()).unwrap();
    for number in 0..VALUES {
        assert_eq!(store.get(&key(number)).unwrap().as_deref(), Some(&value[..]), "{number}");
    }
}
