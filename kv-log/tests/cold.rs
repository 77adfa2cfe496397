//! More data than memory: the promises of kv-log with a memory budget.

#![allow(clippy::disallowed_methods, reason = "the tests damage the files of a store")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use kv_core::{
    Background, Batch, Compact, CompactionLevel, CompactionPlan, CompactionPolicy, CompactionView, Engine,
    EngineExt, Env, Error, Greedy, MaxLogSize, Never, Stats,
};
use kv_log::{LogEngine, Options};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const BUDGET: u64 = 64 << 10;

/// 4 KiB segments, 16 KiB unflushed.
fn small() -> Options {
    Options { persistence: Arc::new(MaxLogSize::new(1000)), index_shards: 4, ..Options::default() }
        .with_memory_budget(BUDGET)
}

/// Without threads, so that all due work is done when a call returns.
fn open(dir: &Path, options: Options) -> LogEngine {
    let env = Env { background: Background::Inline, ..Env::os() };
    LogEngine::open_in(dir, &env, options).unwrap()
}

fn memory(stats: &Stats) -> u64 {
    stats.memory_bytes + stats.index_bytes
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn value(number: u32, round: u32) -> Vec<u8> {
    (number ^ round << 16).to_le_bytes().repeat(25)
}

/// The oldest first.
fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).collect();
    files.sort();
    files
}

#[test]
fn memory_stays_within_the_budget_whatever_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let count = 4000;
    let store = open(dir.path(), small());
    for number in 0..count {
        store.put(&key(number), &value(number, 0)).unwrap();
        assert!(memory(&store.stats()) <= BUDGET, "{:?}", store.stats());
    }
    let filled = store.stats();
    assert!(filled.live_bytes > 6 * BUDGET && filled.evictions > 50, "{filled:?}");
    for number in (0..count).rev() {
        assert_eq!(store.get(&key(number)).unwrap().as_deref(), Some(&*value(number, 0)));
    }
    assert!(store.stats().fetches - filled.fetches > u64::from(count) / 2, "{:?}", store.stats());
    let keys: Vec<[u8; 4]> = (0..count).step_by(7).map(key).collect();
    let many = store.get_many(&keys.iter().map(<[u8; 4]>::as_slice).collect::<Vec<_>>()).unwrap();
    assert!(
        (0..count).step_by(7).zip(many).all(|(number, found)| found.unwrap().to_vec() == value(number, 0))
    );
    store.close().unwrap();

    let store = open(dir.path(), small());
    assert!(memory(&store.stats()) <= BUDGET, "{:?}", store.stats());
    assert_eq!((store.stats().keys, store.stats().live_bytes), (u64::from(count), filled.live_bytes));
    let mut rng = fastrand::Rng::with_seed(3);
    let mut model: BTreeMap<u32, u32> = (0..count).map(|number| (number, 0)).collect();
    for round in 1..12_000 {
        let number = rng.u32(0..count);
        if rng.u8(0..4) == 0 {
            assert_eq!(store.delete(&key(number)).unwrap().is_some(), model.remove(&number).is_some());
        } else {
            store.put(&key(number), &value(number, round)).unwrap();
            model.insert(number, round);
        }
        assert!(memory(&store.stats()) <= BUDGET, "{:?}", store.stats());
    }
    let stats = store.stats();
    assert!(stats.compactions > 10, "{stats:?}");
    assert!(stats.disk_bytes < 3 * stats.live_bytes, "{stats:?}");
    let pairs: Vec<_> =
        model.iter().map(|(number, round)| (key(*number).to_vec(), value(*number, *round))).collect();
    assert_eq!(store.to_sorted_vec().unwrap(), pairs);
    assert_eq!(
        stats.live_bytes,
        pairs.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>()
    );
    store.close().unwrap();

    let store = open(dir.path(), small());
    assert_eq!((store.stats().keys, store.stats().live_bytes), (stats.keys, stats.live_bytes));
    assert_eq!(store.to_sorted_vec().unwrap(), pairs);
}

#[test]
fn the_newest_stay_in_memory_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), small());
    for number in 0..1000 {
        store.put(&key(number), &value(number, 0)).unwrap();
    }
    for _ in 0..2 {
        let fetched = |numbers: std::ops::Range<u32>| {
            let before = store.stats().fetches;
            for number in numbers {
                assert_eq!(store.get(&key(number)).unwrap().as_deref(), Some(&*value(number, 0)));
            }
            store.stats().fetches - before
        };
        assert_eq!((fetched(0..100), fetched(900..1000)), (100, 0));
        store.close().unwrap();
        store = open(dir.path(), Options { warm_up: true, ..small() });
    }
}

