//! Past states: what the conformance suite cannot see. Damage, closed stores, full disks, and reads
//! beside writers and compaction.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

use kv_core::fs::FsExt;
use kv_core::{
    Background, Compact, Engine, EngineExt, Env, Error, Fs, KeepPast, Lsn, Manual, ManualClock, MaxLogSize,
    PointInTime, RetentionPolicy, Target,
};
use kv_log::inspect::{ClosedPast, SegmentState, examine, silently};
use kv_log::{LogEngine, Options};
use kv_tests::sim::SimFs;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const DIR: &str = "/store";

type State = BTreeMap<Vec<u8>, Vec<u8>>;

fn env(disk: &SimFs) -> Env {
    Env { fs: Arc::new(disk.clone()), clock: Arc::new(ManualClock::new(0)), background: Background::Inline }
}

fn keeping(retention: impl RetentionPolicy + 'static) -> Options {
    Options {
        segment_bytes: 2048,
        persistence: Arc::new(MaxLogSize::new(500)),
        retention: Arc::new(retention),
        ..Options::default()
    }
}

fn open(disk: &SimFs, retention: impl RetentionPolicy + 'static) -> kv_core::Result<LogEngine> {
    LogEngine::open_in(Path::new(DIR), &env(disk), keeping(retention))
}

fn content(store: &dyn Engine) -> State {
    store.to_sorted_vec().unwrap().into_iter().collect()
}

/// Overwrites and deletes a few keys, and compacts now and then. Adds the state after each change.
fn churn(store: &LogEngine, states: &mut Vec<(Lsn, State)>, count: usize) {
    for number in 0..count {
        let mut state = states.last().map(|(_, state)| state.clone()).unwrap_or_default();
        let key = vec![u8::try_from(number * 7 % 11).unwrap()];
        let lsn = if number % 5 == 4 && state.remove(&key).is_some() {
            store.delete(&key).unwrap().unwrap()
        } else {
            let value = vec![u8::try_from(number % 251).unwrap(); 60];
            state.insert(key.clone(), value.clone());
            store.put(&key, &value).unwrap()
        };
        states.push((lsn, state));
        if number % 60 == 59 {
            store.compact().unwrap();
        }
    }
}

/// A closed store with archived segments, and its states.
fn closed() -> (SimFs, Vec<(Lsn, State)>) {
    let (disk, mut states) = (SimFs::new(), Vec::new());
    let store = open(&disk, KeepPast::all()).unwrap();
    churn(&store, &mut states, 200);
    assert!(store.stats().past_bytes > 0);
    store.close().unwrap();
    (disk, states)
}

fn segments(disk: &SimFs, state: SegmentState) -> Vec<PathBuf> {
    let found = examine(&env(disk), Path::new(DIR), false, &silently).unwrap();
    let files = found.segments.iter().filter(|segment| segment.state == state);
    files.map(|segment| Path::new(DIR).join(format!("{:016x}.segment", segment.id.get()))).collect()
}

