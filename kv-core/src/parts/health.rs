use super::process::Process;
use crate::{Error, Lsn, Result};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

/// Whether an engine takes changes: a part that engines share.
///
/// It goes from open to closing and closed, and from open or closing to poisoned and closed; never
/// back. Of a store that is only read, it goes from there to closed.
#[derive(Debug)]
pub struct Health {
    state: AtomicU8,
    cause: OnceLock<Arc<Error>>,
    /// The one that opened the store.
    process: Process,
}

impl Default for Health {
    fn default() -> Self {
        Health { state: AtomicU8::new(OPEN), cause: OnceLock::new(), process: Process::this() }
    }
}

const OPEN: u8 = 0;
const POISONED: u8 = 1;
const CLOSED: u8 = 2;
const READ_ONLY: u8 = 3;
const CLOSING: u8 = 4;

impl Health {
    /// That of a store that is open for reading only.
    pub fn read_only() -> Self {
        Health { state: AtomicU8::new(READ_ONLY), ..Health::default() }
    }

    /// `Ok` while reads are served.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    #[inline]
    pub fn check_readable(&self) -> Result<()> {
        self.check_process()?;
        if self.state.load(Ordering::Acquire) == CLOSED { Err(Error::Closed) } else { Ok(()) }
    }

    /// `Ok` in the process that opened the store.
    ///
    /// # Errors
    /// [`Error::Forked`].
    #[inline]
    pub fn check_process(&self) -> Result<()> {
        if self.process.is_running() { Ok(()) } else { Err(Error::Forked) }
    }

    /// `Ok` while new changes are taken.
    ///
    /// # Errors
    /// As [`check_writable`](Self::check_writable), and [`Error::Closed`] once a close has begun.
    #[inline]
    pub fn check_change(&self) -> Result<()> {
        self.check_process()?;
        match self.state.load(Ordering::Acquire) {
            OPEN => Ok(()),
            CLOSING => Err(Error::Closed),
            _ => self.check_writable(),
        }
    }

    /// `Ok` while the files may be written: also by a close.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`], [`Error::ReadOnly`], or [`Error::Poisoned`] with the
    /// cause.
    #[inline]
    pub fn check_writable(&self) -> Result<()> {
        self.check_process()?;
        match self.state.load(Ordering::Acquire) {
            OPEN | CLOSING => Ok(()),
            POISONED => Err(self.poisoned()),
            READ_ONLY => Err(Error::ReadOnly),
            _ => Err(Error::Closed),
        }
    }

    /// `Ok` if a caller may wait for `lsn`, and `last` is the newest LSN that was given out.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a later one, and as
    /// [`check_readable`](Self::check_readable).
    pub fn check_wait(&self, lsn: Lsn, last: Lsn) -> Result<()> {
        self.check_readable()?;
        if lsn > last {
            return Err(Error::InvalidArgument(format!(
                "cannot wait for LSN {lsn}: the newest change has LSN {last}"
            )));
        }
        Ok(())
    }

    /// Whether the store is open for reading only.
    pub fn is_read_only(&self) -> bool {
        self.state.load(Ordering::Acquire) == READ_ONLY
    }

    /// Whether a write or sync has failed.
    pub fn is_poisoned(&self) -> bool {
        self.cause.get().is_some()
    }

    /// Takes no more changes, because of `error`. The first error counts. Returns `error` for the
    /// caller that met the failure. `Poisoned`, `Closed`, `Forked` and `ReadOnly` do
    /// not poison.
    pub fn poison(&self, error: Error) -> Error {
        if matches!(error, Error::Poisoned { .. } | Error::Closed | Error::Forked | Error::ReadOnly) {
            return error;
        }
        if self.cause.set(Arc::new(error.clone())).is_ok() {
            for state in [OPEN, CLOSING] {
                let _ = self.state.compare_exchange(state, POISONED, Ordering::AcqRel, Ordering::Acquire);
            }
        }
        error
    }

