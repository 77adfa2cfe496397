//! A disk with too little room: the store refuses changes that do not fit, loses nothing, and goes
//! on once there is room.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::fs::FsExt;
use kv_core::parts::Reserve;
use kv_core::{
    Background, Compact, CompactionPlan, CompactionPolicy, CompactionView, Engine, EngineExt, Env, Error,
    Greedy, Lsn, ManualClock, MaxLogSize, Never,
};
use kv_log::{LogEngine, Options};
use kv_tests::sim::{PowerCut, SimFs};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const DIR: &str = "/store";
const SEGMENT: usize = 4096;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(disk: &SimFs, options: Options) -> kv_core::Result<LogEngine> {
    let env = Env {
        fs: Arc::new(disk.clone()),
        clock: Arc::new(ManualClock::new(0)),
        background: Background::Inline,
    };
    LogEngine::open_in(Path::new(DIR), &env, options)
}

fn small() -> Options {
    Options {
        segment_bytes: SEGMENT,
        persistence: Arc::new(MaxLogSize::new(1000)),
        compaction: Arc::new(Never),
        ..Options::default()
    }
}

fn used(disk: &SimFs) -> u64 {
    disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

fn is_full<T>(answer: &kv_core::Result<T>) -> bool {
    matches!(answer, Err(Error::DiskFull { .. }))
}

fn content(store: &LogEngine) -> Model {
    store.to_sorted_vec().unwrap().into_iter().collect()
}

/// Puts different values of different keys until one is refused.
fn fill(store: &LogEngine, model: &mut Model, round: u8) {
    for number in 0..10_000_u32 {
        let (key, value) = ((number % 200).to_be_bytes(), [round; 60]);
        match store.put(&key, &value) {
            Ok(_) => model.insert(key.to_vec(), value.to_vec()),
            Err(error) => {
                assert!(matches!(error, Error::DiskFull { .. }), "{error}");
                return;
            }
        };
    }
    panic!("the disk is never full");
}

#[test]
fn what_does_not_fit_is_refused_and_with_room_the_store_goes_on() {
    let (disk, mut model) = (SimFs::new(), Model::new());
    let store = open(&disk, small()).unwrap();
    for round in 1..4 {
        disk.limit_space(Some(used(&disk) + 5 * SEGMENT as u64));
        fill(&store, &mut model, round);
        let full = used(&disk);
        // Several times: no files pile up.
        for _ in 0..5 {
            assert!(is_full(&store.put(b"another", &[round; 200])));
        }
        assert!(used(&disk) <= full, "{} {full}", used(&disk));
        assert_eq!(content(&store), model);
        // The accepted changes can be made durable: their space was reserved.
        assert_eq!(store.sync().unwrap(), store.last_lsn());
        let after = disk.power_cut(PowerCut::LOSE_ALL);
        assert_eq!(content(&open(&after, small()).unwrap()), model);
    }
    disk.limit_space(None);
    store.put(b"another", b"fits").unwrap();
    store.close().unwrap();
    model.insert(b"another".to_vec(), b"fits".to_vec());
    assert_eq!(content(&open(&disk, small()).unwrap()), model);
}

/// A policy that plans when the test tells it to.
#[derive(Debug, Default)]
struct Later(AtomicBool);

impl CompactionPolicy for Later {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        if self.0.load(Ordering::SeqCst) { Greedy::default().plan(view) } else { None }
    }
}

