//! What an examination and a dump tell.

use kv_core::{Engine, EngineExt, Env, Error, Manual, OsFs, SegmentId};
use kv_log::inspect::{FileRole, Part, SegmentState};
use kv_log::{LogEngine, inspect};
use kv_tests::sim::SimFs;
use kv_wal_format::SEGMENT_HEADER_LEN;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::place::{Place, edit, examine, open, value};
use super::store_files::{segment_files, small};

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
    let (place, disk, dir) = (Place::new(), SimFs::new(), Path::new("/copy"));
    let env = Env { fs: Arc::new(disk.clone()), ..Env::os() };
    let store = LogEngine::open_in(dir, &env, small(Manual)).unwrap();
    for number in 0..100 {
        store.put(format!("k{number:02}").as_bytes(), &value(number)).unwrap();
    }
    store.sync().unwrap();
    let error = inspect::examine(&env, dir, false, &inspect::silently).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    let copy = place.0.path().join("copy");
    let deadline = Instant::now() + Duration::from_mins(1);
    // A thread makes spares, and takes them away from an idle store.
    let found = loop {
        disk.process_death().copy_to(&OsFs, place.0.path()).unwrap();
        let found = examine(&copy);
        if found.segments.iter().any(|segment| segment.state == SegmentState::Spare) {
            break found;
        }
        assert!(Instant::now() < deadline, "no spare: {found:?}");
        fs::remove_dir_all(&copy).unwrap();
        store.put(b"k00", &value(0)).unwrap();
        store.sync().unwrap();
    };
    assert_eq!(found.damages, []);
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
fn what_is_no_store_is_told() {
    let place = Place::new();
    for dir in [place.src(), place.0.path().to_path_buf()] {
        let error = inspect::examine(&Env::os(), &dir, false, &inspect::silently).unwrap_err();
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    }
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
    assert!(error.to_string().contains("has no 0000000000000063.segment"), "{error}");
}
