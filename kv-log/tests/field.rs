//! Trouble of real life, on real files: another working directory, a forked child, limits of the
//! system. A test that changes its whole process runs in a child process, which is this test binary
//! with one test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test looks at files as another process does")]

use kv_core::{Compact, Engine, EngineExt, Env, Error, Manual, Never, OpenOptions, ProcessSafety};
use kv_log::{LogEngine, Options, tail};
use kv_naive::NaiveEngine;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use tempfile::TempDir;

/// Tells a process that it is the child of a test, and gives it a directory.
const CHILD: &str = "KV_LOG_FIELD_DIR";

/// Runs `test` again in a process of its own, where it does `work` in a directory. Returns whether
/// this is the parent, in which the child has done its work well.
fn in_child(test: &str, dir: &Path, work: impl FnOnce(&Path)) -> bool {
    if let Some(dir) = std::env::var_os(CHILD) {
        work(Path::new(&dir));
        return false;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        // Through a pipe: a limit of file sizes would apply to an output file, too.
        .output()
        .unwrap();
    let (status, told) = (child.status, String::from_utf8_lossy(&child.stderr));
    assert!(status.success(), "the child of {test} ended with {status}: {told}");
    true
}

fn manual() -> Options {
    Options { persistence: Arc::new(Manual), ..Options::default() }
}

fn small() -> Options {
    Options { segment_bytes: 64 << 10, ..Options::default() }
}

/// The names of the objects in shared memory whose stores are at or below `dir`.
fn objects_below(dir: &Path) -> Vec<String> {
    let objects = tail::list(&Env::os()).unwrap_or_default();
    let is_below = |object: &tail::Object| object.store.as_ref().is_some_and(|path| path.starts_with(dir));
    objects.into_iter().filter(is_below).map(|object| object.name).collect()
}

/// Removes the directory, and the objects of its stores.
fn remove_objects(dir: TempDir) {
    for name in objects_below(dir.path()) {
        tail::remove(&Env::os(), &name).unwrap();
    }
    dir.close().unwrap();
}

/// All files below a directory, with their bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

fn limit(resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

#[test]
fn a_store_stays_where_it_was_opened_when_the_process_goes_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let work = |dir: &Path| {
        let (here, there) = (dir.join("here"), dir.join("there"));
        fs::create_dir_all(&here).unwrap();
        fs::create_dir_all(&there).unwrap();
        std::env::set_current_dir(&there).unwrap();
        let other = LogEngine::open("store", manual()).unwrap();
        other.put(b"k", b"there").unwrap();
        other.close().unwrap();
        let before = files(&there.join("store"));
        std::env::set_current_dir(&here).unwrap();
        let store = LogEngine::open("store", Options { segment_bytes: 4096, ..manual() }).unwrap();
        std::env::set_current_dir(&there).unwrap();
        for number in 0..500_u32 {
            store.put(&number.to_be_bytes(), &[7; 100]).unwrap();
        }
        store.sync().unwrap();
        store.compact().unwrap();
        store.close().unwrap();
        assert_eq!(files(&there.join("store")), before);
        assert_eq!(LogEngine::open(here.join("store"), manual()).unwrap().stats().keys, 500);
        let other = LogEngine::open("store", manual()).unwrap();
        assert_eq!(other.get(b"k").unwrap().as_deref(), Some(b"there".as_slice()));
    };
    in_child("a_store_stays_where_it_was_opened_when_the_process_goes_elsewhere", dir.path(), work);
}

#[test]
fn a_directory_that_is_gone_takes_no_changes_and_nothing_is_called_durable() {
    let dir = tempfile::tempdir().unwrap();
    for (name, remove) in [
        ("all of it", (|path: &Path| fs::remove_dir_all(path).unwrap()) as fn(&Path)),
        ("its files", |path| files(path).keys().for_each(|file| fs::remove_file(file).unwrap())),
        ("its lock", |path| fs::remove_file(path.join("LOCK")).unwrap()),
    ] {
        let path = dir.path().join(name);
        let store = LogEngine::open(&path, manual()).unwrap();
        let durable = store.put_durable(b"k", b"durable").unwrap();
        remove(&path);
        store.put(b"k", b"visible").unwrap();
        let error = store.sync().unwrap_err();
        assert!(
            matches!(error, Error::Io { .. }) && error.to_string().contains("was removed"),
            "{name}: {error}"
        );
        assert_eq!(store.durable_lsn(), durable);
        assert!(matches!(store.put(b"k", b"later"), Err(Error::Poisoned { .. })));
        assert_eq!(store.get(b"k").unwrap().as_deref(), Some(b"visible".as_slice()));
        // Another store may now use the name.
        if name == "all of it" {
            let other = LogEngine::open(&path, manual()).unwrap();
            other.put_durable(b"k", b"other").unwrap();
            let before = files(&path);
            store.close().unwrap_err();
            drop(store);
            assert_eq!(files(&path), before);
        }
    }
    remove_objects(dir);
}

#[test]
fn a_store_whose_directory_is_gone_leaves_nothing_in_shared_memory() {
    let dir = tempfile::tempdir().unwrap();
    for (name, closes) in [("closed", true), ("dropped", false)] {
        let path = dir.path().join(name);
        let store = LogEngine::open(&path, manual()).unwrap();
        store.put(b"k", b"v").unwrap();
        let is_safe = store.stats().process_safety == ProcessSafety::Safe;
        assert_eq!(objects_below(&path).is_empty(), !is_safe);
        fs::remove_dir_all(&path).unwrap();
        if closes {
            store.close().unwrap_err();
        }
        drop(store);
        assert_eq!(objects_below(&path), Vec::<String>::new(), "{name}");
    }
}

#[test]
#[allow(unsafe_code, reason = "there is no other way to fork")]
fn a_forked_child_is_told_and_the_parent_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let work = |dir: &Path| {
        let store = LogEngine::open(dir, Options::default()).unwrap();
        store.put(b"k", b"parent").unwrap();
        // SAFETY: the child ends without returning from here, and uses no lock that another thread
        // may hold.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let told = [
                store.put(b"k", b"child").err(),
                store.delete(b"k").err(),
                store.get(b"k").err(),
                store.sync().err(),
                store.compact().err(),
                store.close().err(),
            ];
            let all = told.iter().all(|error| matches!(error, Some(Error::Forked)));
            drop(store);
            // SAFETY: it ends this process.
            unsafe { libc::_exit(i32::from(!all)) };
        }
        let mut status = 0;
        // SAFETY: the child is this process's, and the status its own.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "the child got other answers than Forked");
        store.put_durable(b"l", b"parent").unwrap();
        assert!(matches!(LogEngine::open(dir, Options::default()), Err(Error::Locked { .. })));
        store.close().unwrap();
        assert_eq!(LogEngine::open(dir, Options::default()).unwrap().stats().keys, 2);
    };
    in_child("a_forked_child_is_told_and_the_parent_goes_on", dir.path(), work);
}