#[test]
fn compaction_that_has_no_room_leaves_everything_as_it_was() {
    let (disk, mut model) = (SimFs::new(), Model::new());
    let store = open(&disk, small()).unwrap();
    for round in 0..6 {
        for number in 0..200_u32 {
            // Half of the keys keep their first value, so no victim is empty.
            if round == 0 || number % 2 == 0 {
                store.put(&number.to_be_bytes(), &[round; 60]).unwrap();
                model.insert(number.to_be_bytes().to_vec(), vec![round; 60]);
            }
        }
    }
    store.sync().unwrap();
    store.close().unwrap();

    let policy = Arc::new(Later::default());
    let store = open(&disk, Options { compaction: Arc::clone(&policy) as _, ..small() }).unwrap();
    policy.0.store(true, Ordering::SeqCst);
    // From no room to nearly enough, without a reserve.
    empty_reserve(&disk);
    let start = used(&disk);
    let mut refused = 0;
    for room in (0..).step_by(100) {
        disk.limit_space(Some(start + room));
        let answer = store.compact();
        assert_eq!(content(&store), model);
        let again = open(&disk.power_cut(PowerCut::seeded(room)), small());
        // There may be no room for a manifest.
        if !is_full(&again) {
            assert_eq!(content(&again.unwrap()), model);
        }
        if answer.is_ok() {
            break;
        }
        assert!(is_full(&answer), "{answer:?}");
        assert!(used(&disk) <= start, "what was half done stays: {} {start}", used(&disk));
        refused += 1;
    }
    assert!(refused > 0 && store.stats().compactions > 0 && used(&disk) < start, "{refused}");
    store.put(b"goes", b"on").unwrap();
    assert_eq!(store.sync().unwrap(), store.last_lsn());
}

/// Removes the reserve, as if another process had taken its space.
fn empty_reserve(disk: &SimFs) {
    disk.damage(&Path::new(DIR).join(Reserve::FILE), Some(Vec::new()));
}

fn compacting() -> Options {
    Options { compaction: Options::default().compaction, ..small() }
}

fn names(disk: &SimFs) -> Vec<String> {
    disk.list(Path::new(DIR)).unwrap()
}

/// Fills the disk, and deletes the keys in `order`. Each delete must succeed, and afterwards most
/// of the space is free.
fn fill_and_delete(
    disk: &SimFs,
    mut store: LogEngine,
    model: &mut Model,
    order: &[Vec<u8>],
    reopens: bool,
) -> LogEngine {
    let full = used(disk);
    for (number, key) in order.iter().enumerate() {
        if reopens && number % 50 == 7 {
            store.close().unwrap();
            drop(store);
            store = open(disk, compacting()).unwrap();
        }
        assert!(store.delete(key).unwrap().is_some(), "{number}");
        model.remove(key);
        if number % 40 == 0 {
            assert_eq!(content(&store), *model);
        }
    }
    store.compact().unwrap();
    assert_eq!(content(&store), *model);
    assert!(used(disk) < full / 2, "{} of {full}", used(disk));
    store
}

#[test]
fn deleting_on_a_full_disk_is_always_possible_and_brings_its_space_back() {
    for (seed, reopens) in [(1, false), (2, true), (3, true)] {
        let (disk, mut model) = (SimFs::new(), Model::new());
        let mut rng = fastrand::Rng::with_seed(seed);
        disk.limit_space(Some(60 * SEGMENT as u64));
        let mut store = open(&disk, compacting()).unwrap();
        for round in 0..3 {
            for number in 0.. {
                let (key, value) = (u32::to_be_bytes(number).to_vec(), vec![round; 60]);
                match store.put(&key, &value) {
                    Ok(_) => drop(model.insert(key, value)),
                    Err(error) => {
                        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
                        break;
                    }
                }
            }
            assert!(model.len() > 1000, "{}", model.len());
            // Deletes scattered over all segments.
            let mut order: Vec<Vec<u8>> = model.keys().cloned().collect();
            rng.shuffle(&mut order);
            store = fill_and_delete(&disk, store, &mut model, &order, reopens);
            assert!(model.is_empty());
            // The directory that a kill leaves works as well.
            if reopens {
                drop(store);
                store = open(&disk, compacting()).unwrap();
            }
        }
    }
}

#[test]
fn a_store_on_a_disk_without_a_free_byte_is_opened_read_and_closed() {
    for killed in [false, true] {
        let (disk, mut model) = (SimFs::new(), Model::new());
        disk.limit_space(Some(30 * SEGMENT as u64));
        let store = open(&disk, small()).unwrap();
        fill(&store, &mut model, 1);
        store.sync().unwrap();
        let disk = if killed {
            disk.process_death()
        } else {
            store.close().unwrap();
            drop(store);
            disk
        };
        for _ in 0..3 {
            disk.limit_space(Some(used(&disk)));
            let store = open(&disk, small()).unwrap();
            assert_eq!(content(&store), model);
            store.close().unwrap();
        }
    }
}

