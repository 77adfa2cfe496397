//! Calls for past states that run while the store is changed, and while its snapshots expire.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::{
    Always, Background, Engine, Env, Error, Fs, KeepPast, Lsn, ManualClock, OpenOptions, PointInTime, Reach,
    Result, Target,
};
use kv_naive::NaiveEngine;
use kv_tests::sim::{Gate, OpKind, SimFs};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

const DIR: &str = "/store";
const BACKUP: &str = "/backup";
/// A call that works takes far less.
const WAIT: Duration = Duration::from_secs(10);

/// Opens a store that keeps `count` old snapshots. Each change makes one.
fn open(fs: Arc<dyn Fs>, count: usize) -> NaiveEngine {
    let env = Env { fs, clock: Arc::new(ManualClock::new(1000)), background: Background::Inline };
    let retention = Arc::new(KeepPast::all().count_max(count));
    let options = OpenOptions { persistence: Arc::new(Always), retention, ..OpenOptions::default() };
    NaiveEngine::open_in(Path::new(DIR), &env, options).unwrap()
}

/// Opens the backup for reading.
fn open_backup(disk: &SimFs) -> NaiveEngine {
    let fs = Arc::new(disk.clone());
    let env = Env { fs, clock: Arc::new(ManualClock::new(1000)), background: Background::Inline };
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    NaiveEngine::open_in(Path::new(BACKUP), &env, options).unwrap()
}

fn put(store: &NaiveEngine, values: impl IntoIterator<Item = u8>) {
    for value in values {
        store.put(b"k", &[value]).unwrap();
    }
}

fn moments(store: &NaiveEngine) -> Vec<u64> {
    match store.reach().unwrap() {
        Reach::Moments(moments) => moments.iter().map(|(lsn, _)| lsn.get()).collect(),
        Reach::EveryLsn => panic!("a snapshot is one state"),
    }
}

/// Runs `call` in a thread of its own. Runs `meanwhile` while the first read of `call` is held.
fn during<T: Send>(
    gate: Gate,
    call: impl FnOnce() -> T + Send,
    meanwhile: impl FnOnce() + Send + 'static,
) -> T {
    gate.shut(|kind| kind == OpKind::Read);
    thread::scope(|scope| {
        let call = scope.spawn(call);
        gate.stop(WAIT).unwrap();
        // A thread of its own, because it may wait for the call.
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            meanwhile();
            done.send(()).unwrap();
        });
        let meanwhile = is_done.recv_timeout(WAIT);
        drop(gate);
        let answer = call.join().unwrap();
        meanwhile.unwrap();
        answer
    })
}

#[test]
fn dumps_go_on_while_a_call_reads_a_past_state() {
    type Call = fn(&NaiveEngine) -> Result<()>;
    let calls: [(&str, Call); 4] = [
        ("read_at", |store| store.read_at(&Target::Lsn(Lsn::new(2))).map(drop)),
        ("history", |store| store.history(b"k").map(drop)),
        ("restore", |store| store.restore(&Target::Lsn(Lsn::new(2)), Path::new("/new")).map(drop)),
        ("backup", |store| store.backup(Path::new(BACKUP)).map(drop)),
    ];
    for (name, call) in calls {
        let (gate, fs) = Gate::before(SimFs::new());
        let store = Arc::new(open(fs, 9));
        put(&store, 0..4);
        let writer = Arc::clone(&store);
        let answer = during(gate, || call(&store), move || put(&writer, 4..8));
        answer.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_state_that_expires_while_it_is_read_is_whole() {
    let (gate, fs) = Gate::before(SimFs::new());
    let store = Arc::new(open(fs, 2));
    put(&store, 0..4);
    for lsn in [2, 4] {
        assert!(moments(&store).contains(&lsn));
    }
    let writer = Arc::clone(&store);
    let read = || store.read_at(&Target::Lsn(Lsn::new(2))).unwrap();
    let past = during(gate, read, move || put(&writer, 4..8));
    assert_eq!(moments(&store), [6, 7, 8]);
    assert_eq!(past.engine.get(b"k").unwrap().as_deref(), Some(&[1][..]));
}

#[test]
fn a_history_does_without_the_snapshots_that_expire_meanwhile() {
    let (gate, fs) = Gate::before(SimFs::new());
    let store = Arc::new(open(fs, 3));
    put(&store, 0..5);
    store.pin("second", &Target::Lsn(Lsn::new(2)), None).unwrap();
    let writer = Arc::clone(&store);
    let versions = during(gate, || store.history(b"k").unwrap(), move || put(&writer, 5..9));
    let lsns: Vec<u64> = versions.iter().map(|version| version.lsn.get()).collect();
    assert_eq!(lsns, [2, 5]);
}

#[test]
fn a_backup_does_without_the_snapshots_and_points_that_expire_meanwhile() {
    let disk = SimFs::new();
    let (gate, fs) = Gate::before(disk.clone());
    let store = Arc::new(open(fs, 3));
    put(&store, 0..5);
    for (name, lsn) in [("second", 2), ("third", 3)] {
        store.pin(name, &Target::Lsn(Lsn::new(lsn)), None).unwrap();
    }
    let writer = Arc::clone(&store);
    let report = during(
        gate,
        || store.backup(Path::new(BACKUP)).unwrap(),
        move || {
            put(&writer, 5..9);
            writer.unpin("third").unwrap();
        },
    );
    // The copy of snapshot 4 had begun.
    let backup = open_backup(&disk);
    assert_eq!(moments(&backup), [2, 4, 5]);
    let names: Vec<String> = backup.points().unwrap().into_iter().map(|point| point.name).collect();
    assert_eq!(names, ["second"]);
    assert_eq!((report.files, report.files_copied), (3, 3));
}

#[test]
fn a_call_that_a_close_overtakes_ends() {
    let disk = SimFs::new();
    let (gate, fs) = Gate::before(disk.clone());
    let store = Arc::new(open(fs, 9));
    put(&store, 0..4);
    let closing = Arc::clone(&store);
    let history = during(
        gate,
        || store.history(b"k"),
        move || {
            closing.close().unwrap();
            // The next owner keeps no past states.
            open(Arc::new(disk), 0);
        },
    );
    assert!(matches!(history, Err(Error::Closed)), "{history:?}");
}

#[test]
fn a_call_opens_few_files_at_a_time() {
    type Call = fn(&NaiveEngine) -> Result<()>;
    let calls: [(&str, Call); 2] = [
        ("history", |store| store.history(b"k").map(drop)),
        ("backup", |store| store.backup(Path::new(BACKUP)).map(drop)),
    ];
    for (name, call) in calls {
        let disk = SimFs::new();
        let (gate, fs) = Gate::before(disk.clone());
        let store = open(fs, 50);
        put(&store, 0..30);
        let before = disk.open_handles();
        gate.shut(|kind| kind == OpKind::Read);
        let most = thread::scope(|scope| {
            let gate = gate;
            let call = scope.spawn(|| call(&store).unwrap());
            let mut most = 0;
            while !call.is_finished() {
                if let Some(stop) = gate.stop(Duration::from_millis(20)) {
                    most = most.max(disk.open_handles());
                    gate.release(&stop);
                }
            }
            most
        });
        // Directory, lock, source and copy of a backup, and its newest snapshot.
        assert!((before + 1..=before + 6).contains(&most), "{name}: {most} handles, {before} before it");
    }
}
