//! Recovery of kv-log: torn and damaged files, and the state after a crash.

#![allow(clippy::disallowed_methods, reason = "the tests look at, copy and damage the files of a store")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod store_files;

use kv_core::fs::FsExt;
use kv_core::{
    Always, Background, Compact, Engine, EngineExt, Env, Error, Manual, ManualClock, MaxLogSize, Never,
};
use kv_log::{LogEngine, OnRecovery, OnRequest, Options};
use kv_tests::sim::{PowerCut, SimFs};
use kv_wal_format::{Encoder, Record, SMALL_HEADER_LEN, Scanner, Seal, StopReason};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use store_files::{copy_store, segment_files, small};

#[test]
fn survives_reopening_with_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = BTreeMap::new();
    for round in 0..4u32 {
        let store = LogEngine::open(dir.path(), small(MaxLogSize::new(1000))).unwrap();
        assert_eq!(store.to_sorted_vec().unwrap(), model.clone().into_iter().collect::<Vec<_>>());
        for i in 0..500u32 {
            let key = (i * 7 % 101).to_be_bytes().to_vec();
            if (i + round) % 5 == 0 {
                assert_eq!(store.delete(&key).unwrap().is_some(), model.remove(&key).is_some());
            } else {
                let value = vec![u8::try_from(round).unwrap(); (i % 64) as usize];
                store.put(&key, &value).unwrap();
                model.insert(key, value);
            }
        }
        store.close().unwrap();
    }
    let store = LogEngine::open(dir.path(), small(Manual)).unwrap();
    assert_eq!(store.to_sorted_vec().unwrap(), model.into_iter().collect::<Vec<_>>());
    let stats = store.stats();
    assert_eq!(stats.recovery.torn_bytes, 0);
    assert!(stats.recovery.records > 0 && stats.segments > 1, "{stats:?}");
}

#[test]
fn recovery_tells_how_it_gets_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { checkpoint: Arc::new(OnRequest), ..small(MaxLogSize::new(1000)) };
    let store = LogEngine::open(dir.path(), options).unwrap();
    for number in 0..500u32 {
        store.put(&number.to_be_bytes(), &[7; 40]).unwrap();
    }
    store.close().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let on_recovery = Some(OnRecovery::new(move |progress| tell.lock().unwrap().push(progress)));
    let store = LogEngine::open(dir.path(), Options { on_recovery, ..small(Manual) }).unwrap();
    let (told, report) = (told.lock().unwrap().clone(), store.recovery_report());
    assert_eq!(told.len() as u64, report.files);
    assert!(told.is_sorted_by_key(|progress| (progress.files, progress.bytes, progress.records)));
    let last = told.last().unwrap();
    assert_eq!((last.files, last.files_total), (report.files, report.files));
    assert_eq!((last.bytes, last.records, last.bytes_left), (report.bytes, 500, 0));
    assert!(told.is_sorted_by(|before, after| before.bytes_left >= after.bytes_left));
    let middle = told[told.len() / 2];
    let estimate = middle.bytes + middle.bytes_left;
    assert!(estimate.abs_diff(report.bytes) < report.bytes / 10, "{estimate} of {}", report.bytes);
}

/// A store that was killed after `sync` and some more writes, as its files were at that moment.
fn killed(dir: &Path) -> (std::path::PathBuf, BTreeMap<Vec<u8>, Vec<u8>>) {
    let (live, dead) = (dir.join("live"), dir.join("dead"));
    // Without threads: the files must not change while the test copies them.
    let env = Env { background: Background::Inline, ..Env::os() };
    let store = LogEngine::open_in(&live, &env, small(Manual)).unwrap();
    let mut model = BTreeMap::new();
    for round in [0, 40] {
        for key in 0..150u8 {
            store.put(&[key], &vec![key; round]).unwrap();
            model.insert(vec![key], vec![key; round]);
        }
    }
    store.sync().unwrap();
    store.put(b"more", b"").unwrap();
    store.sync().unwrap();
    model.insert(b"more".to_vec(), vec![]);
    copy_store(&live, &dead);
    (dead, model)
}

