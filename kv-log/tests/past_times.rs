//! Times lead to the changes that an opening found after a death or a power cut.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::fs::FsExt;
use kv_core::{
    Background, Clock, Engine, Env, Error, KeepPast, Lsn, Manual, ManualClock, Never, PointInTime, Target,
};
use kv_log::{LogEngine, Options};
use kv_tests::sim::{PowerCut, SimFs};
use kv_wal_format::{RecordKind, Scanner};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/store";

/// All changes fit one segment.
const SEGMENT: usize = 2048;

/// Number of changes that the dead process made.
const CHANGES: u32 = 12;
const LAST: Lsn = Lsn::new(CHANGES as u64);

fn clock_at(unix_ms: u64) -> Arc<ManualClock> {
    Arc::new(ManualClock::new(unix_ms))
}

fn try_open(disk: &SimFs, clock: Arc<ManualClock>, segment_bytes: usize) -> kv_core::Result<LogEngine> {
    let clock = clock as Arc<dyn Clock>;
    let env = Env { fs: Arc::new(disk.clone()), clock, background: Background::Inline };
    let options = Options {
        segment_bytes,
        persistence: Arc::new(Manual),
        compaction: Arc::new(Never),
        retention: Arc::new(KeepPast::all()),
        ..Options::default()
    };
    LogEngine::open_in(Path::new(DIR), &env, options)
}

fn open(disk: &SimFs, unix_ms: u64) -> LogEngine {
    try_open(disk, clock_at(unix_ms), SEGMENT).unwrap()
}

fn put(store: &LogEngine, keys: Range<u32>) {
    for key in keys {
        store.put(&key.to_be_bytes(), &[7; 100]).unwrap();
    }
}

/// The state that a time leads to.
fn state_at(store: &LogEngine, unix_ms: u64) -> Lsn {
    store.plan(&Target::UnixMs(unix_ms)).unwrap().moment.lsn
}

/// Number of marks in the files.
fn marks(disk: &SimFs) -> usize {
    let files = disk.files();
    let segments = files.iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "segment"));
    let marks_of = |bytes: &[u8]| {
        let records = Scanner::open(bytes).unwrap().1;
        records.filter(|(_, record)| record.kind == RecordKind::Mark).count()
    };
    segments.map(|(_, bytes)| marks_of(bytes)).sum()
}

/// Where the changes of the dead process are. No mark dates them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    InMemory,
    /// In a file that ends with them.
    InFile,
    /// In a file, and torn bytes follow.
    BeforeTornBytes,
}

const ALL: [Left; 3] = [Left::InMemory, Left::InFile, Left::BeforeTornBytes];

/// What a process leaves that dies, or loses power, 1000 ms after the epoch.
fn left(left: Left) -> SimFs {
    let disk = SimFs::new();
    let store = open(&disk, 1000);
    put(&store, 0..CHANGES);
    if left == Left::InMemory {
        return disk.process_death();
    }
    // The flusher writes whole sectors and the rest of the changes, and a mark. Its sync fails.
    disk.cut_after(disk.mutations() + 2);
    store.sync().unwrap_err();
    let disk = disk.power_cut(PowerCut::KEEP_ALL);
    let path = Path::new(DIR).join(format!("{:016x}.segment", 1));
    let mut bytes = disk.read_file(&path).unwrap();
    let records = Scanner::open(&bytes).unwrap().1;
    let changes: Vec<_> = records.filter(|(_, record)| record.kind.is_change()).collect();
    assert_eq!(changes.len(), CHANGES as usize);
    let end = changes.last().unwrap().0.end;
    bytes.truncate(end);
    if left == Left::BeforeTornBytes {
        bytes.extend([7; 100]);
    }
    disk.damage(&path, Some(bytes));
    disk
}

#[test]
fn a_power_cut_leaves_the_time_that_an_opening_gave() {
    for how in ALL {
        let disk = left(how);
        // The power cut comes before the engine is dropped, which closes it.
        let store = open(&disk, 2000);
        assert_eq!(store.last_lsn(), LAST);
        let mut disk = disk.power_cut(PowerCut::LOSE_ALL);
        // No opening dates them again.
        for _ in 0..3 {
            assert_eq!(marks(&disk), 1, "{how:?}");
            let store = open(&disk, 3000);
            assert_eq!(store.last_lsn(), LAST);
            disk = disk.power_cut(PowerCut::LOSE_ALL);
        }
        let store = open(&disk, 4000);
        put(&store, CHANGES..CHANGES + 1);
        let states = [1999, 2000, 3999].map(|time| state_at(&store, time));
        assert_eq!(states, [Lsn::ZERO, LAST, LAST], "{how:?}");
    }
}

/// The manifest may say that they are durable, and their mark is lost.
#[test]
fn the_next_opening_dates_the_changes_if_a_power_cut_ends_the_first_one() {
    for how in ALL {
        for count in 0.. {
            let disk = left(how);
            disk.cut_after(disk.mutations() + count);
            let answer = try_open(&disk, clock_at(2000), SEGMENT);
            let disk = disk.power_cut(PowerCut::seeded(count));
            let store = open(&disk, 3000);
            let last = store.last_lsn();
            let disk = disk.power_cut(PowerCut::LOSE_ALL);
            let store = open(&disk, 4000);
            put(&store, CHANGES..CHANGES + 1);
            assert_eq!(state_at(&store, 3000), last, "{how:?} {count}");
            if answer.is_ok() {
                assert!(last == LAST && count > 5, "{how:?} {count}");
                break;
            }
        }
    }
}

/// A power cut may leave a file without the space that was reserved for a mark. The file may be
/// longer than the segments that the options ask for.
#[test]
fn an_opening_on_a_full_disk_dates_the_changes() {
    for segment_bytes in [SEGMENT, SEGMENT / 2] {
        let mut opened = 0;
        for room in (0..4096).step_by(4) {
            let disk = left(Left::InFile);
            let used: usize = disk.files().iter().map(|(_, bytes)| bytes.len()).sum();
            disk.limit_space(Some((used + room) as u64));
            let clock = clock_at(2000);
            match try_open(&disk, Arc::clone(&clock), segment_bytes) {
                Ok(store) => {
                    clock.advance(Duration::from_secs(1));
                    assert_eq!(state_at(&store, 2000), LAST, "{segment_bytes} {room}");
                    opened += 1;
                }
                Err(error) => assert!(matches!(error, Error::DiskFull { .. }), "{error}"),
            }
        }
        assert!(opened > 100, "{segment_bytes} {opened}");
    }
}