    /// Poisons when the thread panics before the answer is dropped: for work that, left half done,
    /// must not be taken for done. `dir` is the store's.
    pub fn poison_on_panic<'a>(&'a self, dir: &'a Path) -> PoisonOnPanic<'a> {
        PoisonOnPanic { health: self, dir, already: thread::panicking() }
    }

    /// The error of every later call after the failure.
    pub fn poisoned(&self) -> Error {
        match self.cause.get() {
            Some(cause) => Error::Poisoned { cause: Arc::clone(cause) },
            None => Error::Closed,
        }
    }

    /// Takes no new changes: otherwise busy writers would give a close more and more to do.
    pub fn begin_close(&self) {
        let _ = self.state.compare_exchange(OPEN, CLOSING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Serves nothing any more.
    pub fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
    }
}

/// Watches over work that must not end in a panic unnoticed. See [`Health::poison_on_panic`].
#[derive(Debug)]
pub struct PoisonOnPanic<'a> {
    health: &'a Health,
    dir: &'a Path,
    /// The thread was unwinding before the work began: an engine may be used, and closed, while
    /// that goes on.
    already: bool,
}

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() && !self.already {
            let cause = io::Error::other("a thread panicked at work");
            let _ = self.health.poison(Error::io("work on", self.dir, cause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Work that is done well while the thread unwinds for another reason.
    struct WorksWhenDropped<'a>(&'a Health);

    impl Drop for WorksWhenDropped<'_> {
        fn drop(&mut self) {
            drop(self.0.poison_on_panic(Path::new("d")));
        }
    }

    #[test]
    fn a_panic_poisons_and_an_orderly_end_does_not() {
        let health = Health::default();
        drop(health.poison_on_panic(Path::new("d")));
        health.check_writable().unwrap();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _works = WorksWhenDropped(&health);
            std::panic::resume_unwind(Box::new("elsewhere"));
        }));
        assert!(unwound.is_err());
        health.check_writable().unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _watch = health.poison_on_panic(Path::new("d"));
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert!(panicked.is_err());
        let told = health.check_writable().unwrap_err().to_string();
        assert!(told.contains("panicked at work"), "{told}");
    }

    #[test]
    fn what_is_only_read_takes_no_changes_until_it_is_closed() {
        let health = Health::read_only();
        assert!(health.is_read_only() && !Health::default().is_read_only());
        health.check_readable().unwrap();
        assert!(matches!(health.check_writable(), Err(Error::ReadOnly)));
        let _ = health.poison(Error::ReadOnly);
        assert!(!health.is_poisoned());
        health.close();
        assert!(matches!(health.check_readable(), Err(Error::Closed)));
    }

    #[test]
    fn a_close_that_has_begun_takes_no_new_changes() {
        let health = Health::default();
        health.check_change().unwrap();
        health.begin_close();
        assert!(matches!(health.check_change(), Err(Error::Closed)));
        health.check_writable().unwrap();
        health.check_readable().unwrap();
        let _ = health.poison(Error::sync(Path::new("f"), std::io::Error::other("no disk")));
        assert!(matches!(health.check_change(), Err(Error::Poisoned { .. })));
        assert!(matches!(health.check_writable(), Err(Error::Poisoned { .. })));
        health.begin_close();
        assert!(matches!(health.check_writable(), Err(Error::Poisoned { .. })));
    }

    #[test]
    fn the_first_failure_is_the_one_that_is_told() {
        let health = Health::default();
        health.check_writable().unwrap();
        let io = |text: &'static str| Error::sync(Path::new("f"), std::io::Error::other(text));
        assert!(health.poison(io("first")).to_string().contains("first"));
        assert!(health.poison(io("second")).to_string().contains("second"));
        let told = health.check_writable().unwrap_err();
        assert!(matches!(&told, Error::Poisoned { .. }) && told.to_string().contains("first"), "{told}");
        health.check_readable().unwrap();
        health.close();
        assert!(matches!(health.check_readable(), Err(Error::Closed)));
        assert!(matches!(health.check_writable(), Err(Error::Closed)));
        assert!(health.is_poisoned());
    }
}
