#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use crate::engine::LogEngine;
use crate::index::Index;
use crate::options::Options;
use crate::reclaim::collect;
use fastrand::Rng;
use kv_core::{
    Background, Batch, Checkpoint, Compact, Engine, EngineExt, Env, Greedy, ManualClock, MaxLogSize, Never,
    OnRequest, Stats,
};
use kv_tests::sim::{Gate, OpKind, PowerCut, SimFs};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

const DIR: &str = "/store";

fn env(disk: &SimFs) -> Env {
    let clock = Arc::new(ManualClock::new(0));
    Env { fs: Arc::new(disk.clone()), clock, background: Background::Inline }
}

/// Small segments, one shard, and both levels of compaction.
fn options() -> Options {
    Options {
        segment_bytes: 2048,
        unflushed_bytes_max: 4096,
        index_shards: 1,
        persistence: Arc::new(MaxLogSize::new(1000)),
        checkpoint: Arc::new(OnRequest),
        compaction: Arc::new(Greedy {
            disk_utilization_min: 0.3,
            disk_slack_segments: 0,
            idle_disk_utilization_min: 0.3,
            memory_utilization_min: 0.95,
            busy_memory_utilization_min: 0.95,
            ..Greedy::default()
        }),
        ..Options::default()
    }
}

fn with_budget() -> Options {
    Options { memory_budget: Some(4096 + 5 * 2048), ..options() }
}

fn open(disk: &SimFs, options: &Options) -> LogEngine {
    LogEngine::open_in(Path::new(DIR), &env(disk), options.clone()).unwrap()
}

/// Keys in pairs with the same tag, and as many without a partner.
static KEYS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let index = Index::new(1, 0);
    let (mut seen, mut keys) = (HashMap::new(), Vec::new());
    for number in 0_u32.. {
        let key = number.to_le_bytes().to_vec();
        let tag = index.tag_of(&key);
        if let Some(other) = seen.insert(tag, key.clone()) {
            keys.extend([other, key]);
        }
        if keys.len() == 24 {
            break;
        }
    }
    keys.extend((0..24_u8).map(|number| vec![number; 3]));
    keys
});

fn any_key(rng: &mut Rng) -> &'static [u8] {
    &KEYS[rng.usize(..KEYS.len())]
}

fn any_value(rng: &mut Rng) -> Vec<u8> {
    vec![rng.u8(..); rng.usize(..150)]
}

fn checkpoint_files(disk: &SimFs) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.extension().is_some_and(|extension| extension == "checkpoint")).collect()
}