/// Overwrites the keys of a new store, whose segments are replaced many times, while another thread
/// reads. Leaves the store open with a change that is not durable.
fn overwrite_in_new_store(dir: &Path) {
    let store = LogEngine::open(dir, Options { persistence: Arc::new(Manual), ..small() }).unwrap();
    let (keys, stop) = (0..100_u8, AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                assert!(store.get(&[7]).unwrap().is_none_or(|value| value.len() == 1000));
            }
        });
        for round in 0..50 {
            for key in keys.clone() {
                store.put(&[key], &[round; 1000]).unwrap();
            }
            assert_eq!(store.get(&[7]).unwrap().unwrap(), [round; 1000]);
        }
        stop.store(true, Relaxed);
    });
    store.compact().unwrap();
    let retired = store.stats().retired_bytes;
    assert!(retired < 2 << 20, "{retired} of 5,000,000 bytes are retired, and not freed");
    store.put(b"last", b"v").unwrap();
    std::mem::forget(store);
}

/// Forks, and overwrites in the child. Returns whether the child ended well.
#[allow(unsafe_code, reason = "there is no other way to fork")]
fn child_overwrites(dir: &Path) -> bool {
    // SAFETY: the child uses a store, which it may, and no output of the standard library.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: it ends this process if the child hangs.
        unsafe { libc::alarm(30) };
        let answer = std::panic::catch_unwind(|| overwrite_in_new_store(dir));
        std::process::exit(i32::from(answer.is_err()));
    }
    let mut status = 0;
    // SAFETY: the child is this process's, and the status its own.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    status == 0
}