/// Bytes that so small a store holds in reserve, at most.
const RESERVE: u64 = 96 << 10;

/// Of a store whose every key was deleted.
fn assert_nothing_stays(store: &LogEngine, dir: &Path) {
    store.compact().unwrap();
    let stats = store.stats();
    assert_eq!((stats.keys, stats.live_bytes), (0, 0));
    assert!(stats.disk_bytes <= RESERVE + 3 * 4096 && stats.memory_bytes <= 3 * 4096, "{stats:?}");
    store.close().unwrap();
    assert_eq!(open(dir, small()).to_sorted_vec().unwrap(), []);
}

#[test]
fn after_deleting_everything_disk_and_memory_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    for number in 0..3000 {
        store.put(&key(number), &value(number, 0)).unwrap();
    }
    for number in 0..3000 {
        store.delete(&key(number)).unwrap().unwrap();
    }
    assert_nothing_stays(&store, dir.path());
}

/// Dead puts, and tombstones of other keys, in every segment: they keep each other.
#[test]
fn tombstones_and_the_dead_come_off_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options { memory_budget: None, ..small() });
    // Short values, so that tombstones are nearly half of the log.
    for number in 0..6000 {
        store.put(&key(number), b"v").unwrap();
        if number >= 500 {
            store.delete(&key(number - 500)).unwrap().unwrap();
        }
    }
    for number in 5500..6000 {
        store.delete(&key(number)).unwrap().unwrap();
    }
    assert_nothing_stays(&store, dir.path());
}

/// Keys that are put and deleted, and one that stays in the oldest segment. After a compaction, no
/// dead record lies beside it.
#[test]
fn tombstones_do_not_pile_up_over_an_old_live_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options { memory_budget: None, ..small() });
    store.put(b"old", b"and alive").unwrap();
    for number in 0..20_000 {
        store.put(&key(number), b"v").unwrap();
        store.delete(&key(number)).unwrap().unwrap();
    }
    store.compact().unwrap();
    let stats = store.stats();
    assert!(stats.disk_bytes <= RESERVE + 6 * 4096 && stats.memory_bytes <= 6 * 4096, "{stats:?}");
    store.close().unwrap();
    let pairs = open(dir.path(), small()).to_sorted_vec().unwrap();
    assert_eq!(pairs, [(b"old".to_vec(), b"and alive".to_vec())]);
}

/// Compacts the oldest segment on disk, once for each request.
#[derive(Debug, Default)]
struct TheOldest {
    times: AtomicU32,
}

impl CompactionPolicy for TheOldest {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1)).ok()?;
        let oldest = view.segments.first()?.id;
        Some(CompactionPlan { level: CompactionLevel::Disk, victims: vec![oldest] })
    }
}

#[test]
fn a_victim_that_cannot_be_read_is_left_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Arc::new(TheOldest::default());
    let store = open(dir.path(), Options { compaction: Arc::<TheOldest>::clone(&policy), ..small() });
    for number in 0..2000 {
        store.put(&key(number), &value(number, 0)).unwrap();
    }
    let files = segment_files(dir.path());
    let oldest = fs::read(&files[0]).unwrap();
    fs::write(&files[0], &oldest[..oldest.len() / 2]).unwrap();
    policy.times.store(1, Ordering::Relaxed);
    let error = store.compact().unwrap_err();
    assert!(matches!(&error, Error::Corruption { path, .. } if *path == files[0]), "{error}");
    // A compaction in the background, or after a put as here, reports no error. The reader of a
    // lost record gets it.
    policy.times.store(1, Ordering::Relaxed);
    for number in 2000..2200 {
        store.put(&key(number), &value(number, 0)).unwrap();
    }
    assert_eq!(policy.times.load(Ordering::Relaxed), 0);
    fs::write(&files[0], &oldest).unwrap();
    policy.times.store(1, Ordering::Relaxed);
    assert_eq!(store.compact().unwrap().victims, 1);
    assert!(!files[0].exists());
    for number in 0..2200 {
        assert_eq!(store.get(&key(number)).unwrap().as_deref(), Some(&*value(number, 0)));
    }
}