fn flip(disk: &SimFs, path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = disk.read_file(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 1;
    disk.damage(path, Some(bytes));
}

#[test]
fn a_closed_store_shows_every_state_that_the_open_one_shows() {
    let (disk, states) = closed();
    let past = ClosedPast::open(&env(&disk), Path::new(DIR)).unwrap();
    assert!(!segments(&disk, SegmentState::Archived).is_empty());
    assert_eq!(past.window().unwrap().last_lsn, states.last().unwrap().0);
    for (lsn, state) in &states {
        let found = past.read_at(&Target::Lsn(*lsn)).unwrap();
        assert_eq!((found.moment.lsn, content(&*found.engine)), (*lsn, state.clone()), "LSN {lsn}");
    }
    let (lsn, state) = &states[50];
    let into = Path::new("/restored");
    past.restore(&Target::Lsn(*lsn), into).unwrap();
    assert!(matches!(past.pin("p", &Target::Lsn(*lsn), None), Err(Error::ReadOnly)));
    let restored = LogEngine::open_in(into, &env(&disk), keeping(KeepPast::all())).unwrap();
    assert_eq!(content(&restored), *state);
    let before = restored.window().unwrap().first_lsn;
    assert_eq!(before, *lsn, "the window of a restored store begins at its state");
}

/// Also if files are damaged that only some of the states need.
#[test]
fn a_past_value_is_that_of_the_past_state() {
    let (disk, states) = closed();
    let archived = segments(&disk, SegmentState::Archived);
    let (damaged, mut found, mut lost) = (&archived[archived.len() / 2], 0, 0);
    for is_damaged in [false, true] {
        if is_damaged {
            flip(&disk, damaged, |len| len / 2);
        }
        let past = ClosedPast::open(&env(&disk), Path::new(DIR)).unwrap();
        for (lsn, state) in &states {
            let (target, is_readable) = (Target::Lsn(*lsn), past.read_at(&Target::Lsn(*lsn)).is_ok());
            for key in 0..12_u8 {
                match past.value_at(&target, &[key]) {
                    Ok(value) => {
                        assert_eq!(value.as_deref(), state.get(&[key][..]).map(Vec::as_slice), "LSN {lsn}");
                        assert!(is_readable);
                        found += u32::from(is_damaged);
                    }
                    Err(error) => {
                        assert!(matches!(error, Error::Corruption { .. }) && !is_readable, "{error}");
                        lost += 1;
                    }
                }
            }
        }
        let beyond = past.value_at(&Target::Lsn(states.last().unwrap().0.next()), &[0]);
        assert!(matches!(beyond, Err(Error::OutsideWindow { .. })));
    }
    assert!(found > 0 && lost > 0, "found {found}, lost {lost}");
}

#[test]
fn a_restore_tells_its_progress_and_whoever_hears_it_can_end_it() {
    let (disk, states) = closed();
    let past = ClosedPast::open(&env(&disk), Path::new(DIR)).unwrap();
    let target = Target::Lsn(states[150].0);
    // Restores into `into` until the call number `last` ends it, and returns the calls.
    let restore = |into: &str, last: usize| {
        let told = Mutex::new(Vec::new());
        let answer = past.restore_observed(&target, Path::new(into), &|progress| {
            let mut told = told.lock().unwrap();
            told.push(progress);
            if told.len() > last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (answer, told.into_inner().unwrap())
    };
    let (answer, told) = restore("/restored", usize::MAX);
    answer.unwrap();
    let plan = past.plan(&target).unwrap();
    assert_eq!(told.first().unwrap().bytes_total, plan.bytes);
    let last = told.last().unwrap();
    assert!(told.len() as u64 > plan.files && last.bytes_total > plan.bytes, "it reads, and then writes");
    assert_eq!(last.bytes, last.bytes_total);
    for step in 0..told.len() - 1 {
        let into = format!("/ended-{step}");
        let (answer, heard) = restore(&into, step);
        assert!(answer.unwrap_err().to_string().contains("interrupted"), "step {step}");
        assert_eq!(heard.len(), step + 1);
        let left = disk.list_if_exists(Path::new(&into)).unwrap().unwrap_or_default();
        assert!(left.iter().all(|name| name == "LOCK"), "step {step} leaves {left:?}");
    }
    let (answer, told) = restore("/restored", usize::MAX);
    assert!(
        matches!(answer, Err(Error::InvalidArgument(_))) && told.is_empty(),
        "the directory is not empty"
    );
}

#[test]
fn without_an_orderly_close_the_window_ends_at_the_last_change_that_is_there() {
    let (disk, mut states) = (SimFs::new(), Vec::new());
    let store = open(&disk, KeepPast::all()).unwrap();
    churn(&store, &mut states, 100);
    store.sync().unwrap();
    let left = disk.process_death();
    let past = ClosedPast::open(&env(&left), Path::new(DIR)).unwrap();
    let (lsn, state) = states.last().unwrap();
    assert_eq!(past.window().unwrap().last_lsn, *lsn);
    assert_eq!(content(&*past.read_at(&Target::Lsn(*lsn)).unwrap().engine), *state);
}

#[test]
fn a_store_that_no_longer_opens_can_be_restored_to_before_its_damage() {
    let (disk, states) = closed();
    let active = segments(&disk, SegmentState::Active).pop().unwrap();
    // Its first record.
    flip(&disk, &active, |_| 50);
    assert!(matches!(open(&disk, KeepPast::all()), Err(Error::Corruption { .. })));
    let past = ClosedPast::open(&env(&disk), Path::new(DIR)).unwrap();
    let last = past.window().unwrap().last_lsn;
    let newest = states.last().unwrap().0;
    assert!(last < newest, "the window ends at LSN {last}, before the damage");
    let beyond = past.restore(&Target::Lsn(newest), Path::new("/restored"));
    assert!(matches!(beyond, Err(Error::OutsideWindow { .. })), "{beyond:?}");
    let (_, state) = states.iter().rfind(|(lsn, _)| *lsn <= last).unwrap();
    past.restore(&Target::Lsn(last), Path::new("/restored")).unwrap();
    let restored = LogEngine::open_in(Path::new("/restored"), &env(&disk), keeping(KeepPast::all())).unwrap();
    assert_eq!(content(&restored), *state);
}

#[test]
fn damage_in_the_archive_is_found_and_named_and_the_store_opens() {
    let (image, states) = closed();
    for file in segments(&image, SegmentState::Archived) {
        for missing in [false, true] {
            let disk = image.process_death();
            if missing {
                disk.damage(&file, None);
            } else {
                flip(&disk, &file, |len| len / 2);
            }
            let found = examine(&env(&disk), Path::new(DIR), false, &silently).unwrap();
            assert_eq!(found.damages.len(), 1, "{}: {:?}", file.display(), found.damages);
            assert_eq!(found.damages[0].path, file);
            let store = open(&disk, KeepPast::all()).unwrap();
            assert_eq!(content(&store), states.last().unwrap().1);
            let (mut refused, mut reached) = (0, None);
            for (lsn, state) in &states {
                match store.read_at(&Target::Lsn(*lsn)) {
                    Ok(past) => {
                        assert_eq!(content(&*past.engine), *state, "LSN {lsn}");
                        reached = reached.or((refused > 0).then_some(*lsn));
                    }
                    Err(Error::Corruption { path, .. } | Error::Io { path, .. }) => {
                        assert_eq!(path, file);
                        assert_eq!(reached, None, "LSN {lsn} does not need {}", file.display());
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(refused > 0, "no state needs {}", file.display());
            assert!(reached.is_some(), "the states after {} was replaced are lost", file.display());
        }
    }
}

#[test]
fn a_full_disk_takes_the_window_before_it_refuses_a_change() {
    for (retention, stays) in [(KeepPast::all(), false), (KeepPast::all().stays_on_full_disk(), true)] {
        let (disk, mut states) = (SimFs::new(), Vec::new());
        let store = open(&disk, retention).unwrap();
        churn(&store, &mut states, 900);
        let (window, past_bytes) = (store.window().unwrap(), store.stats().past_bytes);
        // Enough for the steps of the changes below.
        assert!(past_bytes > 20_000, "{past_bytes}");
        disk.limit_space(Some(disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum()));
        // The data do not grow.
        let refused = (0..100).find_map(|number: u8| store.put(&[number % 11], &[number; 60]).err());
        let (after, left) = (store.window().unwrap(), store.stats().past_bytes);
        if stays {
            assert!(matches!(refused, Some(Error::DiskFull { .. })), "{refused:?}");
            assert_eq!((after.first_lsn, left >= past_bytes), (window.first_lsn, true));
        } else {
            assert!(refused.is_none(), "{refused:?}");
            assert!(after.first_lsn > window.first_lsn && left < past_bytes, "{after} {left}");
        }
    }
}

#[test]
fn a_full_disk_leaves_a_window_whose_space_a_backup_holds() {
    let (disk, mut states) = (SimFs::new(), Vec::new());
    let store = open(&disk, KeepPast::all()).unwrap();
    churn(&store, &mut states, 300);
    store.close().unwrap();
    let store = open(&disk, KeepPast::all()).unwrap();
    let report = store.backup(Path::new("/backup")).unwrap();
    let (window, past_bytes) = (store.window().unwrap(), store.stats().past_bytes);
    assert!(report.bytes_linked >= past_bytes && past_bytes > 0, "{report:?} {past_bytes}");
    // Each file counts once, however many names it has.
    let used = disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>() - report.bytes_linked;
    disk.limit_space(Some(used));
    let refused = (0..500_u16).find_map(|number| store.put(&number.to_be_bytes(), &[1; 60]).err());
    assert!(matches!(refused, Some(Error::DiskFull { .. })), "{refused:?}");
    assert_eq!(store.window().unwrap().first_lsn, window.first_lsn);
    disk.move_dir(Path::new("/backup"), None).unwrap();
    store.put(&[1; 2], &[2; 60]).unwrap();
    let (after, left) = (store.window().unwrap(), store.stats().past_bytes);
    assert!(after.first_lsn > window.first_lsn && left < past_bytes, "{after} {left}");
}

#[test]
fn what_has_expired_leaves_the_disk() {
    let (disk, mut states) = (SimFs::new(), Vec::new());
    let bytes = |disk: &SimFs| disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    let store = open(&disk, KeepPast::all()).unwrap();
    churn(&store, &mut states, 200);
    store.close().unwrap();
    let (before, past_bytes) = (bytes(&disk), store.stats().past_bytes);
    let store = open(&disk, kv_core::KeepNothing).unwrap();
    store.compact().unwrap();
    store.close().unwrap();
    let after = bytes(&disk);
    assert!(after + past_bytes <= before + 4096, "{before} {past_bytes} {after}");
    assert_eq!(store.stats().past_bytes, 0);
}

#[test]
fn the_files_of_states_that_expire_leave_the_disk_at_once() {
    let (disk, clock) = (SimFs::new(), Arc::new(ManualClock::new(0)));
    let env = Env { clock: clock.clone(), ..env(&disk) };
    let hour = Duration::from_hours(1);
    let store = LogEngine::open_in(Path::new(DIR), &env, keeping(KeepPast::of_time(hour))).unwrap();
    churn(&store, &mut Vec::new(), 200);
    // Until there is nothing to compact.
    while store.compact().unwrap().victims > 0 {}
    let files =
        || disk.files().iter().filter(|(path, _)| path.extension() == Some("segment".as_ref())).count();
    let (before, segments) = (files(), store.stats().segments);
    assert!(store.stats().past_bytes > 0 && before as u64 > segments, "{before} {segments}");
    clock.advance(hour);
    store.compact().unwrap();
    assert_eq!((store.stats().past_bytes, store.stats().leftover_files), (0, 0));
    assert_eq!(files() as u64, segments, "of {before}");
}

/// The values of two keys are always equal, because one batch writes both.
#[test]
fn a_past_state_is_whole_while_writers_and_compaction_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 4096,
        persistence: Arc::new(Manual),
        retention: Arc::new(KeepPast::all().bytes_max(20_000)),
        ..Options::default()
    };
    let store = LogEngine::open(dir.path(), options).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..3000_u32 {
                let mut batch = kv_core::Batch::new();
                let value = number.to_le_bytes().repeat(8);
                batch.put(b"one", &value).put(b"two", &value).put(&number.to_le_bytes(), b"");
                store.apply(&batch).unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                store.compact().unwrap();
            }
        });
        let mut rounds = 0;
        while !is_over.load(Ordering::SeqCst) || rounds == 0 {
            let newest = store.last_lsn();
            let window = store.window().unwrap();
            for lsn in [newest, Lsn::new(newest.get().midpoint(window.first_lsn.get()))] {
                let past = match store.read_at(&Target::Lsn(lsn)) {
                    Ok(past) => past.engine,
                    // The window has moved on, also beyond the LSN that was the newest.
                    Err(Error::OutsideWindow { .. }) => continue,
                    Err(error) => panic!("{error}"),
                };
                let (one, two) = (past.get(b"one").unwrap(), past.get(b"two").unwrap());
                assert_eq!(one, two, "LSN {lsn} shows a part of a batch");
                assert_eq!(past.stats().keys, if lsn == Lsn::ZERO { 0 } else { lsn.get() + 2 });
            }
            rounds += 1;
        }
    });
}

