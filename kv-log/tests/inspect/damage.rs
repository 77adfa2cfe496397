//! What each damage costs, and what a repair saves.

use kv_core::{Batch, Compact, Engine, Env, Manual};
use kv_log::inspect::{Part, SegmentState};
use kv_log::{LogEngine, inspect};
use kv_wal_format::{Record, SEGMENT_HEADER_LEN, Scanner};
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use super::place::{Place, edit, examine, keys_of, open, place_of, value};
use super::store_files::{segment_files, small};

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