fn without_checkpoint(disk: &SimFs) -> SimFs {
    let copy = disk.process_death();
    for path in checkpoint_files(&copy) {
        copy.damage(&path, None);
    }
    copy
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn state(engine: &LogEngine) -> Pairs {
    engine.to_sorted_vec().unwrap()
}

fn sizes(stats: &Stats) -> (u64, u64) {
    (stats.keys, stats.live_bytes)
}

/// Opens the store on `disk` in every way, and checks that all show the state of a full replay.
/// Returns whether a checkpoint was used.
fn compare(disk: &SimFs, options: &Options, rng: &mut Rng, what: &str) -> bool {
    let replayed = open(&without_checkpoint(disk), options);
    let (expected, stats) = (state(&replayed), replayed.stats());
    let bytes: usize = expected.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!(stats.live_bytes, bytes as u64, "{what}: replayed");
    assert_eq!(stats.recovery.checkpoint_bytes, 0, "{what}");
    drop(replayed);

    // Single look-ups, in a random order, some of them by writers.
    let engine = open(&disk.process_death(), options);
    let recovery = engine.stats().recovery;
    assert_eq!(recovery.last_lsn, stats.recovery.last_lsn, "{what}");
    for _ in 0..KEYS.len() {
        let key = any_key(rng);
        let value = expected.iter().find(|(other, _)| other == key).map(|(_, value)| value);
        assert_eq!(engine.get(key).unwrap().as_deref(), value.map(Vec::as_slice), "{what}: {key:?}");
    }
    assert_eq!(state(&engine), expected, "{what}");
    drop(engine);

    // Warm: the counts are exact.
    let engine = open(&disk.process_death(), &Options { warm_up: true, ..options.clone() });
    assert_eq!(engine.stats().warm_up_bytes, 0, "{what}");
    assert_eq!(engine.stats().keys, stats.keys, "{what}");
    if options.memory_budget.is_none() {
        assert_eq!(sizes(&engine.stats()), sizes(&stats), "{what}");
    }
    assert_eq!(state(&engine), expected, "{what}: warm");
    drop(engine);

    // Compaction of segments that are not warm, and another full replay afterwards.
    let compacted = disk.process_death();
    let engine = open(&compacted, options);
    engine.compact().unwrap();
    assert_eq!(state(&engine), expected, "{what}: compacted");
    drop(engine);
    assert_eq!(state(&open(&without_checkpoint(&compacted), options)), expected, "{what}: replayed");

    // Deletes and puts on a cold store.
    let engine = open(&disk.process_death(), options);
    let mut model: std::collections::BTreeMap<_, _> = expected.into_iter().collect();
    for _ in 0..10 {
        let (key, value) = (any_key(rng), any_value(rng));
        if rng.bool() {
            let was_there = model.remove(key).is_some();
            assert_eq!(engine.delete(key).unwrap().is_some(), was_there, "{what}: {key:?}");
        } else {
            model.insert(key.to_vec(), value.clone());
            engine.put(key, &value).unwrap();
        }
    }
    assert_eq!(state(&engine), model.into_iter().collect::<Pairs>(), "{what}: changed");
    recovery.checkpoint_bytes > 0
}

/// A random history, with a checkpoint somewhere in it.
fn history(seed: u64, options: &Options) -> usize {
    let mut rng = Rng::with_seed(seed);
    let (mut disk, mut used) = (SimFs::new(), 0);
    for round in 0..4 {
        let engine = open(&disk, options);
        for step in 0..60 + rng.u32(..100) {
            let (key, value) = (any_key(&mut rng), any_value(&mut rng));
            match rng.u32(..100) {
                0..60 => drop(engine.put(key, &value).unwrap()),
                60..80 => drop(engine.delete(key).unwrap()),
                80..86 => {
                    let mut batch = Batch::new();
                    batch.put(key, &value).delete(any_key(&mut rng)).put(any_key(&mut rng), &value);
                    engine.apply(&batch).unwrap();
                }
                86..90 => drop(engine.sync().unwrap()),
                90..93 => drop(engine.compact().unwrap()),
                93..96 => drop(engine.checkpoint().unwrap()),
                96..98 => {
                    let what = format!("seed {seed}, round {round}, death at step {step}");
                    used += usize::from(compare(&disk.process_death(), options, &mut rng, &what));
                }
                _ => {
                    let what = format!("seed {seed}, round {round}, power cut at step {step}");
                    let cut = disk.power_cut(PowerCut::seeded(rng.u64(..)));
                    used += usize::from(compare(&cut, options, &mut rng, &what));
                }
            }
        }
        if rng.bool() {
            engine.close().unwrap();
            drop(engine);
        } else {
            let next = disk.power_cut(PowerCut::seeded(rng.u64(..)));
            drop(engine);
            disk = next;
        }
    }
    used
}

#[test]
fn an_open_with_a_checkpoint_shows_what_a_full_replay_shows() {
    let mut used = 0;
    for seed in 0..80 {
        let options = Options { index_shards: if seed < 60 { 1 } else { 8 }, ..options() };
        used += history(seed, &options);
        used += history(seed, &Options { memory_budget: with_budget().memory_budget, ..options });
    }
    assert!(used > 100, "only {used} opens used a checkpoint");
}

/// A store with three generations of records, everything durable, and its content.
fn filled(disk: &SimFs) -> (LogEngine, Pairs) {
    let engine = open(disk, &options());
    for round in 0..3_u8 {
        for (number, key) in KEYS.iter().enumerate() {
            if number % 3 == usize::from(round) {
                engine.delete(key).unwrap();
            } else {
                engine.put(key, &vec![round; 60 + number]).unwrap();
            }
        }
    }
    engine.sync().unwrap();
    let pairs = state(&engine);
    (engine, pairs)
}

#[test]
fn a_power_cut_or_a_death_at_every_operation_of_a_checkpoint_loses_nothing() {
    let disk = SimFs::new();
    let (engine, _) = filled(&disk);
    engine.checkpoint().unwrap();
    engine.put(&KEYS[0], b"newer").unwrap();
    let before = disk.mutations();
    engine.checkpoint().unwrap();
    let operations = disk.mutations() - before;
    assert!(operations > 5, "{operations} operations");
    drop(engine);
    let (mut old, mut new) = (0, 0);
    for operation in 0..=operations {
        let disk = SimFs::new();
        let (engine, _) = filled(&disk);
        let first = engine.checkpoint().unwrap();
        engine.put(&KEYS[0], b"newer").unwrap();
        engine.sync().unwrap();
        let expected = state(&engine);
        disk.cut_after(disk.mutations() + operation);
        // The disk refuses everything behind the cut.
        let _ = engine.checkpoint();
        for crash in [
            disk.power_cut(PowerCut::LOSE_ALL),
            disk.power_cut(PowerCut::KEEP_ALL),
            disk.power_cut(PowerCut::seeded(operation)),
            disk.process_death(),
        ] {
            let engine = open(&crash, &options());
            let recovery = engine.stats().recovery;
            assert!(recovery.checkpoint_keys > 0, "after operation {operation}: {recovery:?}");
            assert_eq!(state(&engine), expected, "after operation {operation}");
            old += u32::from(recovery.checkpoint_lsn == first);
            new += u32::from(recovery.checkpoint_lsn > first);
            assert_eq!(checkpoint_files(&crash).len(), 1, "after operation {operation}");
        }
    }
    assert!(old > 0 && new > 0, "{old} opens with the old checkpoint, {new} with the new one");
}

#[test]
fn a_checkpoint_that_is_damaged_at_any_byte_is_noticed_and_said() {
    let disk = SimFs::new();
    let (engine, expected) = filled(&disk);
    engine.checkpoint().unwrap();
    let path = checkpoint_files(&disk).remove(0);
    let bytes = disk.files().into_iter().find(|(other, _)| *other == path).unwrap().1;
    for at in 0..bytes.len() {
        let damaged = disk.process_death();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        damaged.damage(&path, Some(flipped));
        let engine = open(&damaged, &options());
        let recovery = engine.stats().recovery;
        assert!(recovery.checkpoint_fault.is_some() && recovery.checkpoint_bytes == 0, "byte {at}");
        assert_eq!(state(&engine), expected, "byte {at}");
        // The next manifest does not name it.
        assert!(checkpoint_files(&damaged).is_empty(), "byte {at}");
    }
    let without = open(&without_checkpoint(&disk), &options());
    assert!(without.stats().recovery.checkpoint_fault.unwrap().contains("cannot be read"));
    let whole = open(&disk.process_death(), &options()).stats().recovery;
    assert!(whole.checkpoint_fault.is_none() && whole.checkpoint_bytes == bytes.len() as u64);
}

#[test]
fn a_checkpoint_of_another_history_is_not_used() {
    let start = SimFs::new();
    drop(filled(&start));
    // A user restores a backup of the manifest and the segments, and leaves a newer checkpoint.
    let fork = |time, value: u8| {
        let disk = start.process_death();
        let env = Env { clock: Arc::new(ManualClock::new(time)), ..env(&disk) };
        let engine = LogEngine::open_in(Path::new(DIR), &env, options()).unwrap();
        for key in KEYS.iter() {
            engine.put(key, &[value; 50]).unwrap();
        }
        engine.checkpoint().unwrap();
        (disk.process_death(), state(&engine))
    };
    let ((one, _), (other, expected)) = (fork(1, 1), fork(2, 2));
    let path = checkpoint_files(&one).remove(0);
    assert_eq!(checkpoint_files(&other), std::slice::from_ref(&path), "both have the same name");
    let bytes = one.files().into_iter().find(|(name, _)| *name == path).unwrap().1;
    other.damage(&path, Some(bytes));
    let engine = open(&other, &options());
    assert!(engine.stats().recovery.checkpoint_fault.is_some());
    assert_eq!(state(&engine), expected);
}

#[test]
fn a_full_disk_costs_the_checkpoint_and_no_change() {
    let disk = SimFs::new();
    let (engine, _) = filled(&disk);
    engine.checkpoint().unwrap();
    let used: u64 = disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    disk.limit_space(Some(used));
    for number in 0_u32.. {
        let had_one = !checkpoint_files(&disk).is_empty();
        match engine.put(&number.to_be_bytes(), &[7; 100]) {
            Ok(_) => assert!(number < 100_000),
            Err(error) => {
                assert!(error.is_refusal() && !had_one, "{error}");
                break;
            }
        }
    }
    // There is no room for one, and that harms nothing.
    let answer = engine.checkpoint();
    assert!(answer.as_ref().is_err_and(kv_core::Error::is_refusal), "{answer:?}");
    assert!(checkpoint_files(&disk).is_empty());
    engine.delete(&KEYS[1]).unwrap();
    let expected = state(&engine);
    engine.close().unwrap();
    assert_eq!(state(&open(&disk.process_death(), &options())), expected);
}

#[test]
fn a_close_writes_one_and_a_close_without_a_change_does_not() {
    let disk = SimFs::new();
    let closing = Options { checkpoint: Arc::new(kv_core::AfterLogBytes::default()), ..options() };
    let (engine, expected) = filled(&disk);
    drop(engine);
    assert_eq!(checkpoint_files(&disk).len(), 0, "the policy is to write none");
    let engine = open(&disk, &closing);
    engine.close().unwrap();
    let written = checkpoint_files(&disk);
    assert_eq!(written.len(), 1);
    for _ in 0..2 {
        let engine = open(&disk, &closing);
        assert_eq!(state(&engine), expected);
        assert!(engine.stats().recovery.checkpoint_keys > 0);
        engine.close().unwrap();
        assert_eq!(checkpoint_files(&disk), written);
    }
    let engine = open(&disk, &closing);
    engine.put(&KEYS[0], b"x").unwrap();
    engine.close().unwrap();
    assert_ne!(checkpoint_files(&disk), written);
}

#[test]
fn an_index_with_other_shards_is_replayed() {
    let disk = SimFs::new();
    let (engine, expected) = filled(&disk);
    engine.checkpoint().unwrap();
    let engine = open(&disk.process_death(), &Options { index_shards: 2, ..options() });
    assert!(engine.stats().recovery.checkpoint_fault.unwrap().contains("1 shards"));
    assert_eq!(state(&engine), expected);
}

#[test]
fn memory_comes_free_during_the_syncs_of_a_checkpoint() {
    let (gate, fs) = Gate::before(SimFs::new());
    let clock = Arc::new(ManualClock::new(0));
    let env = Env { fs, clock, background: Background::Inline };
    let options = Options { compaction: Arc::new(Never), ..options() };
    let engine = LogEngine::open_in(Path::new(DIR), &env, options).unwrap();
    for number in (0..200_u8).chain(0..100) {
        engine.put(&[number], &[number; 100]).unwrap();
    }
    gate.shut(|kind| kind == OpKind::Sync);
    let mut freed = None;
    thread::scope(|scope| {
        let gate = gate; // A panic here opens it, which ends the other thread.
        let checkpoint = scope.spawn(|| engine.checkpoint());
        while !checkpoint.is_finished() {
            let Some(stop) = gate.stop(Duration::from_millis(10)) else { continue };
            if stop.name.ends_with(".checkpoint") && freed.is_none() {
                let store = &engine.store;
                freed = store.compactor.try_shrink_all();
                // Threads of other tests may be pinned, each for a moment.
                let is_free = (0..2000).any(|_| {
                    collect();
                    store.segments.release_limbo();
                    thread::sleep(Duration::from_millis(1));
                    store.segments.bytes_in_use_by_readers() == 0
                });
                assert!(is_free, "{} bytes", store.segments.bytes_in_use_by_readers());
            }
            gate.release(&stop);
        }
        assert!(checkpoint.join().unwrap().is_ok());
    });
    assert!(freed.is_some_and(|bytes| bytes > 5000), "{freed:?}");
    engine.close().unwrap();
}

#[test]
fn a_checkpoint_stays_after_the_close() {
    let disk = SimFs::new();
    let engine = open(&disk, &options());
    for number in 0..100_u8 {
        engine.put(&[number], &[number; 100]).unwrap();
    }
    engine.checkpoint().unwrap();
    let catalog = Arc::clone(&engine.store.catalog);
    engine.close().unwrap();
    // A writer that found the disk full may come as late as this.
    let files = disk.files();
    assert_eq!((catalog.drop_checkpoint(), disk.files()), (0, files));
    assert!(open(&disk, &options()).stats().recovery.checkpoint_bytes > 0);
}
