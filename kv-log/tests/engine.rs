//! The promises of kv-log alone, through its public interface. The conformance suite checks the
//! promises of every engine.

#![allow(clippy::disallowed_methods, reason = "the tests look at, copy and damage the files of a store")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod gated_fs;
mod store_files;

use gated_fs::GatedFs;
use kv_core::{
    Always, AnyOf, Background, Batch, Compact, CompactionLevel, CompactionPlan, CompactionPolicy,
    CompactionView, Engine, EngineExt, Env, Error, Greedy, Limits, Manual, MaxLogSize, Never, Periodic,
    Stats,
};
use kv_log::{LogEngine, Options};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use store_files::{copy_store, segment_files, small};

/// Bytes that so small a store holds in reserve, at most.
const RESERVE: u64 = 96 << 10;

#[test]
fn space_comes_back_after_overwriting_and_deleting_everything() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), small(MaxLogSize::new(1000))).unwrap();
    for round in 0..50u8 {
        for key in 0..100u8 {
            store.put(&[key], &[round; 40]).unwrap();
        }
    }
    store.compact().unwrap();
    let stats = store.stats();
    let live_records = 100 * 55;
    assert!(stats.compactions > 0, "{stats:?}");
    // Greedy leaves segments that are at least six tenths full, or whose compaction frees no whole
    // segment. In addition there are an active segment and six spares.
    assert!(stats.disk_bytes < RESERVE + live_records * 10 / 6 + (3 + 6) * 4096, "{stats:?}");
    assert_eq!(stats.live_bytes, 100 * 41);
    let on_disk: u64 = segment_files(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    // Up to six spares may be in the making.
    assert!(on_disk <= stats.disk_bytes + 6 * 4096, "{on_disk} {stats:?}");

    for key in 0..100u8 {
        store.delete(&[key]).unwrap().unwrap();
    }
    store.compact().unwrap();
    let stats = store.stats();
    assert_eq!((stats.keys, stats.live_bytes), (0, 0));
    assert!(stats.segments <= 2 && stats.disk_bytes <= RESERVE + (2 + 6) * 4096, "{stats:?}");
    let last = store.last_lsn();
    store.close().unwrap();
    let store = LogEngine::open(dir.path(), small(Manual)).unwrap();
    assert_eq!(store.to_sorted_vec().unwrap(), []);
    assert_eq!(store.last_lsn(), last, "compaction removed the records, not the order");
}

#[test]
fn what_died_in_earlier_lives_can_be_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { compaction: Arc::new(Never), ..small(MaxLogSize::new(1000)) };
    for life in 0..3u8 {
        let store = LogEngine::open(dir.path(), options.clone()).unwrap();
        for round in 0..10u8 {
            // Each key twice in a row: some records die in their own segment, some in another.
            for key in (0..100u8).flat_map(|key| [key, key]) {
                store.put(&[key], &[life * 10 + round; 40]).unwrap();
            }
        }
        store.close().unwrap();
    }
    let on_disk: u64 = segment_files(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(on_disk > 30 * 200 * 55);
    // The memory of a warm-up that goes on would count, too.
    let options = Options { warm_up: true, ..small(MaxLogSize::new(1000)) };
    let store = LogEngine::open(dir.path(), options).unwrap();
    store.compact().unwrap();
    let stats = store.stats();
    assert!(stats.disk_bytes < RESERVE + 100 * 55 * 10 / 6 + 3 * 4096, "{stats:?}");
    // An image takes whole pages.
    let pages = (stats.segments + 2) * 4096;
    assert!(stats.memory_bytes < 100 * 55 * 100 / 85 + pages, "{stats:?}");
    assert!((0..100).all(|key| store.get(&[key]).unwrap().as_deref() == Some([29; 40].as_slice())));
}

