#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::{Options, recovery::open};
use kv_core::{
    CompactionLevel, CompactionPlan, CompactionPolicy, CompactionView, Env, Error, Greedy, Manual,
    ManualClock, Never, ProcessSafety,
};
use kv_tests::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const KEYS: u16 = 300;
const ROUNDS: u8 = 6;

/// A store on `disk` that was filled and overwritten fast: it has spares, several segments, dead
/// records, and a large active segment. Everything is durable.
fn busy_store(disk: &SimFs, compaction: &Arc<dyn CompactionPolicy>) -> Store {
    let options = Options { compaction: Arc::clone(compaction), ..options() };
    let store = open(Path::new("/store"), &env(disk), options).unwrap();
    for round in 0..ROUNDS {
        for key in 0..KEYS {
            // The last round leaves half of the keys in older segments.
            if round + 1 < ROUNDS || key % 2 == 0 {
                store.committer.put(&key.to_be_bytes(), &[round; 100]).unwrap();
            }
        }
        store.log.spares.make(&store.log.end).unwrap();
    }
    store.flusher.flush(Action::WriteAndSync).unwrap();
    store
}

fn env(disk: &SimFs) -> Env {
    let clock = Arc::new(ManualClock::new(0));
    Env { fs: Arc::new(disk.clone()), clock, background: Background::Inline }
}

fn options() -> Options {
    Options { slack_bytes: 128 << 10, persistence: Arc::new(Manual), ..Options::default() }
}

fn policies() -> [Arc<dyn CompactionPolicy>; 2] {
    [Arc::new(Never), Arc::new(Greedy::default())]
}

/// Opens what is left on `disk`, and checks that every key has its newest value.
fn check(disk: &SimFs, what: &str) {
    let store = open(Path::new("/store"), &env(disk), options());
    let store = store.unwrap_or_else(|error| panic!("{what}: {error}"));
    for key in 0..KEYS {
        let expected = if key % 2 == 0 { ROUNDS - 1 } else { ROUNDS - 2 };
        let found = store.reader.read(&key.to_be_bytes(), &mut |value| assert_eq!(value, [expected; 100]));
        assert!(found.unwrap(), "{what}: key {key}");
    }
}

#[test]
fn a_power_cut_or_a_death_at_every_operation_of_tidying_loses_nothing() {
    for policy in policies() {
        let disk = SimFs::new();
        let store = busy_store(&disk, &policy);
        let last = store.log.end.last_lsn();
        let before = (disk.mutations(), store.catalog.segments().len());
        store.tidy(last).unwrap();
        let operations = disk.mutations() - before.0;
        assert!(operations > 20, "{operations} operations");
        assert!(store.catalog.segments().len() > 4, "{:?}", store.stats());
        drop(store);
        for operation in 0..=operations {
            let disk = SimFs::new();
            let store = busy_store(&disk, &policy);
            disk.cut_after(disk.mutations() + operation);
            // The disk refuses everything behind the cut.
            let _ = store.tidy(last);
            for (name, cut) in [
                ("lose", PowerCut::LOSE_ALL),
                ("keep", PowerCut::KEEP_ALL),
                ("some", PowerCut::seeded(operation)),
            ] {
                check(&disk.power_cut(cut), &format!("{name} after operation {operation}"));
            }
            check(&disk.process_death(), &format!("death after operation {operation}"));
        }
    }
}

#[test]
fn a_refused_removal_of_spares_leaves_them_to_the_log() {
    let disk = SimFs::new();
    let store = busy_store(&disk, &policies()[0]);
    let spares = |store: &Store| {
        store
            .catalog
            .segments()
            .iter()
            .filter(|one| !one.is_sealed() && one.end() == SEGMENT_HEADER_LEN)
            .count()
    };
    let before = spares(&store);
    assert!(before > 0, "{:?}", store.stats());
    // The manifest finds no descriptor.
    disk.inject(Fault { kind: FaultKind::NoDescriptors, nth: 0, repeat: Repeat::Always });
    let refused = store.log.spares.remove_large(0, store.log.end.last_lsn());
    assert!(refused.as_ref().is_err_and(Error::is_refusal), "{refused:?}");
    disk.heal();
    assert_eq!(spares(&store), before);
    for key in 0..KEYS {
        store.committer.put(&key.to_be_bytes(), &[9; 1000]).unwrap();
    }
    store.flusher.flush_sealed().unwrap();
    store.flusher.flush(Action::WriteAndSync).unwrap();
    let disk = disk.power_cut(PowerCut::LOSE_ALL);
    let store = open(Path::new("/store"), &env(&disk), options()).unwrap();
    assert_eq!(store.stats().keys, u64::from(KEYS));
    assert!(store.reader.read(b"\0\0", &mut |value| assert_eq!(value, [9; 1000])).unwrap());
}

