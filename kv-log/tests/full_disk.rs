//! A disk with too little room: what does not fit is refused, nothing is lost, and with room the store goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::{
    Background, Compact, Engine, EngineExt, Env, Error, FsExt, Lsn, ManualClock, MaxLogSize, Never,
};
use kv_log::{LogEngine, Options};
use kv_tests::sim::{PowerCut, SimFs};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

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
        // Again and again: nothing piles up.
        for _ in 0..5 {
            assert!(is_full(&store.put(b"another", &[round; 200])));
            assert!(is_full(&store.compact()) || store.stats().compactions > 0);
        }
        assert!(used(&disk) <= full, "{} {full}", used(&disk));
        assert_eq!(content(&store), model);
        // What was taken can be made durable: its space was reserved.
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

#[test]
fn compaction_that_has_no_room_leaves_everything_as_it_was() {
    let (disk, mut model) = (SimFs::new(), Model::new());
    let store = open(&disk, small()).unwrap();
    for round in 0..6 {
        for number in 0..200_u32 {
            // Half of the keys stay as they were first: no victim is empty.
            if round == 0 || number % 2 == 0 {
                store.put(&number.to_be_bytes(), &[round; 60]).unwrap();
                model.insert(number.to_be_bytes().to_vec(), vec![round; 60]);
            }
        }
    }
    store.sync().unwrap();
    store.close().unwrap();

    let store = open(&disk, Options { compaction: Options::default().compaction, ..small() }).unwrap();
    // From no room at all to nearly enough.
    let start = used(&disk);
    let mut refused = 0;
    for room in (0..).step_by(600) {
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
    assert!(refused > 3 && store.stats().compactions > 0 && used(&disk) < start, "{refused}");
    store.put(b"goes", b"on").unwrap();
    assert_eq!(store.sync().unwrap(), store.last_lsn());
}

#[test]
fn files_that_no_manifest_names_make_room_for_the_first_one() {
    let disk = SimFs::new();
    let store = open(&disk, small()).unwrap();
    store.put(b"k", b"v").unwrap();
    store.close().unwrap();
    drop(store);
    // As a compaction leaves one that a crash ended.
    let orphan = "0000000000000077.segment".to_owned();
    disk.damage(&Path::new(DIR).join(&orphan), Some(vec![7; SEGMENT]));
    disk.limit_space(Some(used(&disk)));
    let store = open(&disk, small()).unwrap();
    assert_eq!(store.get(b"k").unwrap().as_deref(), Some(b"v".as_slice()));
    let left = disk.list_if_exists(Path::new(DIR)).unwrap().unwrap();
    assert!(!left.contains(&orphan), "{left:?}");
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
fn a_head_that_was_made_smaller_gets_its_space_before_it_is_used() {
    let disk = SimFs::new();
    let store = open(&disk, small()).unwrap();
    store.put(b"k", b"v").unwrap();
    store.close().unwrap();
    drop(store);
    let larger = || Options { segment_bytes: 2 * SEGMENT, ..small() };
    disk.limit_space(Some(used(&disk) + SEGMENT as u64 / 2));
    assert!(is_full(&open(&disk, larger())));
    disk.limit_space(Some(used(&disk) + 2 * SEGMENT as u64));
    let (store, mut model) = (open(&disk, larger()).unwrap(), Model::new());
    model.insert(b"k".to_vec(), b"v".to_vec());
    fill(&store, &mut model, 1);
    assert_eq!(store.sync().unwrap(), store.last_lsn());
    assert_eq!(content(&store), model);
}