#[test]
fn never_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { compaction: Arc::new(Never), ..small(MaxLogSize::new(1000)) };
    let store = LogEngine::open(dir.path(), options).unwrap();
    for _ in 0..500 {
        store.put(b"key", &[1; 40]).unwrap();
    }
    assert_eq!(store.compact().unwrap(), kv_core::CompactionReport::default());
    assert!(store.stats().segments > 5);
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), small(Always)).unwrap();
    store.put(b"before", b"1").unwrap();
    let mut batch = Batch::new();
    for key in 0..100u8 {
        batch.put(&[key], &[key; 300]);
    }
    store.apply(&batch).unwrap();
    store.put(b"after", b"2").unwrap();
    store.put(b"big", &vec![7; 1 << 20]).unwrap();
    store.close().unwrap();
    let store = LogEngine::open(dir.path(), small(Manual)).unwrap();
    assert_eq!(store.to_sorted_vec().unwrap().len(), 103);
    assert_eq!(store.get(&[99]).unwrap().unwrap().to_vec(), vec![99; 300]);
    assert_eq!(store.get(b"big").unwrap().unwrap().len(), 1 << 20);
}

#[test]
fn concurrent_writers_readers_and_compaction_agree() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 16 << 10, ..small(MaxLogSize::new(4096)) };
    let store = LogEngine::open(dir.path(), options.clone()).unwrap();
    let rounds = 300u32;
    std::thread::scope(|scope| {
        for writer in 0..3u8 {
            let store = &store;
            scope.spawn(move || {
                for round in 1..=rounds {
                    for key in 0..20u8 {
                        let value: Vec<u8> = round.to_le_bytes().repeat(1 + usize::from(key));
                        store.put(&[writer, key], &value).unwrap();
                    }
                    store.delete(&[writer, 255]).unwrap();
                    store.put(&[writer, 255], b"x").unwrap();
                }
            });
        }
        for reader in 0..2u8 {
            let store = &store;
            scope.spawn(move || {
                let mut seen = [0; 20];
                while seen.iter().any(|round| *round < rounds) {
                    for key in 0..20u8 {
                        let found = store.read(&[reader, key], &mut |value| {
                            let round = u32::from_le_bytes(value[..4].try_into().unwrap());
                            assert_eq!(value, round.to_le_bytes().repeat(1 + usize::from(key)));
                            assert!(round >= seen[usize::from(key)], "a value came back");
                            seen[usize::from(key)] = round;
                        });
                        assert!(found.unwrap() || seen[usize::from(key)] == 0);
                    }
                    let mut keys = 0;
                    store
                        .scan(&mut |_, _| {
                            keys += 1;
                            std::ops::ControlFlow::Continue(())
                        })
                        .unwrap();
                    assert!(keys <= 63);
                }
            });
        }
    });
    store.compact().unwrap();
    let pairs = store.to_sorted_vec().unwrap();
    assert_eq!(pairs.len(), 63);
    let stats = store.stats();
    // More than eighty were written. The number after a merge depends on the threads.
    assert!(stats.compactions > 0 && stats.segments < 20, "{stats:?}");
    store.close().unwrap();
    assert_eq!(LogEngine::open(dir.path(), options).unwrap().to_sorted_vec().unwrap(), pairs);
}

#[test]
fn a_slow_writer_of_a_small_store_does_not_keep_the_disk_busy() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), Options::default()).unwrap();
    let put = |key: u32| {
        store.put(&key.to_be_bytes(), &[7; 200]).unwrap();
    };
    for round in 1..=4 {
        (0..6000).for_each(|key| put(key * 7919 * round % 6000));
    }
    // It is made small.
    let start = Instant::now();
    while store.stats().memory_bytes > 2 << 20 {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", store.stats());
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(Duration::from_millis(1500));
    let before = store.stats();
    for key in 0..1500 {
        put(key * 7919 % 6000);
        thread::sleep(Duration::from_millis(1));
    }
    store.sync().unwrap();
    let stats = store.stats();
    // 0.3 MB of changes, in a store of 1.3 MB.
    let written = stats.bytes_written - before.bytes_written;
    assert!(written < 8 << 20, "{written} bytes: {stats:?}");
    store.close().unwrap();
}

/// A writer writes the data, and then a pointer to them. A reader of the pointer and then of the
/// data must not find older data, whether a key is absent or present.
#[test]
fn read_many_reads_its_keys_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), Options::default()).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in (1_u64..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                store.put(b"data", &number.to_le_bytes()).unwrap();
                store.put(b"pointer", &number.to_le_bytes()).unwrap();
                store.delete(b"pointer").unwrap();
            }
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(700) {
            let mut found = [0_u64; 3];
            let mut note = |at: usize, value: Option<&[u8]>| {
                found[at] = value.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()));
            };
            store.read_many(&[b"pointer", b"data", b"data"], &mut note).unwrap();
            if !found.is_sorted() {
                stop.store(true, Ordering::Relaxed);
            }
            assert!(found.is_sorted(), "{found:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    store.close().unwrap();
}