#[test]
fn every_damaged_byte_is_noticed_or_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let (dead, model) = killed(dir.path());
    let model: Vec<_> = model.into_iter().collect();
    let last = model.iter().position(|(key, _)| key == b"more").unwrap();
    let mut without_last = model.clone();
    without_last.remove(last);
    for file in fs::read_dir(&dead).unwrap().map(|entry| entry.unwrap()) {
        let whole = fs::read(file.path()).unwrap();
        for at in (0..whole.len()).step_by(if whole.len() > 2000 { 13 } else { 3 }) {
            let damaged = dir.path().join("damaged");
            let _ = fs::remove_dir_all(&damaged);
            copy_store(&dead, &damaged);
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(damaged.join(file.file_name()), bytes).unwrap();
            match LogEngine::open(&damaged, small(Manual)) {
                Ok(store) => {
                    let state = store.to_sorted_vec().unwrap();
                    // Damage to the last dump before a kill looks like a torn write.
                    assert!(state == model || state == without_last, "{file:?} byte {at}");
                }
                Err(Error::Corruption { path, .. }) => assert!(path.starts_with(&damaged)),
                Err(Error::UnsupportedVersion { .. }) => {}
                Err(other) => panic!("{file:?} byte {at}: {other}"),
            }
        }
    }
}

#[test]
fn after_a_clean_close_every_lost_byte_of_the_log_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path().join("store"), small(Manual)).unwrap();
    for key in 0..100u8 {
        store.put(&[key], &[key; 40]).unwrap();
    }
    store.close().unwrap();
    let files = segment_files(&dir.path().join("store"));
    assert!(files.len() > 1);
    for file in &files {
        let whole = fs::read(file).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
        for len in (0..used).step_by(37) {
            fs::write(file, &whole[..len]).unwrap();
            let error = LogEngine::open(dir.path().join("store"), small(Manual)).unwrap_err();
            assert!(matches!(&error, Error::Corruption { path, .. } if path == file), "{len}: {error}");
        }
        fs::write(file, &whole).unwrap();
    }
    for file in &files {
        let whole = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        let error = LogEngine::open(dir.path().join("store"), small(Manual)).unwrap_err();
        assert!(matches!(&error, Error::Corruption { path, .. } if path == file), "{error}");
        fs::write(file, &whole).unwrap();
    }
    assert_eq!(LogEngine::open(dir.path().join("store"), small(Manual)).unwrap().stats().keys, 100);
}

#[test]
fn a_torn_tail_is_cut_at_every_byte_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (dead, model) = killed(dir.path());
    let holds_more =
        |path: &std::path::PathBuf| fs::read(path).unwrap().windows(4).any(|bytes| bytes == b"more");
    let newest = segment_files(&dead).into_iter().find(holds_more).unwrap();
    let whole = fs::read(&newest).unwrap();
    // The last synced dump: a record with a small header and this key, and a mark.
    let key = whole.windows(4).position(|bytes| bytes == b"more").unwrap();
    for cut in key + 1 - SMALL_HEADER_LEN..key + 4 {
        let torn = dir.path().join("torn");
        let _ = fs::remove_dir_all(&torn);
        copy_store(&dead, &torn);
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        fs::write(torn.join(newest.file_name().unwrap()), bytes).unwrap();
        let last_before = {
            let store = LogEngine::open(&torn, small(Manual)).unwrap();
            assert!(store.stats().recovery.torn_bytes > 0, "cut {cut}");
            assert_eq!(store.get(b"more").unwrap(), None, "cut {cut}");
            assert_eq!(store.stats().keys, model.len() as u64 - 1);
            store.put(b"again", b"x").unwrap()
        };
        let store = LogEngine::open(&torn, small(Manual)).unwrap();
        assert_eq!(store.get(b"again").unwrap().as_deref(), Some(b"x".as_slice()));
        assert_eq!((store.get(b"more").unwrap(), store.last_lsn()), (None, last_before));
        assert_eq!(store.stats().keys, model.len() as u64);
    }
}

