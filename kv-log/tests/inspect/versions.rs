//! A store of format version 1 is not taken for a damaged one, nor a damaged one for such a store.

use kv_core::{Env, Error};
use kv_log::{LogEngine, Options, inspect};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use super::place::{Place, contents, edit, examine, value};
use super::store_files::segment_files;

const MANIFEST: &[u8] = include_bytes!("../../../kv-wal-format/testdata/v1_manifest_empty.seg");
const SEGMENT: &[u8] = include_bytes!("../../../kv-wal-format/testdata/v1_log_sealed.seg");

/// A header's place for the version.
const VERSION: usize = 8;

fn store_of_version_1(place: &Place) {
    fs::create_dir(place.src()).unwrap();
    fs::write(place.src().join("MANIFEST"), MANIFEST).unwrap();
    fs::write(place.src().join("0000000000000001.segment"), SEGMENT).unwrap();
}

/// What the engine and each tool say of `place`.
fn refusals(place: &Place) -> Vec<Error> {
    let (env, src) = (Env::os(), place.src());
    let read_only = Options { read_only: true, ..Options::default() };
    vec![
        LogEngine::open(&src, Options::default()).unwrap_err(),
        LogEngine::open(&src, read_only).unwrap_err(),
        inspect::examine(&env, &src, false, &inspect::silently).unwrap_err(),
        inspect::dump(&env, &src, None, &mut |_| ControlFlow::Continue(())).unwrap_err(),
        inspect::repair(&env, &src, &place.dst(), &inspect::silently).unwrap_err(),
    ]
}

fn is_of_version_1(error: &Error, file: &Path) -> bool {
    let told = error.to_string().contains("format version 1, this release reads version 2");
    told && matches!(error, Error::UnsupportedVersion { found: 1, path, .. } if path == file)
}

#[test]
fn a_store_of_version_1_is_refused_and_stays_as_it_is() {
    let place = Place::new();
    store_of_version_1(&place);
    fs::write(place.src().join("LOCK"), b"").unwrap();
    let before = contents(&place.src());
    for error in refusals(&place) {
        assert!(is_of_version_1(&error, &place.src().join("MANIFEST")), "{error}");
    }
    assert_eq!(contents(&place.src()), before);
    assert!(!place.dst().exists());
}

#[test]
fn without_its_manifest_it_is_refused_by_the_tools() {
    let place = Place::new();
    store_of_version_1(&place);
    fs::remove_file(place.src().join("MANIFEST")).unwrap();
    for error in refusals(&place).split_off(2) {
        assert!(is_of_version_1(&error, &place.src().join("0000000000000001.segment")), "{error}");
    }
}

#[test]
fn a_damaged_version_is_damage() {
    let place = Place::with_store();
    edit(&place.src().join("MANIFEST"), |bytes| bytes[VERSION] = 1);
    assert_eq!(examine(&place.src()).damages.len(), 1);
    assert_eq!(place.repair().keys, 100);
    assert_eq!(place.repaired()[b"k07".as_slice()], value(7));
    fs::remove_dir_all(place.dst()).unwrap();
    // Now the versions of all files but one.
    let segments = segment_files(&place.src());
    for segment in segments.iter().skip(1) {
        edit(segment, |bytes| bytes[VERSION] = 1);
    }
    assert_eq!(examine(&place.src()).damages.len(), segments.len());
    // Of some segments, nothing tells the base LSN.
    assert!(place.repair().keys > 50);
}
