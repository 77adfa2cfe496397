//! Memory and disk that hold no live record stay below their ceilings.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test looks at files as another process does")]

use kv_core::{Background, Engine, Env, Manual};
use kv_log::{LogEngine, Options};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: u32 = 4000;
const VALUE: [u8; 1000] = [7; 1000];

fn put_all(store: &LogEngine) {
    for key in 0..KEYS {
        store.put(&key.to_be_bytes(), &VALUE).unwrap();
    }
}

fn options() -> Options {
    Options { slack_share: 0.25, slack_bytes: 1 << 20, persistence: Arc::new(Manual), ..Options::default() }
}

fn open_inline(dir: &Path) -> LogEngine {
    LogEngine::open_in(dir, &Env { background: Background::Inline, ..Env::os() }, options()).unwrap()
}

#[test]
fn a_reader_that_stalls_keeps_its_memory_and_the_excess_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_inline(dir.path());
    put_all(&store);
    let (stalled, go_on) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            // A scan keeps the segments that its shard of the index points into.
            store
                .scan(&mut |_, value| {
                    if seen == 0 {
                        stalled.wait();
                        go_on.wait();
                    }
                    seen += 1;
                    assert_eq!(value, VALUE);
                    std::ops::ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(seen, KEYS);
        });
        stalled.wait();
        put_all(&store);
        put_all(&store);
        let stats = store.stats();
        go_on.wait();
        assert!(stats.retired_bytes > 0 && stats.slack_excesses > 0, "{stats:?}");
    });
    // The memory comes back once other tests' readers have left, too.
    let deadline = Instant::now() + Duration::from_mins(1);
    while store.stats().retired_bytes > 1 << 20 {
        put_all(&store);
        assert!(Instant::now() < deadline, "{:?}", store.stats());
    }
}

#[test]
fn an_idle_store_becomes_small() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), Options::default()).unwrap();
    for _ in 0..10 {
        put_all(&store);
    }
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let stats = store.stats();
        let memory = stats.memory_bytes + stats.retired_bytes;
        if memory * 100 <= stats.live_bytes * 115 && stats.disk_bytes * 10 <= stats.live_bytes * 14 {
            break;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    for key in 0..KEYS {
        assert_eq!(store.get(&key.to_be_bytes()).unwrap().as_deref(), Some(VALUE.as_slice()));
    }
    // It grows again.
    put_all(&store);
    store.close().unwrap();
    let store = LogEngine::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.stats().keys, u64::from(KEYS));
}

#[test]
fn an_empty_store_takes_little() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), Options::default()).unwrap();
    let stats = store.stats();
    assert!(stats.disk_bytes <= 256 << 10, "{stats:?}");
    assert!(stats.memory_bytes + stats.retired_bytes + stats.index_bytes <= 128 << 10, "{stats:?}");
    let on_disk: u64 =
        std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(on_disk <= 256 << 10, "{on_disk} bytes");
}
