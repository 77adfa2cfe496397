//! Examination and repair of damaged stores.

#![allow(clippy::disallowed_methods, reason = "the tests look at, copy and damage the files of a store")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod store_files;

use kv_core::{Background, Batch, Compact, Engine, EngineExt, Env, Error, Manual, ManualClock, SegmentId};
use kv_log::inspect::{self, Examination, FileRole, Part, Repair, SegmentState};
use kv_log::{LogEngine, Options};
use kv_tests::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use kv_wal_format::{Record, SEGMENT_HEADER_LEN, Scanner, SegmentHeader};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store_files::{copy_store, segment_files, small};

fn examine(dir: &Path) -> Examination {
    inspect::examine(&Env::os(), dir, true, &inspect::silently).unwrap()
}

fn open(dir: &Path) -> LogEngine {
    LogEngine::open(dir, Options { create_if_missing: false, ..small(Manual) }).unwrap()
}

/// A directory with the store `src`, and room for the repaired one.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn src(&self) -> PathBuf {
        self.0.path().join("src")
    }

    fn dst(&self) -> PathBuf {
        self.0.path().join("dst")
    }

    /// A closed store of several segments with keys `k00` to `k99`.
    fn with_store() -> Self {
        let place = Place::new();
        let store = LogEngine::open(place.src(), small(Manual)).unwrap();
        for number in 0..100 {
            store.put(format!("k{number:02}").as_bytes(), &value(number)).unwrap();
        }
        store.close().unwrap();
        place
    }

    fn repair(&self) -> Repair {
        let before = contents(&self.src());
        let report = inspect::repair(&Env::os(), &self.src(), &self.dst(), &inspect::silently).unwrap();
        assert_eq!(contents(&self.src()), before, "the source stays as it is");
        report
    }

    /// The pairs of the repaired store.
    fn repaired(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let store = open(&self.dst());
        let pairs = store.to_sorted_vec().unwrap().into_iter().collect();
        store.close().unwrap();
        pairs
    }
}

fn value(number: usize) -> Vec<u8> {
    format!("value {number} {}", "x".repeat(150)).into_bytes()
}

/// Names and bytes of all files.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// The place of the record of `key` in a segment file.
fn place_of(path: &Path, key: &[u8]) -> (usize, usize) {
    let bytes = fs::read(path).unwrap();
    let (_, mut scanner) = Scanner::open(&bytes).unwrap();
    let (range, _) = scanner.find(|(_, record)| record.key == key).unwrap();
    (range.start, range.len())
}

/// The keys of a segment file.
fn keys_of(path: &Path) -> BTreeSet<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let (_, scanner) = Scanner::open(&bytes).unwrap();
    scanner.filter(|(_, record)| record.kind.is_change()).map(|(_, record)| record.key.to_vec()).collect()
}

#[test]
fn a_sound_store_is_described() {
    let place = Place::with_store();
    fs::write(place.src().join("notes"), b"abc").unwrap();
    let found = examine(&place.src());
    assert_eq!(found.damages, []);
    assert_eq!(found.keys, 100);
    assert_eq!(found.segments.len(), segment_files(&place.src()).len());
    assert_eq!(found.segments.iter().map(|segment| segment.puts).sum::<u64>(), 100);
    assert_eq!(found.segments.iter().map(|segment| segment.lsn_max).max(), Some(100));
    let store = open(&place.src());
    let live: u64 = found.segments.iter().map(|segment| segment.live_bytes).sum();
    store.close().unwrap();
    assert!(live > 100 * 160 && live < 100 * 200, "{live}");
    let states: Vec<_> = found.segments.iter().map(|segment| segment.state).collect();
    assert!(states[..states.len() - 1].iter().all(|state| *state == SegmentState::Sealed), "{states:?}");
    assert_eq!(states.last(), Some(&SegmentState::Active));
    let stray: Vec<_> = found.files.iter().filter(|file| file.role == FileRole::Stray).collect();
    assert!(stray.len() == 1 && stray[0].path.ends_with("notes") && stray[0].bytes == 3, "{stray:?}");
    let manifest = found.manifest.unwrap();
    assert_eq!((manifest.segments, manifest.durable_lsn), (found.segments.len() as u64, 100));
}