#[test]
fn writers_who_wait_for_room_get_it_though_others_are_quicker() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { unflushed_bytes_max: 200, ..small(Manual) };
    let store = LogEngine::open(dir.path(), options).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..5000 {
                    store.put(&[writer], &[0; 40]).unwrap();
                }
            });
        }
    });
    assert!(store.stats().stalls > 0);
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let limits = Limits { key_len_max: 1 << 20, ..Limits::default() };
    let error = LogEngine::open(&path, Options { limits, ..Options::default() }).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_batch_at_the_largest_limit_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { batch_bytes_max: 133_169_152, value_len_max: 64 << 20, ..Limits::default() };
    let options = || Options { limits, ..Options::default() };
    let store = LogEngine::open(dir.path(), options()).unwrap();
    // The longest records for their keys and values, and two that fill the rest.
    let mut batch = Batch::new();
    for number in 0..100_000_u32 {
        batch.put(&number.to_le_bytes()[..3], &[7; 6]);
    }
    let rest =
        limits.batch_bytes_max - 100_000 * (9 + Limits::CHANGE_OVERHEAD) - 2 * (1 + Limits::CHANGE_OVERHEAD);
    batch.put(b"a", &vec![8; 64 << 20]).put(b"b", &vec![9; rest - (64 << 20)]);
    store.apply(&batch).unwrap();
    let mut larger = batch.clone();
    larger.put(b"", b"");
    let refused = store.apply(&larger).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { what: "batch", limit: 133_169_152, .. }), "{refused}");
    store.close().unwrap();
    let store = LogEngine::open(dir.path(), options()).unwrap();
    assert_eq!((store.stats().keys, store.get(b"b").unwrap().unwrap().len()), (100_002, rest - (64 << 20)));
}

/// Compacts random victims at a random level, half of the time.
#[derive(Debug)]
struct Whimsical(Mutex<fastrand::Rng>);

impl CompactionPolicy for Whimsical {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        let mut rng = self.0.lock().unwrap();
        let victims: Vec<_> = view.segments.iter().map(|one| one.id).filter(|_| rng.bool()).collect();
        let level = if rng.bool() { CompactionLevel::Memory } else { CompactionLevel::Disk };
        (!victims.is_empty() && rng.bool()).then_some(CompactionPlan { level, victims })
    }
}

/// Both levels in any order, over segments that the other level has compacted. After each round, a
/// copy of the directory is opened as after a crash.
#[test]
fn two_levels_of_compaction_agree_with_a_map() {
    // Inline, so that nothing happens to the files while they are copied.
    let env = Env { background: Background::Inline, ..Env::os() };
    let mut levels = (0, 0);
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut model = BTreeMap::new();
        for _ in 0..3 {
            let compaction = Arc::new(Whimsical(Mutex::new(rng.fork())));
            let store =
                LogEngine::open_in(dir.path(), &env, Options { compaction, ..small(MaxLogSize::new(2000)) })
                    .unwrap();
            for number in 0..1500u32 {
                let key = vec![rng.u8(0..60); 2];
                if rng.u8(0..5) == 0 {
                    assert_eq!(store.delete(&key).unwrap().is_some(), model.remove(&key).is_some());
                } else if rng.u8(0..9) == 0 {
                    let mut batch = Batch::new();
                    for key in [vec![rng.u8(0..60); 2], key] {
                        batch.put(&key, &number.to_be_bytes());
                        model.insert(key, number.to_be_bytes().to_vec());
                    }
                    store.apply(&batch).unwrap();
                } else {
                    let value = number.to_be_bytes().repeat(rng.usize(1..30));
                    store.put(&key, &value).unwrap();
                    model.insert(key, value);
                }
                if number % 100 == 0 {
                    store.compact().unwrap();
                }
            }
            assert_eq!(store.to_sorted_vec().unwrap(), model.clone().into_iter().collect::<Vec<_>>());
            let stats = store.stats();
            levels = (levels.0 + stats.memory_compactions, levels.1 + stats.compactions);
            store.sync().unwrap();
            let crashed = tempfile::tempdir().unwrap();
            copy_store(dir.path(), crashed.path());
            let recovered = LogEngine::open(crashed.path(), small(Manual)).unwrap();
            assert_eq!(recovered.to_sorted_vec().unwrap(), model.clone().into_iter().collect::<Vec<_>>());
            store.close().unwrap();
        }
    }
    assert!(levels.0 > 100 && levels.1 > 100, "{levels:?} compactions in memory and on disk");
}

