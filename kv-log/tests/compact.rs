//! Compaction on request.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::fs::{Dir, DirLock, File, LockKind, OpenMode};
use kv_core::{
    Background, Compact, CompactionLevel, CompactionPlan, CompactionPolicy, CompactionView, Engine, Env,
    Error, Fs, Manual, ManualClock,
};
use kv_log::{LogEngine, Options};
use kv_tests::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Code that runs once, after the next creation of a file.
type AfterCreation = Arc<Mutex<Option<Code>>>;
type Code = Box<dyn FnOnce() + Send>;

/// A disk that runs such code.
#[derive(Clone)]
struct Watched<T>(T, AfterCreation);

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl Fs for Watched<SimFs> {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(Watched(self.0.open_dir(path)?, Arc::clone(&self.1))))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }
}

impl Dir for Watched<Arc<dyn Dir>> {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let file = self.0.open(name, mode)?;
        let code = if mode == OpenMode::CreateNew { self.1.lock().unwrap().take() } else { None };
        if let Some(code) = code {
            code();
        }
        Ok(file)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, name: &str) -> io::Result<()> {
        self.0.remove_file(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn lock(&self, kind: LockKind) -> io::Result<Option<Box<dyn DirLock>>> {
        self.0.lock(kind)
    }
}

/// A policy that names the oldest segment once.
#[derive(Debug, Default)]
struct OldestOnce(AtomicBool);

impl CompactionPolicy for OldestOnce {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        let oldest = view.segments.first().filter(|_| self.0.swap(false, Ordering::SeqCst))?;
        Some(CompactionPlan { level: CompactionLevel::Disk, victims: vec![oldest.id] })
    }
}

#[test]
fn the_report_counts_what_the_call_gave_back_whatever_the_background_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), Options::default()).unwrap();
    for round in 0..200 {
        for _ in 0..20 {
            store.put(b"key", &[round; 200]).unwrap();
        }
        let report = store.compact().unwrap();
        assert!(report.victims > 0 && report.freed_bytes > 0, "round {round}: {report:?}");
    }
}

/// The sync that fails covers the directory entry of the compaction's output. A later sync of the
/// directory succeeds, and proves nothing about that entry.
#[test]
fn a_compaction_keeps_its_victims_after_a_failed_sync_of_the_directory() {
    let (disk, after_creation, policy) =
        (SimFs::new(), AfterCreation::default(), Arc::<OldestOnce>::default());
    let open = |fs: Arc<dyn Fs>| {
        let env = Env { fs, clock: Arc::new(ManualClock::new(0)), background: Background::Inline };
        let (persistence, compaction) = (Arc::new(Manual), Arc::clone(&policy) as _);
        let options = Options { segment_bytes: 4096, persistence, compaction, ..Options::default() };
        LogEngine::open_in(Path::new("/store"), &env, options).unwrap()
    };
    let store = open(Arc::new(Watched(disk.clone(), Arc::clone(&after_creation))));
    for number in 0..200_u32 {
        store.put(&number.to_be_bytes(), &[7; 60]).unwrap();
    }
    store.sync().unwrap();
    let ((reached, is_reached), (go_on, gone_on)) = (channel(), channel());
    let durable = thread::scope(|scope| {
        // A panic of the test drops the sender, which ends the compaction.
        let go_on = go_on;
        let compaction = scope.spawn(|| {
            let wait = move || {
                reached.send(()).unwrap();
                gone_on.recv().unwrap();
            };
            // The first file is the next active segment, and the second one the output.
            let slot = Arc::clone(&after_creation);
            let arm = move || *slot.lock().unwrap() = Some(Box::new(wait) as Code);
            *after_creation.lock().unwrap() = Some(Box::new(arm));
            policy.0.store(true, Ordering::SeqCst);
            store.compact()
        });
        is_reached.recv_timeout(Duration::from_secs(20)).unwrap();
        let durable = store.durable_lsn();
        // The sync of the new segment's file succeeds.
        disk.inject(Fault { kind: FaultKind::Sync, nth: 1, repeat: Repeat::Once });
        // It is too long for the active segment.
        let failed = store.put(b"key", &[9; 5000]).unwrap_err();
        assert!(failed.to_string().contains("cannot sync /store"), "{failed}");
        go_on.send(()).unwrap();
        let answer = compaction.join().unwrap();
        assert!(matches!(answer, Err(Error::Poisoned { .. })), "{answer:?}");
        durable
    });
    for cut in [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL].into_iter().chain((2..50).map(PowerCut::seeded)) {
        let store = open(Arc::new(disk.power_cut(cut)));
        assert!(store.last_lsn() >= durable);
        for number in 0..200_u32 {
            let found = store.get(&number.to_be_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some([7; 60].as_slice()), "{number} after {cut}");
        }
    }
}