#[test]
fn a_store_that_was_not_closed_is_sound() {
    let place = Place::new();
    let store = LogEngine::open(place.src(), small(Manual)).unwrap();
    for number in 0..100 {
        store.put(format!("k{number:02}").as_bytes(), &value(number)).unwrap();
    }
    store.sync().unwrap();
    let error = inspect::examine(&Env::os(), &place.src(), false, &inspect::silently).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    let copy = place.0.path().join("copy");
    copy_store(&place.src(), &copy);
    let found = examine(&copy);
    assert_eq!(found.damages, []);
    assert!(found.segments.iter().any(|segment| segment.state == SegmentState::Spare));
    // Torn bytes behind the last sync.
    let active = found.segments.iter().find(|segment| segment.state == SegmentState::Active).unwrap();
    let path = copy.join(format!("{:016x}.segment", active.id.get()));
    let end = usize::try_from(active.used_bytes).unwrap();
    edit(&path, |bytes| bytes[end..end + 20].fill(1));
    let found = examine(&copy);
    assert_eq!(found.damages, []);
    assert!(found.segments.iter().any(|segment| segment.state == SegmentState::Torn));
    assert_eq!(open(&copy).to_sorted_vec().unwrap().len(), 100);
}

#[test]
fn a_damaged_body_costs_one_change_which_is_named() {
    let place = Place::with_store();
    let path = segment_files(&place.src())[1].clone();
    let key = keys_of(&path).into_iter().nth(3).unwrap();
    let (offset, len) = place_of(&path, &key);
    edit(&path, |bytes| bytes[offset + len / 2] ^= 1);
    let found = examine(&place.src());
    assert_eq!(found.damages.len(), 1, "{:?}", found.damages);
    let damage = &found.damages[0];
    assert_eq!((damage.path.clone(), damage.offset, damage.len), (path, offset as u64, len as u64));
    assert_eq!(damage.lost.named[0].key.as_deref(), Some(key.as_slice()));
    assert!(found.segments[1].state == SegmentState::Damaged);
    let report = place.repair();
    assert_eq!(report.damages, found.damages);
    assert_eq!((report.keys, report.stale.len()), (99, 1));
    assert_eq!((report.stale[0].key.clone(), report.stale[0].now), (key.clone(), None));
    let pairs = place.repaired();
    assert!(pairs.len() == 99 && !pairs.contains_key(&key));
    for number in 0..100 {
        let name = format!("k{number:02}").into_bytes();
        assert!(name == key || pairs[&name] == value(number));
    }
}

#[test]
fn values_keep_their_lsns_and_new_changes_get_higher_ones() {
    let place = Place::with_store();
    let path = segment_files(&place.src())[0].clone();
    edit(&path, |bytes| bytes[SEGMENT_HEADER_LEN + 30] ^= 1);
    let report = place.repair();
    assert_eq!(report.last_lsn.get(), 100);
    let store = open(&place.dst());
    assert_eq!(store.last_lsn().get(), 100);
    assert!(store.put(b"new", b"1").unwrap().get() > 100);
}