/// A fork copies pins of readers, deferred releases, and locks that are held at that moment.
#[test]
fn a_child_forked_from_busy_threads_works_in_a_store_of_its_own() {
    const FORKS: u8 = 8;
    let dir = tempfile::tempdir().unwrap();
    let work = |dir: &Path| {
        let store = LogEngine::open(dir.join("parent"), small()).unwrap();
        let (stop, mut failed) = (AtomicBool::new(false), None);
        thread::scope(|scope| {
            for key in 0..2 {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || {
                    while !stop.load(Relaxed) {
                        store.put(&[key], &[1; 1000]).unwrap();
                    }
                });
                scope.spawn(move || {
                    while !stop.load(Relaxed) {
                        store.get(&[key]).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    drop(LogEngine::open(dir.join("another"), small()).unwrap());
                }
            });
            store.put(b"visited", b"v").unwrap();
            failed = (0..FORKS).find(|number| {
                let (path, mut is_well) = (dir.join(number.to_string()), false);
                if number % 2 == 0 {
                    is_well = child_overwrites(&path);
                } else {
                    // The thread that forks has a hazard pointer.
                    store.read(b"visited", &mut |_| is_well = child_overwrites(&path)).unwrap();
                }
                !is_well
            });
            stop.store(true, Relaxed);
        });
        assert_eq!(failed, None, "this child failed, or hung");
    };
    if in_child("a_child_forked_from_busy_threads_works_in_a_store_of_its_own", dir.path(), work) {
        for number in 0..FORKS {
            let store = LogEngine::open(dir.path().join(number.to_string()), manual()).unwrap();
            assert_eq!(store.stats().keys, 101, "child {number} lost its change before the exit");
        }
    }
}

#[test]
fn a_store_in_a_static_keeps_its_changes_when_the_process_ends() {
    static LOG: OnceLock<LogEngine> = OnceLock::new();
    static NAIVE: OnceLock<NaiveEngine> = OnceLock::new();
    let dir = tempfile::tempdir().unwrap();
    let work = |dir: &Path| {
        let log = LogEngine::open(dir.join("log"), manual()).unwrap();
        let options = OpenOptions { persistence: Arc::new(Manual), ..OpenOptions::default() };
        let naive = NaiveEngine::open(dir.join("naive"), options).unwrap();
        let stores: [&dyn Engine; 2] = [LOG.get_or_init(|| log), NAIVE.get_or_init(|| naive)];
        for store in stores {
            for number in 0..1000_u32 {
                store.put(&number.to_be_bytes(), b"v").unwrap();
            }
        }
    };
    if in_child("a_store_in_a_static_keeps_its_changes_when_the_process_ends", dir.path(), work) {
        assert_eq!(LogEngine::open(dir.path().join("log"), manual()).unwrap().stats().keys, 1000);
        let naive = NaiveEngine::open(dir.path().join("naive"), OpenOptions::default());
        assert_eq!(naive.unwrap().stats().keys, 1000);
    }
}

#[test]
fn a_limit_of_file_sizes_is_a_full_disk_and_no_signal() {
    let dir = tempfile::tempdir().unwrap();
    let work = |dir: &Path| {
        limit(Resource::Fsize, Some(300 << 10));
        let store = LogEngine::open(dir, Options::default()).unwrap();
        for number in 0..20_000_u32 {
            store.put(&number.to_be_bytes(), &[1; 100]).unwrap();
        }
        let large = store.put(b"large", &vec![1; 1 << 20]);
        assert!(matches!(large, Err(Error::DiskFull { .. })), "{large:?}");
        store.put_durable(b"small", b"fits").unwrap();
        store.close().unwrap();
        assert_eq!(LogEngine::open(dir, Options::default()).unwrap().stats().keys, 20_001);
        limit(Resource::Fsize, Some(10));
        let none = LogEngine::open(dir.join("another"), Options::default());
        assert!(matches!(none, Err(Error::DiskFull { .. })), "{none:?}");
    };
    in_child("a_limit_of_file_sizes_is_a_full_disk_and_no_signal", dir.path(), work);
}

#[test]
fn without_a_free_descriptor_changes_are_refused_and_go_on_later() {
    let dir = tempfile::tempdir().unwrap();
    let work = |dir: &Path| {
        let store = LogEngine::open(dir, Options { compaction: Arc::new(Never), ..small() }).unwrap();
        store.put(b"first", b"v").unwrap();
        let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let before = getrlimit(Resource::Nofile).current;
        let mut refused = 0;
        for spare in 0..6 {
            limit(Resource::Nofile, Some(open + spare - 1));
            let put = |number: u64| store.put(&(spare * 10_000 + number).to_be_bytes(), &[3; 100]);
            let refusals = (0..4000).filter_map(|number| put(number).err()).take(50);
            for error in refusals {
                assert!(matches!(error, Error::Io { .. }), "{error}");
                refused += 1;
            }
            store.sync().unwrap();
        }
        limit(Resource::Nofile, before);
        assert!(refused > 0);
        store.put_durable(b"last", b"v").unwrap();
        let keys = store.stats().keys;
        store.close().unwrap();
        assert_eq!(LogEngine::open(dir, small()).unwrap().stats().keys, keys);
    };
    in_child("without_a_free_descriptor_changes_are_refused_and_go_on_later", dir.path(), work);
}