#[test]
fn compaction_goes_on_around_a_victim_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options { compaction: Arc::new(Never), ..small() });
    for round in 0..3 {
        for number in 0..1000 {
            store.put(&key(number), &value(number, round)).unwrap();
        }
    }
    store.close().unwrap();
    let store = open(dir.path(), small());
    let files = segment_files(dir.path());
    let bytes = fs::read(&files[0]).unwrap();
    fs::write(&files[0], &bytes[..bytes.len() / 2]).unwrap();
    let error = store.compact().unwrap_err();
    assert!(matches!(&error, Error::Corruption { path, .. } if *path == files[0]), "{error}");
    let stats = store.stats();
    assert_eq!(stats.compaction_failures, 1, "{stats:?}");
    let left = segment_files(dir.path());
    assert!(left.contains(&files[0]) && left.len() * 2 < files.len(), "{} {}", left.len(), files.len());
    fs::write(&files[0], &bytes).unwrap();
    store.compact().unwrap();
    assert!(!files[0].exists());
    for number in 0..1000 {
        assert_eq!(store.get(&key(number)).unwrap().as_deref(), Some(&*value(number, 2)));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn few_files_are_open_however_many_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let is_in_dir =
        |fd: &fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(dir.path()));
    let open_files = || fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap).filter(is_in_dir).count();
    let options = || Options { open_files_max: 10, compaction: Arc::new(Never), ..small() };
    let mut store = open(dir.path(), options());
    for number in 0..3000 {
        store.put(&key(number), &value(number, 0)).unwrap();
    }
    for reopened in [false, true] {
        if reopened {
            store.close().unwrap();
            store = open(dir.path(), options());
        }
        assert!(segment_files(dir.path()).len() > 50);
        for number in 0..3000 {
            assert_eq!(
                store.get(&key(number * 7 % 3000)).unwrap().as_deref(),
                Some(&*value(number * 7 % 3000, 0))
            );
        }
        // In addition the active segment, a spare, the directory, its lock and the reserve.
        let count = open_files();
        assert!((10..=10 + 5).contains(&count), "{count} are open");
        assert!(store.stats().fetches > 1000);
    }
}

/// Compacts every image with a dead record, in memory only.
#[derive(Debug)]
struct InMemory;

impl CompactionPolicy for InMemory {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        let dead = |segment: &&kv_core::SegmentStats| segment.memory_bytes > segment.survivor_bytes() + 100;
        let victims: Vec<_> = view.segments.iter().filter(dead).map(|segment| segment.id).collect();
        (!victims.is_empty()).then_some(CompactionPlan { level: CompactionLevel::Memory, victims })
    }
}

#[test]
fn an_image_whose_file_cannot_be_read_stays_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options { compaction: Arc::new(InMemory), ..small() });
    // Half of the records in the first segment die, and the rest is compacted in memory.
    for number in 0..60 {
        store.put(&key(number), &value(number, 0)).unwrap();
    }
    for number in (0..60).step_by(2) {
        store.put(&key(number), &value(number, 1)).unwrap();
    }
    store.compact().unwrap();
    assert!(store.stats().memory_compactions > 0);
    let files = segment_files(dir.path());
    let oldest = fs::read(&files[0]).unwrap();
    fs::write(&files[0], &oldest[..oldest.len() / 2]).unwrap();
    for number in 60..2000 {
        store.put(&key(number), &value(number, 0)).unwrap();
    }
    store.compact().unwrap();
    assert!(store.stats().evictions > 10, "{:?}", store.stats());
    for number in 0..2000 {
        let round = u32::from(number < 60 && number % 2 == 0);
        assert_eq!(store.get(&key(number)).unwrap().as_deref(), Some(&*value(number, round)), "{number}");
    }
    fs::write(&files[0], &oldest).unwrap();
    store.compact().unwrap();
    assert!(memory(&store.stats()) <= BUDGET, "{:?}", store.stats());
}

