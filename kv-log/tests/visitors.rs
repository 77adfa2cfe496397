//! A stalled visitor: its value stays unchanged, and no other thread waits for it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use kv_core::{Compact, Engine, MaxLogSize, Stats};
use kv_log::{LogEngine, Options};
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

const KEYS: u32 = 400;
const SEGMENT_BYTES: usize = 64 << 10;

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// A value that names its key and round.
fn value(number: u32, round: u8, len: usize) -> Vec<u8> {
    let mut value = vec![round; len];
    value[..4].copy_from_slice(&key(number));
    value
}

/// The visitor's side: it tells that it has begun, and checks its value after the test lets it go
/// on.
struct Stall {
    begun: Sender<()>,
    go_on: Receiver<()>,
}

impl Stall {
    fn wait(&self) {
        self.begun.send(()).unwrap();
        // An error if the test has failed meanwhile.
        let _ = self.go_on.recv();
    }
}

/// Stalls in a visitor at the first value, and checks all its values.
type Visit = fn(&LogEngine, &Stall, len: usize);

fn read(store: &LogEngine, stall: &Stall, len: usize) {
    let found = store.read(&key(7), &mut |found| {
        stall.wait();
        assert_eq!(found, value(7, 0, len));
    });
    assert!(found.unwrap());
}

fn read_many(store: &LogEngine, stall: &Stall, len: usize) {
    let keys: Vec<[u8; 4]> = (0..40).map(key).collect();
    let keys: Vec<&[u8]> = keys.iter().map(<[u8; 4]>::as_slice).collect();
    let mut shown = Vec::new();
    let visit = &mut |position: usize, found: Option<&[u8]>| {
        if position == 0 {
            stall.wait();
        }
        let number = u32::try_from(position).unwrap();
        let found = found.unwrap();
        assert_eq!(found, value(number, found[4], len));
        shown.push(position);
    };
    store.read_many(&keys, visit).unwrap();
    assert_eq!(shown, (0..40).collect::<Vec<_>>());
}

fn scan(store: &LogEngine, stall: &Stall, len: usize) {
    let mut shown = Vec::new();
    let visit = &mut |found_key: &[u8], found: &[u8]| {
        if shown.is_empty() {
            stall.wait();
        }
        let number = u32::from_be_bytes(found_key.try_into().unwrap());
        assert_eq!(found, value(number, found[4], len));
        shown.push(number);
        ControlFlow::Continue(())
    };
    store.scan(visit).unwrap();
    shown.sort_unstable();
    assert_eq!(shown, (0..KEYS).collect::<Vec<_>>());
}

fn memory(stats: &Stats) -> u64 {
    stats.memory_bytes + stats.retired_bytes
}

/// Repeats the check until it holds: background threads give memory back.
fn until(what: &str, store: &LogEngine, holds: impl Fn(&Stats) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds(&store.stats()) {
        assert!(Instant::now() < deadline, "{what}: {:?}", store.stats());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Overwrites everything thirty times under a stalled visitor, which keeps about this many segments
/// in memory.
fn stalled(visit: Visit, len: usize, kept: RangeInclusive<u64>, budget: Option<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        unflushed_bytes_max: SEGMENT_BYTES as u64,
        index_shards: 4,
        persistence: Arc::new(MaxLogSize::new(SEGMENT_BYTES as u64 / 2)),
        memory_budget: budget,
        ..Options::default()
    };
    let store = LogEngine::open(dir.path(), options).unwrap();
    let fill = |round| {
        for number in 0..KEYS {
            store.put(&key(number), &value(number, round, len)).unwrap();
        }
    };
    fill(0);
    store.compact().unwrap();
    until("after filling", &store, |stats| stats.retired_bytes == 0);
    let before = memory(&store.stats());

    thread::scope(|scope| {
        let (begun, has_begun) = channel();
        let (go_on, may_go_on) = channel();
        let stall = Stall { begun, go_on: may_go_on };
        let store = &store;
        let visitor = scope.spawn(move || visit(store, &stall, len));
        has_begun.recv().unwrap();
        (1..=30).for_each(fill);
        store.compact().unwrap();
        // Spares take memory, too.
        let limit = before + (kept.end() + 4) * SEGMENT_BYTES as u64;
        // The last output of a compaction may be nearly empty.
        let counted = kept.start() * SEGMENT_BYTES as u64 / 4;
        until("while a visitor stalls", store, |stats| {
            memory(stats) <= limit && stats.retired_bytes >= counted
        });
        go_on.send(()).unwrap();
        visitor.join().unwrap();
    });
    until("after the visitor", &store, |stats| stats.retired_bytes == 0);
}

#[test]
fn a_stalled_read_of_short_values_holds_their_segment() {
    stalled(read, 100, 0..=1, None);
    stalled(read_many, 100, 0..=1, None);
}

#[test]
fn a_stalled_read_of_long_values_holds_their_segments() {
    stalled(read, 3000, 1..=1, None);
    // As many segments as a group of keys lies in.
    stalled(read_many, 3000, 1..=16, None);
}

#[test]
fn a_stalled_scan_holds_no_more_than_there_was() {
    stalled(scan, 100, 1..=2, None);
    let all = u64::from(KEYS) * 3100 / SEGMENT_BYTES as u64;
    stalled(scan, 3000, all..=all + 2, None);
}

#[test]
fn a_stalled_visitor_does_not_keep_a_store_from_its_budget() {
    let budget = 8 * SEGMENT_BYTES as u64;
    for visit in [read, read_many, scan] {
        stalled(visit, 3000, 0..=8, Some(budget));
    }
}

#[test]
fn whoever_looks_on_finds_whole_values_while_segments_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 8 << 10,
        index_shards: 4,
        persistence: Arc::new(MaxLogSize::new(4 << 10)),
        ..Options::default()
    };
    let store = LogEngine::open(dir.path(), options).unwrap();
    let fill = |round| {
        for number in 0..KEYS {
            store.put(&key(number), &value(number, round, 60 + usize::from(round % 7) * 100)).unwrap();
        }
    };
    fill(0);
    let done = AtomicBool::new(false);
    let whole = |number: u32, found: &[u8]| {
        thread::yield_now();
        assert_eq!(found, value(number, found[4], 60 + usize::from(found[4] % 7) * 100));
    };
    let watch = |look: &(dyn Fn() + Sync)| {
        while !done.load(Ordering::Acquire) {
            look();
        }
    };
    thread::scope(|scope| {
        let (store, watch) = (&store, &watch);
        scope.spawn(move || watch(&|| assert!(store.stats().keys.abs_diff(u64::from(KEYS)) <= 1)));
        scope.spawn(move || {
            watch(&|| {
                let mut count = 0;
                let visit = &mut |found_key: &[u8], found: &[u8]| {
                    whole(u32::from_be_bytes(found_key.try_into().unwrap()), found);
                    count += 1;
                    ControlFlow::Continue(())
                };
                store.scan(visit).unwrap();
                assert_eq!(count, KEYS);
            });
        });
        scope.spawn(move || {
            watch(&|| {
                for number in 0..KEYS {
                    assert!(store.read(&key(number), &mut |found| whole(number, found)).unwrap());
                }
            });
        });
        (1..=60).for_each(fill);
        done.store(true, Ordering::Release);
    });
    store.compact().unwrap();
    until("after all", &store, |stats| stats.retired_bytes == 0);
}