#[test]
fn an_idle_store_keeps_no_memory_for_heads_to_come() {
    let dir = tempfile::tempdir().unwrap();
    let policy =
        AnyOf::new(vec![Box::new(MaxLogSize::new(1000)), Box::new(Periodic::new(Duration::from_millis(1)))]);
    let store = LogEngine::open(dir.path(), small(policy)).unwrap();
    for round in 0..100u8 {
        for key in 0..100u8 {
            store.put(&[key], &[round; 40]).unwrap();
        }
    }
    let deadline = Instant::now() + Duration::from_mins(1);
    let is_done = |stats: &Stats| stats.compactions > 0 && stats.retired_bytes == 0;
    // One look decides: the next tidying may begin right after it.
    let mut stats = store.stats();
    while !is_done(&stats) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
        stats = store.stats();
    }
    assert!(is_done(&stats), "{stats:?}");
}

#[test]
fn memory_comes_back_without_writing_to_disk() {
    let dir = tempfile::tempdir().unwrap();
    let compaction = Arc::new(Greedy { disk_utilization_min: 0.0, ..Greedy::default() });
    let options = Options { segment_bytes: 64 << 10, compaction, ..small(Manual) };
    let store = LogEngine::open(dir.path(), options).unwrap();
    for round in 0..10u8 {
        for key in 0..1000u32 {
            store.put(&key.to_be_bytes(), &[round; 100]).unwrap();
        }
    }
    store.sync().unwrap();
    store.compact().unwrap();
    let after = store.stats();
    assert!(after.memory_compactions > 5, "{after:?}");
    assert_eq!(after.compactions, 0);
    // One spare has its memory.
    assert!(after.memory_bytes < 2 * after.live_bytes + (64 << 10), "{after:?}");
    assert!(after.disk_bytes > 5 * after.live_bytes, "{after:?}");
    let sample = store.to_sorted_vec().unwrap();
    assert!(sample.len() == 1000 && sample.iter().all(|(_, value)| *value == [9; 100]));
    drop(store);
    let store = LogEngine::open(dir.path(), small(Manual)).unwrap();
    assert_eq!(store.to_sorted_vec().unwrap(), sample);
}

/// If two processes wrote the same store, the second could lose its durable changes.
#[test]
fn a_poisoned_store_keeps_its_directory_while_anybody_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let gate = GatedFs::default();
    let env = Env { fs: Arc::new(gate.clone()), background: Background::Inline, ..Env::os() };
    let store = LogEngine::open_in(&path, &env, small(Manual)).unwrap();
    store.put(b"key", b"value").unwrap();
    gate.0.writes.shut(true);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| store.sync());
        while gate.0.writes.waiting.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        gate.0.refuses_new_files.store(true, Ordering::SeqCst);
        let poisoned = (0..1000).any(|_| store.put(b"key", &[1; 100]).is_err());
        let closing = scope.spawn(|| store.close());
        let locked: Vec<bool> = (0..50)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(1));
                matches!(LogEngine::open(&path, small(Manual)), Err(Error::Locked { .. }))
            })
            .collect();
        // Before any assertion, because the scope waits for its threads.
        gate.0.writes.shut(false);
        let _ = writer.join().unwrap();
        assert!(poisoned && locked.iter().all(|locked| *locked), "{poisoned} {locked:?}");
        assert!(matches!(closing.join().unwrap(), Err(Error::Poisoned { .. })));
    });
    let reopened = LogEngine::open(&path, small(Manual)).unwrap();
    assert!(reopened.get(b"key").unwrap().is_some());
}