#[test]
fn what_compaction_in_memory_left_can_leave_memory_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options { compaction: Arc::new(InMemory), ..small() });
    let mut model = BTreeMap::new();
    let mut rng = fastrand::Rng::with_seed(5);
    for round in 0..6000 {
        // Batches, so that records of one LSN have to be told apart, and deletes, which an image
        // drops and the file keeps.
        let mut batch = Batch::new();
        for _ in 0..rng.u32(1..4) {
            let number = rng.u32(0..400) + round / 4;
            if rng.u8(0..5) == 0 {
                batch.delete(&key(number));
                model.remove(&number);
            } else {
                batch.put(&key(number), &value(number, round));
                model.insert(number, round);
            }
        }
        store.apply(&batch).unwrap();
    }
    let stats = store.stats();
    assert!(stats.memory_compactions > 100 && stats.evictions > 100 && stats.compactions == 0, "{stats:?}");
    assert!(memory(&stats) <= BUDGET, "{stats:?}");
    let pairs: Vec<_> =
        model.iter().map(|(number, round)| (key(*number).to_vec(), value(*number, *round))).collect();
    assert_eq!(store.to_sorted_vec().unwrap(), pairs);
    store.close().unwrap();
    assert_eq!(open(dir.path(), small()).to_sorted_vec().unwrap(), pairs);
}

#[test]
fn a_damaged_cold_record_is_an_error_that_names_its_file_and_harms_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options { compaction: Arc::new(Never), ..small() });
    let count = 2000;
    // Short and long records.
    let value = |number: u32| number.to_le_bytes().repeat(if number.is_multiple_of(50) { 700 } else { 25 });
    for number in 0..count {
        store.put(&key(number), &value(number)).unwrap();
    }
    let files = segment_files(dir.path());
    let oldest = &files[0];
    let bytes = fs::read(oldest).unwrap();
    let damaged: u32 = 5;
    let at = bytes.windows(100).position(|window| window == value(damaged)).unwrap();
    let mut worse = bytes.clone();
    worse[at + 50] ^= 1;
    fs::write(oldest, &worse).unwrap();
    let error = store.get(&key(damaged)).unwrap_err();
    assert!(matches!(&error, Error::Corruption { path, .. } if path == oldest), "{error}");
    for number in (0..count).filter(|number| *number != damaged) {
        assert_eq!(store.get(&key(number)).unwrap().as_deref(), Some(&*value(number)), "{number}");
    }
    assert!(store.to_sorted_vec().is_err());
    // A file that was cut in the middle of a record.
    fs::write(oldest, &bytes[..at + 50]).unwrap();
    assert!(matches!(store.get(&key(damaged)), Err(Error::Corruption { .. })));
    fs::write(oldest, &bytes[..at - 10]).unwrap();
    assert!(matches!(store.get(&key(damaged)), Err(Error::Corruption { .. })));
    // The store goes on, and so does the key once its file is whole again.
    fs::write(oldest, &bytes).unwrap();
    store.put(&key(damaged), b"new").unwrap();
    assert_eq!(store.get(&key(damaged)).unwrap().as_deref(), Some(b"new".as_slice()));
}

/// A store whose oldest segment is cold, and its pairs.
fn with_cold_segment(dir: &Path) -> (LogEngine, BTreeMap<u32, Vec<u8>>) {
    let store = open(dir, Options { compaction: Arc::new(Greedy::default()), ..small() });
    let mut model = BTreeMap::new();
    for number in 0..2000_u32 {
        let value = number.to_le_bytes().repeat(if number % 50 == 0 { 700 } else { 25 });
        store.put(&key(number), &value).unwrap();
        model.insert(number, value);
    }
    (store, model)
}

#[test]
fn a_key_whose_newest_value_is_damaged_can_be_replaced_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut model) = with_cold_segment(dir.path());
    let oldest = segment_files(dir.path())[0].clone();
    let whole = fs::read(&oldest).unwrap();
    // Short records, and a long one.
    let damaged = [3, 5, 7, 1, 0];
    let mut bytes = whole.clone();
    for number in damaged {
        let value = &model[&number];
        let at = bytes.windows(value.len()).position(|window| window == value.as_slice()).unwrap();
        bytes[at + value.len() / 2] ^= 1;
    }
    fs::write(&oldest, &bytes).unwrap();
    let live_bytes = store.stats().live_bytes;
    for number in damaged {
        assert!(matches!(store.get(&key(number)), Err(Error::Corruption { .. })), "{number}");
    }
    store.put(&key(3), b"new").unwrap();
    store.delete(&key(5)).unwrap().unwrap();
    let mut batch = Batch::new();
    batch.put(&key(7), b"new").delete(&key(1)).put(&key(0), b"new");
    store.apply(&batch).unwrap();
    let mut freed = 0;
    for number in damaged {
        freed += 4 + model.remove(&number).unwrap().len();
    }
    for number in [3, 7, 0] {
        model.insert(number, b"new".to_vec());
    }
    assert_eq!(store.stats().live_bytes, live_bytes - freed as u64 + 3 * 7);
    assert_eq!(store.delete(&key(5)).unwrap(), None);
    let pairs: Vec<_> = model.iter().map(|(number, value)| (key(*number).to_vec(), value.clone())).collect();
    assert_eq!(store.to_sorted_vec().unwrap(), pairs);
    // Compaction drops the damaged records, and the store is whole again.
    for number in 0..20 {
        store.put(&key(number), b"newer").unwrap();
        model.insert(number, b"newer".to_vec());
    }
    store.sync().unwrap();
    store.compact().unwrap();
    store.close().unwrap();
    assert!(!oldest.exists());
    let pairs: Vec<_> = model.iter().map(|(number, value)| (key(*number).to_vec(), value.clone())).collect();
    assert_eq!(open(dir.path(), small()).to_sorted_vec().unwrap(), pairs);
}