#[test]
fn compacting_right_after_a_crash_ends_and_invents_no_lsn() {
    let dir = tempfile::tempdir().unwrap();
    let (dead, model) = killed(dir.path());
    let last = {
        let store = LogEngine::open(&dead, small(Manual)).unwrap();
        let last = store.last_lsn();
        // Something to compact, and not one change since the crash.
        store.compact().unwrap();
        assert_eq!((store.last_lsn(), store.durable_lsn()), (last, last));
        last
    };
    let store = LogEngine::open(&dead, small(Manual)).unwrap();
    assert_eq!(store.last_lsn(), last, "a seal or mark was given an LSN that no change has");
    assert_eq!(store.stats().keys, model.len() as u64);
}

#[test]
fn a_log_cut_at_its_last_record_opens_with_smaller_segments() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = LogEngine::open(dir.path(), Options { segment_bytes: 64 << 10, ..small(Always) }).unwrap();
    for number in 0..40u32 {
        store.put(&number.to_be_bytes(), &[7; 100]).unwrap();
    }
    copy_store(dir.path(), copy.path());
    // The length of a file need not survive with its data: here it ends with the last record.
    let head = segment_files(copy.path()).pop().unwrap();
    let bytes = fs::read(&head).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    fs::write(&head, &bytes[..end]).unwrap();
    let reopened = LogEngine::open(copy.path(), Options { segment_bytes: 1024, ..small(Always) }).unwrap();
    assert_eq!(reopened.stats().keys, 40);
    reopened.put(b"more", &[8; 500]).unwrap();
    reopened.close().unwrap();
    assert_eq!(LogEngine::open(copy.path(), small(Always)).unwrap().stats().keys, 41);
}

/// An older state of the file, which is complete in itself.
#[test]
fn a_seal_in_front_of_what_is_known_to_be_durable_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), small(Manual)).unwrap();
    let first = store.put(b"first", b"1").unwrap();
    store.put(b"second", b"2").unwrap();
    store.close().unwrap();
    drop(store);
    let path = segment_files(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let (header, mut scanner) = Scanner::open(&bytes).unwrap();
    let end = scanner.find(|(_, record)| record.lsn == first.get()).unwrap().0.end;
    let seal = Seal { records: 1, max_lsn: first.get() }.encode_body();
    let rest = &mut bytes[end..];
    rest.fill(0);
    Encoder::new(header.origin()).encode(&Record::seal(first.get(), &seal), rest).unwrap();
    fs::write(&path, &bytes).unwrap();
    let error = LogEngine::open(dir.path(), small(Manual)).unwrap_err();
    assert!(matches!(&error, Error::Corruption { path: found, .. } if *found == path), "{error}");
}

/// A crash may keep the seal of a segment, and lose the trim that follows it.
#[test]
fn the_space_behind_a_seal_comes_back_after_a_crash() {
    let open = |disk: &SimFs| {
        let clock = Arc::new(ManualClock::new(0));
        let env = Env { fs: Arc::new(disk.clone()), clock, background: Background::Inline };
        let compaction = Arc::new(Never);
        let options = Options { segment_bytes: 64 << 10, compaction, ..small(Manual) };
        LogEngine::open_in(Path::new("/store"), &env, options).unwrap()
    };
    let first = Path::new("/store").join(format!("{:016x}.segment", 1));
    let mut crashes_behind_the_seal = 0;
    for count in 0.. {
        let disk = SimFs::new();
        let store = open(&disk);
        store.put(b"k", &[7; 100]).unwrap();
        store.sync().unwrap();
        disk.cut_after(disk.mutations() + count);
        let is_done = store.compact().is_ok();
        for disk in [disk.process_death(), disk.power_cut(PowerCut::KEEP_ALL)] {
            let store = open(&disk);
            assert_eq!(store.get(b"k").unwrap().as_deref(), Some([7; 100].as_slice()));
            let bytes = disk.read_file(&first).unwrap();
            let stop = Scanner::open(&bytes).unwrap().1.stop();
            if stop.reason == StopReason::Sealed {
                let durable = disk.power_cut(PowerCut::LOSE_ALL).read_file(&first).unwrap();
                assert_eq!((bytes.len(), durable.len()), (stop.offset, stop.offset), "{count}");
                crashes_behind_the_seal += 1;
            }
        }
        if is_done {
            break;
        }
    }
    assert!(crashes_behind_the_seal > 2, "{crashes_behind_the_seal}");
}
