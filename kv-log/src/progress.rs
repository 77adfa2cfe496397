//! Long work on the files of a store. The caller sees its progress, and can end it.

use kv_core::{Background, Error, Result};
use parking_lot::Mutex;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::processors::each_on_all_processors;

/// How far the work on a store's files is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that are done.
    pub bytes: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
}

/// Ignores the progress.
pub fn silently(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Is told the progress after each file, on any thread. `Break` ends the work early, with an
/// [`Error::Io`] of the kind `Interrupted`.
pub type OnProgress<'a> = dyn Fn(Progress) -> ControlFlow<()> + Sync + 'a;

/// Work on one file after the other, on all processors.
pub(crate) struct Work<'a> {
    background: Background,
    dir: &'a Path,
    on_progress: &'a OnProgress<'a>,
    progress: Mutex<Progress>,
    is_stopped: AtomicBool,
}

impl<'a> Work<'a> {
    /// On the files in `dir`.
    pub(crate) fn new(
        background: Background,
        dir: &'a Path,
        bytes_total: u64,
        on_progress: &'a OnProgress<'a>,
    ) -> Self {
        let progress = Mutex::new(Progress { bytes: 0, bytes_total });
        Work { background, dir, on_progress, progress, is_stopped: AtomicBool::new(false) }
    }

    /// `bytes` more are to be done.
    pub(crate) fn expect(&self, bytes: u64) {
        self.progress.lock().bytes_total += bytes;
    }

    /// `bytes` more are done.
    pub(crate) fn advance(&self, bytes: u64) {
        let progress = {
            let mut progress = self.progress.lock();
            progress.bytes += bytes;
            *progress
        };
        if (self.on_progress)(progress).is_break() {
            self.is_stopped.store(true, Ordering::Relaxed);
        }
    }

    /// As [`each_on_all_processors`], until the caller ends the work.
    pub(crate) fn run<I: Sync, S: Default, T: Send>(
        &self,
        items: &[I],
        one: impl Fn(&I, &mut S) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        each_on_all_processors(self.background, items, |item, state| {
            if self.is_stopped.load(Ordering::Relaxed) {
                return Err(Error::io("finish the work on", self.dir, ErrorKind::Interrupted.into()));
            }
            one(item, state)
        })
    }
}