/// Then nothing tells whose record it was. To replace it might hide another key.
#[test]
fn a_record_whose_header_or_key_is_damaged_is_not_replaced() {
    // A byte of the header's check, and one of the key.
    for at_from_value in [-9_isize, -3] {
        let dir = tempfile::tempdir().unwrap();
        let (store, model) = with_cold_segment(dir.path());
        let oldest = segment_files(dir.path())[0].clone();
        let mut bytes = fs::read(&oldest).unwrap();
        let at = bytes.windows(100).position(|window| window == model[&5].as_slice()).unwrap();
        bytes[at.checked_add_signed(at_from_value).unwrap()] ^= 1;
        fs::write(&oldest, &bytes).unwrap();
        for answer in [store.put(&key(5), b"new").map(drop), store.delete(&key(5)).map(drop)] {
            assert!(matches!(answer, Err(Error::Corruption { .. })), "{answer:?}");
        }
    }
}

/// Tags have 24 bits, so of 40,000 keys some fifty pairs share one.
#[test]
fn keys_with_the_same_tag_are_told_apart_in_files() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { index_shards: 1, ..small() }.with_memory_budget(1 << 20);
    let store = open(dir.path(), Options { segment_bytes: 16 << 10, compaction: Arc::new(Never), ..options });
    let count = 40_000u32;
    for round in 0..2 {
        for number in 0..count {
            store.put(&key(number), &key(number ^ round)).unwrap();
        }
        for number in 0..count {
            assert_eq!(store.get(&key(number)).unwrap().as_deref(), Some(key(number ^ round).as_slice()));
        }
    }
    assert!(store.get(&key(count)).unwrap().is_none());
    assert_eq!(store.stats().keys, u64::from(count));
    // About one fetch for each get and for each put of the second round, and some for other keys.
    assert!(store.stats().fetches > 3 * u64::from(count) / 2, "{:?}", store.stats());
}

#[test]
fn writers_and_readers_of_a_cold_store_agree() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), small()).unwrap();
    let (rounds, keys) = (40, 400);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for round in 1..=rounds {
                    for number in (writer..keys).step_by(2) {
                        store.put(&key(number), &value(number, round)).unwrap();
                    }
                    store.delete(&key(keys + writer)).unwrap();
                    store.put(&key(keys + writer), b"x").unwrap();
                }
            });
        }
        for seed in 0..2 {
            let store = &store;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut seen = vec![0; keys as usize];
                while seen.iter().any(|round| *round < rounds) {
                    let number = rng.u32(0..keys);
                    let last = &mut seen[number as usize];
                    let found = store.read(&key(number), &mut |bytes| {
                        let round = (u32::from_le_bytes(bytes[..4].try_into().unwrap()) ^ number) >> 16;
                        assert_eq!(bytes, value(number, round));
                        assert!(round >= *last, "a value came back");
                        *last = round;
                    });
                    assert!(found.unwrap() || *last == 0);
                }
            });
        }
    });
    let stats = store.stats();
    assert!(stats.evictions > 0 && stats.fetches > 0 && stats.compactions > 0, "{stats:?}");
    let expected: Vec<_> = (0..keys)
        .map(|number| (key(number).to_vec(), value(number, rounds)))
        .chain((keys..keys + 2).map(|number| (key(number).to_vec(), b"x".to_vec())))
        .collect();
    assert_eq!(store.to_sorted_vec().unwrap(), expected);
    store.close().unwrap();
    assert_eq!(LogEngine::open(dir.path(), small()).unwrap().to_sorted_vec().unwrap(), expected);
}