#[test]
fn a_flush_of_sealed_segments_makes_their_changes_durable_and_no_others() {
    let disk = SimFs::new();
    let store = busy_store(&disk, &policies()[0]);
    let before = store.progress.durable_lsn();
    let sealed = |store: &Store| store.log.end.lock().active.sealed.len();
    let mut at_roll = before;
    while sealed(&store) < 2 {
        let (count, last) = (sealed(&store), store.log.end.last_lsn());
        store.committer.put(b"key", &[7; 1000]).unwrap();
        at_roll = if sealed(&store) > count { last } else { at_roll };
    }
    let active = Arc::clone(&store.log.end.lock().active.segment);
    let written = active.written();
    store.flusher.flush_sealed().unwrap();
    assert_eq!((store.progress.durable_lsn(), active.written()), (at_roll, written));
    assert!(at_roll > before && at_roll < store.log.end.last_lsn());
    assert!(store.stats().unflushed_bytes > 1000, "{:?}", store.stats());
    let after = open(Path::new("/store"), &env(&disk.power_cut(PowerCut::LOSE_ALL)), options()).unwrap();
    assert_eq!(after.recovery.report.last_lsn, at_roll);
}

/// The flusher takes it out of shared memory in between.
#[test]
fn a_synced_segment_is_safe_before_it_is_called_durable() {
    let store = open(Path::new("/store"), &env(&SimFs::new()), options()).unwrap();
    store.committer.put(b"key", &[7; 100]).unwrap();
    store.log.seal_active().unwrap();
    let sealed = Arc::clone(&store.log.end.lock().active.sealed[0]);
    assert!(sealed.is_shared());
    let copy = store.segments.copy(&sealed).unwrap();
    // SAFETY: no other thread has the store.
    unsafe { store.segments.exchange(&sealed, copy) };
    assert!(!sealed.is_shared());
    assert!(matches!(store.stats().process_safety, ProcessSafety::Unsafe(_)));
    sealed.set_synced(sealed.end());
    assert_eq!(store.stats().process_safety, ProcessSafety::Safe);
}

/// Names one segment after the other. Each plan takes some time of the clock.
#[derive(Debug)]
struct Slow {
    clock: Arc<ManualClock>,
    plans: AtomicU64,
}

impl CompactionPolicy for Slow {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        self.clock.advance(Duration::from_millis(400));
        self.plans.fetch_add(1, Ordering::Relaxed);
        let victim = view.segments.iter().find(|segment| segment.dead_bytes > 0)?;
        Some(CompactionPlan { level: CompactionLevel::Disk, victims: vec![victim.id] })
    }
}

#[test]
fn a_close_ends_even_if_compaction_has_fallen_far_behind() {
    let (disk, clock) = (SimFs::new(), Arc::new(ManualClock::new(0)));
    drop(busy_store(&disk, &policies()[0]));
    let policy = Arc::new(Slow { clock: Arc::clone(&clock), plans: AtomicU64::new(0) });
    let env = Env { clock, ..env(&disk) };
    let options = Options { compaction: Arc::<Slow>::clone(&policy), ..options() };
    let store = open(Path::new("/store"), &env, options).unwrap();
    let segments = store.catalog.segments();
    assert!(segments.iter().filter(|segment| segment.is_durable()).count() > 5, "{:?}", store.stats());
    let before = policy.plans.load(Ordering::Relaxed);
    store.close().unwrap();
    assert_eq!(policy.plans.load(Ordering::Relaxed) - before, 3, "a second's worth");
    drop(store);
    check(&disk, "closed");
}

#[test]
fn an_idle_store_is_tidied_once() {
    for policy in policies() {
        let disk = SimFs::new();
        let store = busy_store(&disk, &policy);
        let last = store.log.end.last_lsn();
        store.tidy(last).unwrap();
        let segments = store.catalog.segments().len();
        for _ in 0..3 {
            store.tidy(last).unwrap();
        }
        assert!(store.catalog.segments().len() <= segments, "{:?}", store.stats());
    }
}

#[test]
fn a_large_file_that_cannot_be_split_is_counted() {
    let disk = SimFs::new();
    let never = Arc::new(Never);
    // With one open file, a durable segment's file has to be opened for a compaction.
    let options = || Options {
        compaction: Arc::clone(&never) as _,
        open_files_max: 1,
        slack_bytes: 12 << 20,
        ..options()
    };
    let store = open(Path::new("/store"), &env(&disk), options()).unwrap();
    for key in 0..KEYS {
        store.committer.put(&key.to_be_bytes(), &[7; 1000]).unwrap();
    }
    // The next segment takes the place among the open files.
    for key in [KEYS, KEYS + 1] {
        store.log.seal_if_possible().unwrap();
        store.flusher.flush(Action::WriteAndSync).unwrap();
        store.committer.put(&key.to_be_bytes(), b"small").unwrap();
    }
    store.flusher.flush(Action::WriteAndSync).unwrap();
    let last = store.log.end.last_lsn();
    let part = store.log.slack.output_bytes();
    let is_large = |segment: &Arc<Segment>| segment.file_len() > 2 * part;
    assert!(store.catalog.segments().iter().any(is_large), "{:?}", store.stats());

    disk.inject(Fault { kind: FaultKind::ReadIo, nth: 0, repeat: Repeat::Always });
    store.compactor.split_large(last).unwrap();
    disk.heal();
    assert_eq!((store.stats().compaction_failures, store.stats().compactions), (1, 0));
    store.compactor.split_large(last).unwrap();
    assert_eq!((store.stats().compaction_failures, store.stats().compactions), (1, 1));
    assert!(!store.catalog.segments().iter().any(is_large), "{:?}", store.stats());
}