#[test]
fn a_writer_that_overwrites_goes_on_on_a_full_disk_while_there_is_garbage() {
    let (disk, mut model) = (SimFs::new(), Model::new());
    disk.limit_space(Some(40 * SEGMENT as u64));
    // A policy that keeps the garbage.
    let lazy = Arc::new(kv_core::Greedy { disk_utilization_min: 0.1, ..kv_core::Greedy::default() });
    let store = open(&disk, Options { compaction: lazy, ..small() }).unwrap();
    for number in 0..20_000_u32 {
        let (key, value) = ((number % 200).to_be_bytes(), number.to_be_bytes().repeat(15));
        store.put(&key, &value).unwrap();
        model.insert(key.to_vec(), value);
    }
    assert_eq!(content(&store), model);
    assert!(store.stats().compactions > 10);
}

/// The first segment of another store.
fn segment_of_another_store() -> Vec<u8> {
    let other = SimFs::new();
    // Made in another directory, so that it gets another store id.
    let env = Env {
        fs: Arc::new(other.clone()),
        clock: Arc::new(ManualClock::new(0)),
        background: Background::Inline,
    };
    let elsewhere = LogEngine::open_in(Path::new("/other"), &env, small()).unwrap();
    elsewhere.put(b"k", b"another store's").unwrap();
    elsewhere.close().unwrap();
    other.read_file(&Path::new("/other").join(format!("{:016x}.segment", 1))).unwrap()
}

#[test]
fn only_the_stores_own_rubbish_is_removed() {
    let (disk, dir) = (SimFs::new(), Path::new(DIR));
    let store = open(&disk, small()).unwrap();
    store.put(b"k", b"v").unwrap();
    store.sync().unwrap();
    // The store is killed. Its manifest has reserved the next ids.
    let disk = disk.process_death();
    let of_another = segment_of_another_store();
    let foreign = [
        ("00000000000000ff.segment", of_another.clone()),
        ("0000000000000000.segment", Vec::new()),
        ("0000000000999999.segment", vec![7; SEGMENT]),
        ("ffffffffffffffff.segment", Vec::new()),
        ("fffffffffffffffe.segment", of_another),
        ("notes.segment", b"mine".to_vec()),
    ];
    for (name, bytes) in &foreign {
        disk.damage(&dir.join(name), Some(bytes.clone()));
    }
    // The outputs of a compaction that a crash ended: empty, or garbage.
    for (name, bytes) in
        [("0000000000000077.segment", vec![7; SEGMENT]), ("0000000000000078.segment", Vec::new())]
    {
        disk.damage(&dir.join(name), Some(bytes));
    }
    for round in 0..3_u8 {
        let store = open(&disk, small()).unwrap();
        assert_eq!(store.get(b"k").unwrap().as_deref(), Some(b"v".as_slice()));
        for number in 0..300_u32 {
            store.put(&number.to_be_bytes(), &[round; 60]).unwrap();
        }
        store.close().unwrap();
        for (name, bytes) in &foreign {
            assert_eq!(disk.read_file(&dir.join(name)).unwrap(), *bytes, "{name}");
        }
        assert!(!names(&disk).iter().any(|name| name.starts_with("000000000000007")), "{:?}", names(&disk));
    }
}

/// Another process puts them there while the store is open.
#[test]
fn files_that_take_the_names_of_the_next_segments_stay_and_the_store_goes_on() {
    let (disk, mut model) = (SimFs::new(), Model::new());
    let store = open(&disk, compacting()).unwrap();
    let of_another = segment_of_another_store();
    let foreign: Vec<_> =
        (0..100).step_by(3).map(|id| Path::new(DIR).join(format!("{:016x}.segment", id + 5))).collect();
    for path in &foreign {
        disk.damage(path, Some(of_another.clone()));
    }
    for number in 0..3000_u32 {
        // Each segment holds live records and garbage.
        let key = if number % 2 == 0 { number } else { number % 100 };
        let (key, value) = (key.to_be_bytes().to_vec(), number.to_be_bytes().repeat(15));
        store.put(&key, &value).unwrap();
        model.insert(key, value);
    }
    store.compact().unwrap();
    assert!(store.stats().compacted_bytes > 0);
    store.close().unwrap();
    drop(store);
    assert_eq!(content(&open(&disk, compacting()).unwrap()), model);
    for path in &foreign {
        assert_eq!(disk.read_file(path).unwrap(), of_another, "{}", path.display());
    }
}

