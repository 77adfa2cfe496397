//! Errors of shared memory that may pass: they never cost a change.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::fs::{Dir, SharedMemory};
use kv_core::{Background, Engine, Env, Fs, Manual, ManualClock};
use kv_log::{LogEngine, Options};
use kv_tests::sim::SimFs;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A machine whose shared memory fails once.
#[derive(Clone, Debug)]
struct Failing {
    disk: SimFs,
    /// The calls until it fails.
    left: Arc<AtomicU32>,
    errno: Errno,
}

#[derive(Debug)]
struct FailingMemory(Arc<dyn SharedMemory>, Failing);

impl Failing {
    fn call(&self) -> io::Result<()> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left == 0 { Err(self.errno.into()) } else { Ok(()) }
    }

    fn has_failed(&self) -> bool {
        self.left.load(Ordering::SeqCst) > u32::MAX / 2
    }
}

impl Fs for Failing {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        self.disk.open_dir(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn shared_memory(&self) -> Option<Arc<dyn SharedMemory>> {
        Some(Arc::new(FailingMemory(self.disk.shared_memory()?, self.clone())))
    }
}

impl SharedMemory for FailingMemory {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn boot_id(&self) -> io::Result<u128> {
        self.1.call()?;
        self.0.boot_id()
    }
    fn create(&self, name: &str, len: u64) -> io::Result<File> {
        self.1.call()?;
        self.0.create(name, len)
    }
    fn open(&self, name: &str) -> io::Result<File> {
        self.1.call()?;
        self.0.open(name)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.1.call()?;
        self.0.remove(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.1.call()?;
        self.0.list()
    }
}

fn open(fs: Arc<dyn Fs>) -> kv_core::Result<LogEngine> {
    let env = Env { fs, clock: Arc::new(ManualClock::new(0)), background: Background::Inline };
    let options = Options { segment_bytes: 2048, persistence: Arc::new(Manual), ..Options::default() };
    LogEngine::open_in(Path::new("/store"), &env, options)
}

#[test]
fn an_opening_that_cannot_read_the_tail_for_a_moment_leaves_it_to_the_next() {
    let disk = SimFs::new();
    let store = open(Arc::new(disk.clone())).unwrap();
    for key in 0..50_u32 {
        store.put(&key.to_be_bytes(), &[7; 100]).unwrap();
    }
    let dead = disk.process_death();
    for errno in [Errno::IO, Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
        let mut refused = 0;
        for calls in 0.. {
            let disk = dead.process_death();
            let failing = Failing { disk: disk.clone(), left: Arc::new(calls.into()), errno };
            match open(Arc::new(failing.clone())) {
                Ok(store) => assert_eq!(store.stats().keys, 50, "{errno} after {calls}"),
                Err(error) => {
                    assert!(error.is_refusal() || errno == Errno::IO, "{error}");
                    refused += 1;
                }
            }
            let store = open(Arc::new(disk)).unwrap();
            assert_eq!(store.stats().keys, 50, "{errno} after {calls}");
            if !failing.has_failed() {
                break;
            }
        }
        assert!(refused > 5, "{errno}: {refused}");
    }
}