/// Memory of this process, bytes: the field of `/proc/self/status`.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn opening_stays_within_the_memory_budget() {
    const BUDGET: u64 = 32 << 20;
    let dir = tempfile::tempdir().unwrap();
    let work = |dir: &Path| {
        let before = memory("VmHWM");
        let store = LogEngine::open(dir, Options::default().with_memory_budget(BUDGET)).unwrap();
        let most = memory("VmHWM") - before;
        assert!(most < BUDGET + (16 << 20), "{most} bytes at most for a budget of {BUDGET}");
        assert_eq!(store.stats().keys, 200_000);
    };
    if std::env::var_os(CHILD).is_none() {
        let store =
            LogEngine::open(dir.path(), Options { segment_bytes: 2 << 20, ..Options::default() }).unwrap();
        for number in 0..200_000_u32 {
            store.put(&number.to_be_bytes(), &[1; 1000]).unwrap();
        }
        store.close().unwrap();
    }
    in_child("opening_stays_within_the_memory_budget", dir.path(), work);
}

#[test]
fn a_small_store_takes_little_memory_when_it_is_opened_and_little_disk_when_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let work = |dir: &Path| {
        let before = memory("VmRSS");
        let stores: Vec<LogEngine> = fs::read_dir(dir)
            .unwrap()
            .map(|store| LogEngine::open(store.unwrap().path(), Options::default()).unwrap())
            .collect();
        let each = (memory("VmRSS") - before) / stores.len() as u64;
        // One huge page of the active segment, and the slots.
        assert!(each < 4 << 20, "{each} bytes of memory for one key");
        for store in &stores {
            assert_eq!(store.get(b"key").unwrap().unwrap().len(), 1000);
        }
    };
    if std::env::var_os(CHILD).is_none() {
        for number in 0..10 {
            let path = dir.path().join(number.to_string());
            let store = LogEngine::open(&path, Options::default()).unwrap();
            for round in 0..20_000_u32 {
                store.put(b"key", &round.to_be_bytes().repeat(250)).unwrap();
            }
            store.close().unwrap();
            let on_disk: usize = files(&path).values().map(Vec::len).sum();
            assert!(on_disk < 256 << 10, "{on_disk} bytes on disk for one key");
        }
    }
    in_child(
        "a_small_store_takes_little_memory_when_it_is_opened_and_little_disk_when_it_is_closed",
        dir.path(),
        work,
    );
}

#[test]
fn a_killed_store_is_opened_without_reading_its_padding_into_memory() {
    let dir = tempfile::tempdir().unwrap();
    let work = |dir: &Path| {
        let before = memory("VmHWM");
        let store = LogEngine::open(dir, Options { read_only: true, ..Options::default() }).unwrap();
        assert_eq!(store.stats().keys, 1);
        let most = memory("VmHWM") - before;
        assert!(most < 4 << 20, "{most} bytes");
    };
    if std::env::var_os(CHILD).is_none() {
        let path = dir.path().join("live");
        let store = LogEngine::open(&path, Options::default()).unwrap();
        store.put_durable(b"key", b"value").unwrap();
        // A copy of the directory is what a kill would leave.
        let copy = dir.path().join("copy");
        fs::create_dir(&copy).unwrap();
        for (file, bytes) in files(&path) {
            fs::write(copy.join(file.file_name().unwrap()), bytes).unwrap();
        }
        in_child("a_killed_store_is_opened_without_reading_its_padding_into_memory", &copy, work);
    } else {
        in_child("", Path::new(""), work);
    }
}

#[test]
fn short_runs_do_not_pile_up_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let size = || files(dir.path()).values().map(Vec::len).sum::<usize>();
    let mut half = 0;
    for run in 0..60_u32 {
        let store =
            LogEngine::open(dir.path(), Options { segment_bytes: 256 << 10, ..Options::default() }).unwrap();
        for number in 0..1000_u32 {
            store.put(&number.to_be_bytes(), &run.to_be_bytes().repeat(25)).unwrap();
        }
        store.close().unwrap();
        if run == 30 {
            half = size();
        }
    }
    // 136 KB are live.
    assert!(size() < 2 << 20 && size() < half * 2, "{half} after half of the runs, {} now", size());
}