#[test]
fn the_newest_intact_change_wins_and_what_may_be_older_is_told() {
    let place = Place::new();
    let store = LogEngine::open(place.src(), small(Manual)).unwrap();
    let old = store.put(b"key", b"old").unwrap();
    store.put(b"gone", b"1").unwrap();
    store.put(b"back", b"1").unwrap();
    store.delete(b"gone").unwrap();
    store.put(b"key", b"new").unwrap();
    store.delete(b"back").unwrap();
    store.put(b"last", b"1").unwrap();
    store.close().unwrap();
    let path = segment_files(&place.src())[0].clone();
    let bytes = fs::read(&path).unwrap();
    let (_, scanner) = Scanner::open(&bytes).unwrap();
    let found: Vec<(Range<usize>, Record<'_>)> =
        scanner.filter(|(_, record)| [5, 6].contains(&record.lsn)).collect();
    edit(&path, |bytes| {
        for (range, _) in found.iter().filter(|(_, record)| record.kind.is_change()) {
            // Of the checksum, because a tombstone has no other byte than those of header and key.
            bytes[range.start + 10] ^= 1;
        }
    });
    let report = place.repair();
    let stale: Vec<_> = report.stale.iter().map(|one| (one.key.as_slice(), one.lost_lsn, one.now)).collect();
    assert_eq!(stale, [(b"back".as_slice(), 6, Some(3)), (b"key", 5, Some(old.get()))]);
    let pairs: Vec<_> = place.repaired().into_iter().collect();
    let pair = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    assert_eq!(pairs, [pair(b"back", b"1"), pair(b"key", b"old"), pair(b"last", b"1")]);
}

#[test]
fn a_batch_that_lost_a_member_is_lost_as_a_whole() {
    let place = Place::new();
    let store = LogEngine::open(place.src(), small(Manual)).unwrap();
    store.put(b"a", b"old").unwrap();
    let mut batch = Batch::new();
    batch.put(b"a", b"new").put(b"b", b"new").put(b"c", b"new");
    store.apply(&batch).unwrap();
    store.put(b"d", b"1").unwrap();
    store.close().unwrap();
    let path = segment_files(&place.src())[0].clone();
    let (offset, _) = place_of(&path, b"b");
    // The header, so that only its neighbours tell.
    edit(&path, |bytes| bytes[offset + 2] ^= 1);
    let report = place.repair();
    let stale: Vec<_> = report.stale.iter().map(|one| one.key.clone()).collect();
    assert_eq!(stale, [b"a".to_vec(), b"c".to_vec()]);
    assert!(report.unnamed_lsn_max.is_some());
    let keys: Vec<_> = place.repaired().into_iter().collect();
    assert_eq!(keys, [(b"a".to_vec(), b"old".to_vec()), (b"d".to_vec(), b"1".to_vec())]);
}

/// Each damage of a whole file: whether intact records are lost, and the change.
#[test]
fn every_intact_record_is_saved_from_every_kind_of_damage() {
    type Damage = fn(&Path, &[PathBuf]);
    let cases: [(&str, bool, Damage); 14] = [
        ("the manifest is missing", false, |dir, _| fs::remove_file(dir.join("MANIFEST")).unwrap()),
        ("the manifest is cut", false, |dir, _| edit(&dir.join("MANIFEST"), |bytes| bytes.truncate(100))),
        ("a bit of the manifest", false, |dir, _| edit(&dir.join("MANIFEST"), |bytes| bytes[70] ^= 1)),
        ("the header of a segment", false, |_, files| edit(&files[1], |bytes| bytes[20] ^= 1)),
        ("zeros for the header of a segment", false, |_, files| {
            edit(&files[1], |bytes| bytes[..SEGMENT_HEADER_LEN].fill(0));
        }),
        ("the base LSN in the header of a segment", false, |_, files| {
            edit(&files[1], |bytes| bytes[24..32].fill(0xff));
        }),
        ("the base LSN in the header of the last segment", false, |_, files| {
            edit(files.last().unwrap(), |bytes| bytes[24..32].fill(0xff));
        }),
        ("zeros for the header of the last segment", false, |_, files| {
            edit(files.last().unwrap(), |bytes| bytes[..SEGMENT_HEADER_LEN].fill(0));
        }),
        ("the seal of a segment", false, |_, files| {
            edit(&files[1], |bytes| {
                let last = bytes.len() - 20;
                bytes[last] ^= 1;
            });
        }),
        ("two files are exchanged", false, |dir, files| {
            fs::rename(&files[1], dir.join("x")).unwrap();
            fs::rename(&files[2], &files[1]).unwrap();
            fs::rename(dir.join("x"), &files[2]).unwrap();
        }),
        ("a segment is missing", true, |_, files| fs::remove_file(&files[1]).unwrap()),
        ("a segment is cut", true, |_, files| edit(&files[1], |bytes| bytes.truncate(2000))),
        ("a segment is empty", true, |_, files| edit(&files[1], Vec::clear)),
        ("a part of a segment is zero", true, |_, files| edit(&files[1], |bytes| bytes[1000..2000].fill(0))),
    ];
    for (what, loses, damage) in cases {
        let place = Place::with_store();
        let files = segment_files(&place.src());
        let hit = keys_of(&files[1]);
        damage(&place.src(), &files);
        let found = examine(&place.src());
        assert!(!found.damages.is_empty(), "{what}");
        let report = place.repair();
        assert!(!report.damages.is_empty(), "{what}");
        let pairs = place.repaired();
        for number in 0..100 {
            let key = format!("k{number:02}").into_bytes();
            match pairs.get(&key) {
                Some(found) => assert_eq!(*found, value(number), "{what}"),
                None => assert!(loses && hit.contains(&key), "{what}: {}", key.escape_ascii()),
            }
        }
        let lost = 100 - pairs.len();
        assert_eq!(lost > 0, loses, "{what}: {lost} lost");
        let named = report.stale.iter().filter(|one| one.now.is_none()).count();
        assert!(named == lost || report.unnamed_lsn_max.is_some(), "{what}: {report:?}");
        assert_eq!(examine(&place.dst()).damages, [], "{what}");
        if what.contains("cut") && loses {
            assert!(pairs.keys().filter(|key| hit.contains(*key)).count() > 3, "{what}");
        }
    }
}

/// Small record headers count LSNs from the base LSN in the segment header.
#[test]
fn a_segment_whose_base_lsn_nothing_tells_is_lost_and_told() {
    let place = Place::with_store();
    let path = segment_files(&place.src()).pop().unwrap();
    let hit = keys_of(&path);
    fs::remove_file(place.src().join("MANIFEST")).unwrap();
    edit(&path, |bytes| bytes[..SEGMENT_HEADER_LEN].fill(0));
    let found = examine(&place.src());
    assert_eq!(found.segments.last().unwrap().state, SegmentState::Damaged);
    let report = place.repair();
    assert_eq!(report.unnamed_lsn_max.map(kv_core::Lsn::get), Some(u64::MAX));
    assert!(place.repaired().keys().all(|key| !hit.contains(key)));
    assert_eq!(report.keys, 100 - hit.len() as u64);
    let (mut changes, mut lost) = (0, Vec::new());
    inspect::dump(&Env::os(), &place.src(), None, &mut |part| {
        match part {
            Part::Record { record, .. } => changes += u64::from(record.kind.is_change()),
            Part::Damage(damage) => lost.push((damage.path.clone(), damage.offset, damage.lost.others)),
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((changes, lost), (report.keys, vec![(path, 0, true)]));
}

#[test]
fn a_segment_that_the_manifest_does_not_name_takes_no_part_in_a_repair() {
    let place = Place::new();
    let store = LogEngine::open(place.src(), small(Manual)).unwrap();
    for number in 0..100 {
        store.put(format!("k{number:02}").as_bytes(), &value(number)).unwrap();
    }
    store.sync().unwrap();
    let old = segment_files(&place.src())[0].clone();
    let bytes = fs::read(&old).unwrap();
    for number in 0..100 {
        store.delete(format!("k{number:02}").as_bytes()).unwrap();
    }
    store.put(b"last", b"1").unwrap();
    store.sync().unwrap();
    store.compact().unwrap();
    store.close().unwrap();
    assert!(!old.exists(), "the tombstones are gone, too");
    fs::write(&old, bytes).unwrap();
    let found = examine(&place.src());
    assert_eq!((found.damages.len(), found.keys), (0, 1));
    assert_eq!(found.segments[0].state, SegmentState::Unnamed);
    let report = place.repair();
    assert!(!report.deleted_may_be_back && report.set_aside.len() == 1, "{report:?}");
    assert_eq!(place.repaired().len(), 1);
    // Without the manifest, the repair cannot tell.
    fs::remove_dir_all(place.dst()).unwrap();
    fs::remove_file(place.src().join("MANIFEST")).unwrap();
    let report = place.repair();
    assert!(report.deleted_may_be_back);
    assert!(place.repaired().len() > 1);
}

#[test]
fn a_segment_of_another_store_takes_no_part() {
    let (place, other) = (Place::with_store(), Place::with_store());
    let path = segment_files(&place.src())[1].clone();
    let hit = keys_of(&path);
    fs::copy(&segment_files(&other.src())[1], &path).unwrap();
    let report = place.repair();
    assert_eq!(report.set_aside.len(), 1);
    assert_eq!(report.unnamed_lsn_max.map(kv_core::Lsn::get), Some(u64::MAX));
    assert_eq!(place.repaired().len(), 100 - hit.len());
}

#[test]
fn a_manifest_that_is_too_old_is_damage_and_its_segments_are_saved() {
    let place = Place::new();
    let store = LogEngine::open(place.src(), small(Manual)).unwrap();
    store.put(b"a", b"1").unwrap();
    store.close().unwrap();
    let old = fs::read(place.src().join("MANIFEST")).unwrap();
    let store = open(&place.src());
    for number in 0..100 {
        store.put(format!("k{number:02}").as_bytes(), &value(number)).unwrap();
    }
    store.close().unwrap();
    fs::write(place.src().join("MANIFEST"), old).unwrap();
    assert!(!examine(&place.src()).damages.is_empty());
    let report = place.repair();
    assert!(report.deleted_may_be_back);
    assert_eq!(place.repaired().len(), 101);
}

#[test]
fn a_repair_that_does_not_end_leaves_no_store() {
    let place = Place::with_store();
    let stop = |_| ControlFlow::Break(());
    let error = inspect::repair(&Env::os(), &place.src(), &place.dst(), &stop).unwrap_err();
    assert!(error.to_string().contains("finish the work"), "{error}");
    // Stopped in the second pass, which has some files to go.
    let files = segment_files(&place.src()).len();
    for stop_at in [files, files + 1, files + 2] {
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let stop = |_| match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 {
            call if call >= stop_at => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        inspect::repair(&Env::os(), &place.src(), &place.dst(), &stop).unwrap_err();
        let left = contents(&place.dst());
        assert!(left.keys().all(|path| path.ends_with("LOCK")), "{left:?}");
    }
    // A process that died left the mark and segments.
    copy_store(&place.src(), &place.dst());
    fs::remove_file(place.dst().join("MANIFEST")).unwrap();
    fs::write(place.dst().join("REPAIR"), b"").unwrap();
    let error = LogEngine::open(place.dst(), small(Manual)).unwrap_err();
    assert!(error.to_string().contains("a repair that did not finish"), "{error}");
    let error = inspect::examine(&Env::os(), &place.dst(), false, &inspect::silently).unwrap_err();
    assert!(error.to_string().contains("a repair that did not finish"), "{error}");
    let error = inspect::repair(&Env::os(), &place.src(), &place.dst(), &inspect::silently).unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    fs::remove_dir_all(place.dst()).unwrap();
    place.repair();
    assert_eq!(place.repaired().len(), 100);
}

/// A power cut, or the death of the process, at every operation of a repair.
#[test]
fn a_crash_leaves_no_store_or_the_whole_one() {
    let (src, dst) = (Path::new("/src"), Path::new("/dst"));
    let env = |disk: &SimFs| Env {
        fs: Arc::new(disk.clone()),
        clock: Arc::new(ManualClock::new(0)),
        background: Background::Inline,
    };
    let open = |disk: &SimFs, dir| {
        LogEngine::open_in(dir, &env(disk), Options { create_if_missing: false, ..small(Manual) })
    };
    let base = SimFs::new();
    let store = LogEngine::open_in(src, &env(&base), small(Manual)).unwrap();
    for number in 0..60 {
        store.put(format!("k{number:02}").as_bytes(), &value(number)).unwrap();
    }
    store.close().unwrap();
    base.damage(&src.join("MANIFEST"), Some(Vec::new()));
    let (mut refused, mut whole) = (0, 0);
    for count in 0.. {
        let disk = base.process_death();
        disk.cut_after(disk.mutations() + count);
        let is_done = inspect::repair(&env(&disk), src, dst, &inspect::silently).is_ok();
        let cuts = [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL].map(|cut| disk.power_cut(cut));
        for after in cuts.into_iter().chain([disk.process_death()]) {
            match open(&after, dst) {
                Ok(store) => {
                    assert_eq!(store.to_sorted_vec().unwrap().len(), 60, "{count}");
                    whole += 1;
                }
                Err(error) => {
                    assert!(!is_done, "{count}: {error}");
                    refused += 1;
                }
            }
        }
        if is_done {
            break;
        }
    }
    assert!(refused > 20 && whole > 3, "{refused} {whole}");
}

#[test]
fn a_full_disk_ends_a_repair_and_leaves_no_file() {
    let disk = SimFs::new();
    let env = Env { fs: Arc::new(disk.clone()), background: Background::Inline, ..Env::os() };
    let (src, dst) = (Path::new("/src"), Path::new("/dst"));
    let store = LogEngine::open_in(src, &env, small(Manual)).unwrap();
    for number in 0..60 {
        store.put(format!("k{number:02}").as_bytes(), &value(number)).unwrap();
    }
    store.close().unwrap();
    for nth in 0..8 {
        disk.inject(Fault { kind: FaultKind::DiskFull, nth, repeat: Repeat::Always });
        let repaired = inspect::repair(&env, src, dst, &inspect::silently);
        disk.heal();
        match repaired {
            Ok(_) => return assert!(nth > 3, "{nth}"),
            Err(error) => assert!(error.is_disk_full(), "{error}"),
        }
        let left =
            disk.files().into_iter().filter(|(path, _)| path.starts_with(dst) && !path.ends_with("LOCK"));
        assert_eq!(left.count(), 0, "{nth}");
    }
}

#[test]
fn what_is_no_store_is_told() {
    let place = Place::new();
    for dir in [place.src(), place.0.path().to_path_buf()] {
        let error = inspect::examine(&Env::os(), &dir, false, &inspect::silently).unwrap_err();
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    }
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Batch(Vec<(u8, u8)>),
    Sync,
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12_u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => (0..12_u8).prop_map(Step::Delete),
        2 => prop::collection::vec((0..12_u8, any::<u8>()), 2..4).prop_map(Step::Batch),
        1 => Just(Step::Sync),
        1 => Just(Step::Compact),
    ]
}

/// The values of each key, the oldest first. `None`: the key was absent.
type Histories = BTreeMap<u8, Vec<Option<Vec<u8>>>>;

fn run(store: &LogEngine, steps: &[Step]) -> Histories {
    let mut histories: Histories = (0..12).map(|key| (key, vec![None])).collect();
    let long = |value: u8| vec![value; 60 + usize::from(value)];
    for step in steps {
        match step {
            Step::Put(key, value) => {
                store.put(&[*key], &long(*value)).unwrap();
                histories.get_mut(key).unwrap().push(Some(long(*value)));
            }
            Step::Delete(key) => {
                store.delete(&[*key]).unwrap();
                histories.get_mut(key).unwrap().push(None);
            }
            Step::Batch(pairs) => {
                let mut batch = Batch::new();
                let newest: BTreeMap<u8, u8> = pairs.iter().copied().collect();
                for (key, value) in newest {
                    batch.put(&[key], &long(value));
                    histories.get_mut(&key).unwrap().push(Some(long(value)));
                }
                store.apply(&batch).unwrap();
            }
            Step::Sync => drop(store.sync().unwrap()),
            Step::Compact => drop(store.compact().unwrap()),
        }
    }
    histories
}

/// The keys whose newest records, or records of the same batch, lie in changed bytes.
fn touched(clean: &[u8], damaged: &[u8]) -> BTreeSet<u64> {
    let header = SegmentHeader::decode(clean).unwrap();
    let scanner = Scanner::new(header.origin(), clean, SEGMENT_HEADER_LEN);
    let changes = scanner.filter(|(_, record)| record.kind.is_change());
    let hit = changes.filter(|(range, _)| damaged.get(range.clone()) != clean.get(range.clone()));
    hit.map(|(_, record)| record.lsn).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A repaired key has a value that it had at some time. A key whose newest change was not hit,
    /// nor the batch of that change, has its newest value.
    #[test]
    fn a_repaired_key_has_a_value_that_it_had(
        steps in prop::collection::vec(step(), 10..120),
        file: prop::sample::Index,
        at: prop::sample::Index,
        len in 1..300_usize,
        byte: Option<u8>,
    ) {
        let place = Place::new();
        let store = LogEngine::open(place.src(), small(Manual)).unwrap();
        let histories = run(&store, &steps);
        store.close().unwrap();
        let newest_lsns = newest_lsns(&place.src());
        let files = segment_files(&place.src());
        let path = file.get(&files);
        let clean = fs::read(path).unwrap();
        let mut damaged = clean.clone();
        let start = at.index(clean.len());
        match byte {
            Some(byte) => damaged[start..(start + len).min(clean.len())].fill(byte),
            None => damaged.truncate(start),
        }
        fs::write(path, &damaged).unwrap();
        let hit = touched(&clean, &damaged);
        let found = examine(&place.src());
        // Damage to what recovery calls torn is none to an opening, too.
        let opens = LogEngine::open(place.src(), Options { read_only: true, ..small(Manual) }).is_ok();
        prop_assert_eq!(found.damages.is_empty(), opens, "{:?}", found.damages);
        place.repair();
        let pairs = place.repaired();
        for (key, history) in &histories {
            let value = pairs.get([*key].as_slice()).cloned();
            prop_assert!(history.contains(&value), "key {} has {:?}", key, value);
            if newest_lsns.get(key).is_none_or(|lsn| !hit.contains(lsn)) {
                prop_assert_eq!(&value, history.last().unwrap(), "key {}", key);
            }
        }
    }
}

/// The LSN of the newest change of each key.
fn newest_lsns(dir: &Path) -> BTreeMap<u8, u64> {
    let mut newest: BTreeMap<u8, u64> = BTreeMap::new();
    for path in segment_files(dir) {
        let bytes = fs::read(path).unwrap();
        let (_, scanner) = Scanner::open(&bytes).unwrap();
        for (_, record) in scanner.filter(|(_, record)| record.kind.is_change()) {
            let lsn = newest.entry(record.key[0]).or_default();
            *lsn = record.lsn.max(*lsn);
        }
    }
    newest
}

#[test]
fn a_dump_shows_every_record_and_each_damage() {
    let place = Place::with_store();
    let path = segment_files(&place.src())[1].clone();
    edit(&path, |bytes| bytes[SEGMENT_HEADER_LEN + 30] ^= 1);
    let mut changes = Vec::new();
    let mut damages = 0;
    inspect::dump(&Env::os(), &place.src(), None, &mut |part| {
        match part {
            Part::Record { record, .. } if record.kind.is_change() => changes.push(record.lsn),
            Part::Damage(damage) => {
                assert_eq!(damage.path, path);
                damages += 1;
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((changes.len(), damages), (99, 1));
    assert!(changes.is_sorted());
    let mut parts = 0;
    let mut visit = |_: Part<'_>| {
        parts += 1;
        ControlFlow::Break(())
    };
    inspect::dump(&Env::os(), &place.src(), Some(SegmentId::new(3)), &mut visit).unwrap();
    let error = inspect::dump(&Env::os(), &place.src(), Some(SegmentId::new(99)), &mut visit).unwrap_err();
    assert_eq!(parts, 1);
    assert!(error.to_string().contains("has no segment 99"), "{error}");
}
