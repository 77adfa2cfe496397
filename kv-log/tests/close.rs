//! Closing a store while other threads work on it, and while resources are short.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test looks at files as another process does")]

use kv_core::{
    Background, Compact, CompactionLevel, CompactionPlan, CompactionPolicy, CompactionView, Engine,
    EngineExt, Env, Error, Greedy, Manual, ManualClock, Never, Occasion,
};
use kv_log::{LogEngine, Options};
use kv_tests::sim::{Fault, FaultKind, Repeat, SimFs};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

fn open(disk: &SimFs, options: Options) -> Result<LogEngine, Error> {
    let (clock, background) = (Arc::new(ManualClock::new(0)), Background::Inline);
    LogEngine::open_in(Path::new("/store"), &Env { fs: Arc::new(disk.clone()), clock, background }, options)
}

fn manual() -> Options {
    Options { segment_bytes: 4096, persistence: Arc::new(Manual), ..Options::default() }
}

fn always(kind: FaultKind) -> Fault {
    Fault { kind, nth: 0, repeat: Repeat::Always }
}

/// A policy that plans when the test tells it to.
#[derive(Debug)]
struct Waits {
    reached: Sender<()>,
    go_on: Mutex<Receiver<()>>,
    is_armed: Arc<AtomicBool>,
}

impl CompactionPolicy for Waits {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        if !self.is_armed.swap(false, Ordering::SeqCst) {
            return None;
        }
        self.reached.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        Greedy::default().plan(view)
    }
}

#[test]
fn a_close_that_fails_keeps_the_directory_until_a_compaction_is_over() {
    let disk = SimFs::new();
    let ((reached, is_reached), (go_on, gone_on)) = (channel(), channel());
    let is_armed = Arc::new(AtomicBool::new(false));
    let policy = Waits { reached, go_on: Mutex::new(gone_on), is_armed: Arc::clone(&is_armed) };
    let store = open(&disk, Options { compaction: Arc::new(policy), ..manual() }).unwrap();
    for number in 0..1000_u32 {
        store.put(&(number % 100).to_be_bytes(), &[7; 60]).unwrap();
    }
    store.sync().unwrap();
    is_armed.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        // A panic of the test drops the sender, which ends the compaction.
        let go_on = go_on;
        let compaction = scope.spawn(|| store.compact());
        is_reached.recv().unwrap();
        // The close begins at once, and then wants to compact, too.
        let (before, put) = (store.last_lsn(), scope.spawn(|| store.put(b"key", b"value")));
        while store.last_lsn() == before {
            thread::yield_now();
        }
        disk.inject(Fault { kind: FaultKind::Sync, nth: 0, repeat: Repeat::Once });
        store.sync().unwrap_err();
        let close = scope.spawn(|| store.close());
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(5));
            assert!(matches!(open(&disk, manual()), Err(Error::Locked { .. })));
        }
        go_on.send(()).unwrap();
        compaction.join().unwrap().unwrap_err();
        let _ = put.join().unwrap();
        close.join().unwrap().unwrap_err();
    });
    let store = open(&disk, manual()).unwrap();
    assert_eq!(store.stats().keys, 100 + u64::from(store.contains_key(b"key").unwrap()));
}

#[test]
fn a_close_does_without_what_is_short() {
    for kind in [FaultKind::NoDescriptors, FaultKind::DiskFull] {
        let disk = SimFs::new();
        let store =
            open(&disk, Options { segment_bytes: 1 << 20, compaction: Arc::new(Never), ..manual() }).unwrap();
        for _ in 0..9000 {
            // Mostly dead records, so that the close seals the segment.
            store.put(b"key", &[7; 60]).unwrap();
        }
        store.sync().unwrap();
        disk.inject(always(kind));
        store.close().unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        // The manifest on the disk still names the spares that the last manifest would drop.
        assert_eq!(store.stats().leftover_files, 0, "{kind:?}");
        disk.heal();
        assert_eq!(open(&disk, manual()).unwrap().get(b"key").unwrap().unwrap()[..], [7; 60]);
    }
}

/// A policy that names the oldest segment forever, while the store closes.
#[derive(Debug)]
struct Insatiable(Arc<AtomicU64>, AtomicBool);
impl CompactionPolicy for Insatiable {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        let oldest = view.segments.first()?;
        (self.1.load(Ordering::SeqCst) && view.occasion == Occasion::OpenOrClose).then(|| {
            self.0.fetch_add(1, Ordering::SeqCst);
            CompactionPlan { level: CompactionLevel::Disk, victims: vec![oldest.id] }
        })
    }
}

#[test]
fn a_close_ends_while_others_make_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let compactions = Arc::new(AtomicU64::new(0));
    let policy = Arc::new(Insatiable(Arc::clone(&compactions), AtomicBool::new(false)));
    let options = Options { compaction: Arc::clone(&policy) as _, ..manual() };
    let store = LogEngine::open(dir.path(), options).unwrap();
    for number in 0..1000_u32 {
        store.put(&(number % 100).to_be_bytes(), &[7; 60]).unwrap();
    }
    policy.1.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0_u32.. {
                let is_closing = compactions.load(Ordering::SeqCst) > 0;
                match store.put(&(number % 100).to_be_bytes(), &[8; 60]) {
                    Ok(_) => assert!(!is_closing, "a change gave the close more to do"),
                    Err(Error::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        store.close().unwrap();
    });
    assert!(compactions.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_closed_store_keeps_no_file_open_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        LogEngine::open(dir.path(), Options { segment_bytes: 1 << 20, ..Options::default() }).unwrap();
    let files = || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let segments = || files().filter(|path| path.extension().is_some_and(|kind| kind == "segment")).count();
    // Until the spares worker has made a spare.
    while segments() < 2 {
        store.put_durable(b"key", &[7; 10_000]).unwrap();
    }
    store.close().unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let gone: Vec<_> = open
        .filter(|path| path.starts_with(dir.path()) && path.to_string_lossy().ends_with("(deleted)"))
        .collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert_eq!(store.stats().keys, 1);
}

#[test]
fn hard_links_of_a_closed_store_are_a_copy_of_it() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = || Options { segment_bytes: 64 << 10, ..Options::default() };
    let store = LogEngine::open(dir.path(), Options { compaction: Arc::new(Never), ..options() }).unwrap();
    for number in 0..20_000_u32 {
        store.put(&(number % 3000).to_be_bytes(), &[7; 60]).unwrap();
    }
    store.compact().unwrap();
    store.close().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        if entry.file_name() != "LOCK" {
            fs::hard_link(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let victims = |path: &Path| fs::read_dir(path).unwrap().count();
    let before = victims(dir.path());
    let store = LogEngine::open(dir.path(), options()).unwrap();
    store.compact().unwrap();
    store.close().unwrap();
    assert!(victims(dir.path()) < before, "nothing was compacted");
    let read_only = Options { read_only: true, ..options() };
    assert_eq!(LogEngine::open(copy.path(), read_only).unwrap().stats().keys, 3000);
}