#[test]
fn a_manifest_that_is_older_than_the_segments_is_refused_and_loses_nothing() {
    for (grown, closed) in [(3, true), (3000, true), (3000, false)] {
        let (disk, manifest) = (SimFs::new(), Path::new(DIR).join("MANIFEST"));
        let store = open(&disk, compacting()).unwrap();
        for number in 0..90_u32 {
            store.put(&number.to_be_bytes(), &[1; 60]).unwrap();
        }
        store.close().unwrap();
        drop(store);
        let old = disk.read_file(&manifest).unwrap();
        let store = open(&disk, compacting()).unwrap();
        for number in 90..90 + grown {
            store.put(&u32::to_be_bytes(number), &[2; 60]).unwrap();
        }
        let disk = if closed {
            store.close().unwrap();
            drop(store);
            disk
        } else {
            store.sync().unwrap();
            disk.process_death()
        };
        let newest = disk.read_file(&manifest).unwrap();
        let before = names(&disk);
        disk.damage(&manifest, Some(old));
        let answer = open(&disk, compacting());
        if grown == 3 {
            // The old manifest names the only segment as the active one.
            assert_eq!(answer.unwrap().stats().keys, 93);
            continue;
        }
        let error = answer.unwrap_err();
        let Error::Corruption { detail, .. } = &error else { panic!("{error}") };
        assert!(detail.contains("the manifest is older") || detail.contains("is missing"), "{error}");
        assert_eq!(names(&disk), before);
        disk.damage(&manifest, Some(newest));
        assert_eq!(open(&disk, compacting()).unwrap().stats().keys, u64::from(90 + grown));
    }
}

#[test]
fn a_store_is_not_created_where_there_is_no_room() {
    let disk = SimFs::new();
    disk.limit_space(Some(1000));
    assert!(is_full(&open(&disk, small())));
    disk.limit_space(None);
    let store = open(&disk, small()).unwrap();
    assert_eq!(store.put(b"k", b"v").unwrap(), store.last_lsn());
    assert!(store.last_lsn() > Lsn::ZERO);
}

#[test]
fn segments_are_as_small_as_the_disk_asks_for() {
    let (disk, mut model) = (SimFs::new(), Model::new());
    disk.limit_space(Some(800 << 10));
    let store = open(&disk, Options { segment_bytes: 16 << 20, ..small() }).unwrap();
    for number in 0..1000_u32 {
        store.put(&number.to_be_bytes(), &[1; 60]).unwrap();
        model.insert(number.to_be_bytes().to_vec(), vec![1; 60]);
    }
    store.close().unwrap();
    assert_eq!(content(&open(&disk, small()).unwrap()), model);
}

#[test]
fn a_head_that_was_made_smaller_uses_the_space_that_it_has() {
    let disk = SimFs::new();
    let store = open(&disk, small()).unwrap();
    store.put(b"k", b"v").unwrap();
    store.close().unwrap();
    drop(store);
    let larger = || Options { segment_bytes: 64 << 10, ..small() };
    for (room, least) in [(0, 30), (5000, 30), (500_000, 1000)] {
        let disk = disk.process_death();
        disk.limit_space(Some(used(&disk) + room));
        let (store, mut model) = (open(&disk, larger()).unwrap(), Model::new());
        model.insert(b"k".to_vec(), b"v".to_vec());
        for number in 0..5000_u32 {
            match store.put(&number.to_be_bytes(), &[1; 60]) {
                Ok(_) => drop(model.insert(number.to_be_bytes().to_vec(), vec![1; 60])),
                Err(error) => {
                    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
                    break;
                }
            }
        }
        // A part goes into the reserve.
        assert!(model.len() > least, "{}", model.len());
        assert_eq!(store.sync().unwrap(), store.last_lsn());
        assert_eq!(content(&store), model);
        drop(store);
        assert_eq!(content(&open(&disk, larger()).unwrap()), model);
    }
}
