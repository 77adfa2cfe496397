//! Backups on the same file system: which files are linked, and that no later work of the store
//! reaches them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the tests look at the files of a backup")]

#[allow(dead_code, reason = "this test holds nothing back")]
mod gated_fs;
#[allow(dead_code, reason = "this test copies no store")]
mod store_files;

use gated_fs::{Gate, GatedFs};
use kv_core::fs::FsExt;
use kv_core::{
    Background, BackupReport, Compact, Engine, EngineExt, Env, Error, Fs, Greedy, KeepPast, ManualClock,
    MaxLogSize, PointInTime, SystemClock,
};
use kv_log::{LogEngine, Options};
use kv_tests::sim::{PowerCut, SimFs};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store_files::{segment_files, small};

fn options() -> Options {
    small(MaxLogSize::new(500))
}

/// Puts and overwrites pairs that fill several segments.
fn fill(store: &LogEngine, from: u64, to: u64) {
    for number in from..to {
        store.put(&(number % 50).to_le_bytes(), &[u8::try_from(number % 251).unwrap(); 100]).unwrap();
    }
}

/// A store whose manifest calls segments sealed, and whose log goes on.
fn store(dir: &Path, env: &Env) -> LogEngine {
    let store = LogEngine::open_in(dir, env, options()).unwrap();
    fill(&store, 0, 200);
    store.close().unwrap();
    let store = LogEngine::open_in(dir, env, options()).unwrap();
    fill(&store, 200, 205);
    store
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    segment_files(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn content(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    content_in(dir, &Env::os())
}

fn content_in(dir: &Path, env: &Env) -> Vec<(Vec<u8>, Vec<u8>)> {
    let backup = LogEngine::open_in(dir, env, Options { read_only: true, ..options() }).unwrap();
    backup.to_sorted_vec().unwrap()
}

#[test]
fn later_work_of_the_store_leaves_linked_segments_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (source, into) = (dir.path().join("s"), dir.path().join("b"));
    let mut store = store(&source, &Env::os());
    let BackupReport { files: all, files_copied, files_linked, .. } = store.backup(&into).unwrap();
    assert_eq!(files_linked + files_copied, all);
    let shared = |path: &PathBuf| fs::metadata(path).unwrap().nlink() == 2;
    assert_eq!(segment_files(&into).iter().filter(|path| shared(path)).count() as u64, files_linked);
    assert!(files_linked > 1 && files_copied > 0, "{files_linked} of {all} files are linked");
    let (bytes, state) = (files(&into), store.to_sorted_vec().unwrap());
    for round in 1..4 {
        fill(&store, round * 500, round * 500 + 400);
        store.compact().unwrap();
        store.close().unwrap();
        store = LogEngine::open(&source, options()).unwrap();
    }
    assert_eq!(files(&into), bytes);
    assert_eq!(content(&into), state);

    // The files that only the earlier backup needed go, and new ones come.
    let again = store.backup(&into).unwrap();
    assert!(again.files_linked > 0 && again.files_linked + again.files_copied <= again.files, "{again:?}");
    assert_eq!(content(&into), store.to_sorted_vec().unwrap());
    let once_more = store.backup(&into).unwrap();
    assert_eq!((once_more.files_linked, once_more.bytes_linked), (0, 0), "they are there");
    store.close().unwrap();
    assert!(fs::read_dir(&into).unwrap().all(|entry| {
        let name = entry.unwrap().file_name();
        Path::new(&name).extension().is_none_or(|extension| extension != "tmp")
    }));
}

#[test]
fn a_file_system_without_links_gets_copies() {
    let dir = tempfile::tempdir().unwrap();
    let (source, into) = (dir.path().join("s"), dir.path().join("b"));
    let fs = Arc::new(GatedFs(Arc::new(Gate::default())));
    let env = Env { fs, clock: Arc::new(SystemClock::new()), background: Background::Threads };
    let store = store(&source, &env);
    let report = store.backup(&into).unwrap();
    assert_eq!((report.files_linked, report.files_copied), (0, report.files));
    assert_eq!(content(&into), store.to_sorted_vec().unwrap());
}

fn env_of(disk: &SimFs) -> Env {
    let (fs, clock) = (Arc::new(disk.clone()), Arc::new(ManualClock::new(0)));
    Env { fs, clock, background: Background::Inline }
}

fn files_of(disk: &SimFs, dir: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files().into_iter().filter(|(path, _)| path.starts_with(dir)).collect()
}

/// Backs another store up into the directory of a backup that a crash ended. The first segment of
/// that store is not sealed, so it is copied. Returns whether the crash left a link under its
/// temporary name.
fn back_up_another_store(disk: &SimFs) -> bool {
    let (env, into) = (env_of(disk), Path::new("/backup"));
    let (source, found) = (files_of(disk, "/source"), files_of(disk, "/backup"));
    let another = LogEngine::open_in(Path::new("/another"), &env, options()).unwrap();
    fill(&another, 0, 5);
    let mark = into.join("BACKUP");
    if found.contains_key(&mark) {
        let refused = another.backup(into).unwrap_err();
        let Error::InvalidArgument(text) = refused else { panic!("{refused}") };
        assert!(text.contains("a backup of another store"), "{text}");
        assert_eq!(files_of(disk, "/backup"), found);
        // Then the backup is as an earlier build began it.
        disk.damage(&mark, Some(Vec::new()));
    }
    if !found.contains_key(&into.join("MANIFEST")) {
        another.backup(into).unwrap();
        assert_eq!(content_in(into, &env), another.to_sorted_vec().unwrap());
    }
    assert_eq!(files_of(disk, "/source"), source, "the backup wrote to the files of the first store");
    found.keys().any(|path| path.file_name().is_some_and(|name| name == OsStr::new(FIRST_LINK)))
}

/// The first segment of a store while it is linked.
const FIRST_LINK: &str = "0000000000000001.segment.tmp";

#[test]
fn a_backup_leaves_the_store_intact_whose_backup_a_crash_ended() {
    let disk = SimFs::new();
    let source = LogEngine::open_in(Path::new("/source"), &env_of(&disk), options()).unwrap();
    // Each key once, so that no compaction replaces the first segment.
    fill(&source, 0, 50);
    source.close().unwrap();
    let mut links = [0, 0];
    for count in 0.. {
        let cut = disk.process_death();
        let source = LogEngine::open_in(Path::new("/source"), &env_of(&cut), options()).unwrap();
        cut.cut_after(cut.mutations() + count);
        let report = source.backup(Path::new("/backup"));
        if let Ok(report) = report {
            assert!(report.files_linked > 0, "{report:?}");
            break;
        }
        for (image, links) in
            [cut.process_death(), cut.power_cut(PowerCut::seeded(count))].iter().zip(&mut links)
        {
            *links += u32::from(back_up_another_store(image));
        }
    }
    assert!(links[0] > 0, "no crash left the link");
}

/// Overwrites some pairs until a change is refused, at most 2000 times. Returns the number of
/// changes.
fn overwrite(store: &LogEngine, keys: u64) -> u64 {
    let put = |number: u64| store.put(&(number % keys).to_le_bytes(), &[7; 100]);
    (0..2000).find(|number| put(*number).is_err()).unwrap_or(2000)
}

/// Bytes on the disk. A file with two names counts once.
fn used(disk: &SimFs) -> u64 {
    let store = files_of(disk, "/store");
    let is_alone = |path: &Path| !store.contains_key(&Path::new("/store").join(path.file_name().unwrap()));
    let alone = files_of(disk, "/backup").into_iter().filter(|(path, _)| is_alone(path));
    alone.map(|(_, bytes)| bytes.len()).chain(store.values().map(Vec::len)).sum::<usize>() as u64
}

/// Compacts only when the disk is full.
fn lazy() -> Arc<Greedy> {
    Arc::new(Greedy { disk_utilization_min: 0.0, ..Greedy::default() })
}

/// A store without a free byte, which compacts only when the disk is full. Each sealed segment has
/// garbage, and a backup in `/backup` links it.
fn full_store_with_links(disk: &SimFs) -> LogEngine {
    let options = || Options { compaction: lazy(), ..options() };
    let store = LogEngine::open_in(Path::new("/store"), &env_of(disk), options()).unwrap();
    fill(&store, 0, 400);
    store.close().unwrap();
    let store = LogEngine::open_in(Path::new("/store"), &env_of(disk), options()).unwrap();
    let report = store.backup(Path::new("/backup")).unwrap();
    assert!(report.files_linked > 5, "{report:?}");
    disk.limit_space(Some(used(disk)));
    store
}

fn reserve_of(disk: &SimFs) -> usize {
    disk.read_file(Path::new("/store/RESERVE")).unwrap().len()
}

#[test]
fn a_full_disk_compacts_no_segment_whose_space_a_backup_holds() {
    let disk = SimFs::new();
    let store = full_store_with_links(&disk);
    overwrite(&store, 50);
    let (before, reserve) = (files_of(&disk, "/store"), reserve_of(&disk));
    for _ in 0..5 {
        let refused = store.put(&[0; 8], &[7; 3000]);
        assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
    }
    assert_eq!((store.stats().compactions, reserve_of(&disk)), (0, reserve));
    assert_eq!(files_of(&disk, "/store").len(), before.len());
    disk.move_dir(Path::new("/backup"), None).unwrap();
    assert_eq!(overwrite(&store, 50), 2000);
}

#[test]
fn a_full_disk_compacts_the_segments_whose_space_comes_free() {
    let disk = SimFs::new();
    let store = full_store_with_links(&disk);
    let dir = disk.open_dir(Path::new("/store")).unwrap();
    let linked = || -> Vec<String> {
        let names = dir.list().unwrap().into_iter();
        names.filter(|name| dir.link_count(name).is_ok_and(|count| count > 1)).collect()
    };
    let before = linked();
    assert!(before.len() > 5, "{before:?}");
    disk.limit_space(None);
    fill(&store, 0, 100);
    disk.limit_space(Some(used(&disk) + 5 * 4096));
    // Garbage of the new segments only. The linked ones are emptier.
    assert_eq!(overwrite(&store, 40), 2000);
    assert_eq!(linked(), before);
}

/// An archived victim keeps its file.
#[test]
fn a_full_disk_compacts_nothing_for_a_window_that_stays() {
    let disk = SimFs::new();
    let (retention, compaction) = (Arc::new(KeepPast::all().stays_on_full_disk()), lazy());
    let options = Options { retention, compaction, ..options() };
    let store = LogEngine::open_in(Path::new("/store"), &env_of(&disk), options).unwrap();
    fill(&store, 0, 400);
    disk.limit_space(Some(used(&disk)));
    let reserve = reserve_of(&disk);
    for _ in 0..5 {
        assert!(overwrite(&store, 50) < 2000, "the disk is full");
    }
    assert_eq!((store.stats().compactions, reserve_of(&disk)), (0, reserve));
}