#[test]
fn a_restored_store_has_segments_of_a_fitting_size() {
    for (keys, count) in [(10_u32, 1..=1), (3000, 7..=10)] {
        let (disk, target) = (SimFs::new(), Target::Lsn(Lsn::new(keys.into())));
        let store = open(&disk, KeepPast::all()).unwrap();
        for key in 0..keys {
            store.put(&key.to_be_bytes(), &[7; 100]).unwrap();
        }
        let bytes = store.plan(&target).unwrap().bytes;
        store.restore(&target, Path::new("/restored")).unwrap();
        let files = disk.files();
        let restored = files.iter().filter(|(path, _)| {
            path.starts_with("/restored") && path.extension() == Some("segment".as_ref())
        });
        let lens: Vec<u64> = restored.map(|(_, file)| file.len() as u64).collect();
        assert!(count.contains(&lens.len()), "{lens:?} of {bytes}");
        assert!(lens.iter().all(|len| *len <= (bytes / 8).max(4096) + 64), "{lens:?} of {bytes}");
    }
}

#[test]
fn a_backup_goes_on_where_a_crash_left_only_the_beginning_of_its_mark() {
    let (disk, states) = closed();
    let past = ClosedPast::open(&env(&disk), Path::new(DIR)).unwrap();
    for (other, is_refused) in [("letter", true), ("LOCK", false)] {
        let into = PathBuf::from("/").join(other);
        disk.create_dir(&into).unwrap();
        for name in ["BACKUP.tmp", other] {
            disk.damage(&into.join(name), Some(Vec::new()));
        }
        let answer = past.backup(&into).map(|report| report.moment.lsn);
        assert_eq!(answer.is_err(), is_refused, "{answer:?}");
        if !is_refused {
            let (lsn, state) = states.last().unwrap();
            assert_eq!(answer.unwrap(), *lsn);
            let backup = ClosedPast::open(&env(&disk), &into).unwrap();
            assert_eq!(content(&*backup.read_at(&Target::Lsn(*lsn)).unwrap().engine), *state);
        }
    }
}
