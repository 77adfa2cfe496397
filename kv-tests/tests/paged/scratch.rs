//! State that only defects use.

use kv_core::fs::{Dir, DirLock};
use kv_core::{Action, Error, Lsn, Result};
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// State of one store.
#[derive(Debug)]
pub(crate) struct Scratch {
    published: AtomicU64,
    dumps: AtomicU64,
    /// The durable LSN before the last dump.
    durable_before: AtomicU64,
    durable_now: AtomicU64,
    shows_old: AtomicBool,
    has_written: AtomicBool,
    opened: Mutex<Option<Duration>>,
    ask_at: Mutex<Option<Duration>>,
    split: Mutex<()>,
}

impl Scratch {
    pub(crate) fn new(last_lsn: u64) -> Self {
        Scratch {
            published: last_lsn.into(),
            dumps: 0.into(),
            durable_before: last_lsn.into(),
            durable_now: last_lsn.into(),
            shows_old: false.into(),
            has_written: false.into(),
            opened: Mutex::default(),
            ask_at: Mutex::default(),
            split: Mutex::default(),
        }
    }

    pub(crate) fn publish(&self, lsn: u64) {
        self.published.store(lsn, Ordering::SeqCst);
        std::thread::yield_now();
    }

    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::SeqCst)
    }

    pub(crate) fn dumps(&self) -> u64 {
        self.dumps.load(Ordering::SeqCst)
    }

    pub(crate) fn dumped(&self, is_ok: bool) {
        self.dumps.fetch_add(u64::from(is_ok), Ordering::SeqCst);
        self.shows_old.store(false, Ordering::SeqCst);
    }

    pub(crate) fn show_old_durable(&self, yes: bool) {
        self.shows_old.store(yes, Ordering::SeqCst);
    }

    pub(crate) fn durable_moved(&self, to: Lsn) {
        let before = self.durable_now.swap(to.get(), Ordering::SeqCst);
        self.durable_before.store(before, Ordering::SeqCst);
    }

    pub(crate) fn shown_durable(&self, durable: Lsn) -> Lsn {
        let before = Lsn::new(self.durable_before.load(Ordering::SeqCst));
        if self.shows_old.load(Ordering::SeqCst) { before.min(durable) } else { durable }
    }

    /// Whether this is not the first write since the last sync.
    pub(crate) fn is_written_again(&self, action: Action) -> bool {
        let is_write = action == Action::Write;
        self.has_written.swap(is_write, Ordering::SeqCst) && is_write
    }

    /// The first time that it was asked for.
    pub(crate) fn opened_at(&self, now: Duration) -> Duration {
        *lock(&self.opened).get_or_insert(now)
    }

    pub(crate) fn ask_at(&self, time: Option<Duration>) {
        *lock(&self.ask_at) = time;
    }

    pub(crate) fn is_before_ask(&self, now: Duration) -> bool {
        lock(&self.ask_at).is_some_and(|time| now < time)
    }

    pub(crate) fn split(&self) -> MutexGuard<'_, ()> {
        lock(&self.split)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static PLACES: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// A lock that only this process knows.
#[derive(Debug)]
pub(crate) struct ProcessLock(PathBuf);

impl ProcessLock {
    /// The lock of a directory that is not on a simulated disk: no other process sees that one.
    pub(crate) fn take(dir: &dyn Dir) -> Result<Box<dyn DirLock>> {
        let place = dir.path().to_path_buf();
        let is_free = lock(&PLACES).get_or_insert_default().insert(place.clone());
        if is_free {
            Ok(Box::new(ProcessLock(place)))
        } else {
            Err(Error::Locked { path: dir.path().to_path_buf() })
        }
    }
}

impl DirLock for ProcessLock {
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        lock(&PLACES).get_or_insert_default().remove(&self.0);
    }
}
