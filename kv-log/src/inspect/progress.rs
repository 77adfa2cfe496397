use kv_core::{Background, Error, Result};
use parking_lot::Mutex;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::processors::on_all_processors;

/// How far the work on a store's files is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that are done.
    pub bytes: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
}

/// Is told the progress after each file, on any thread. `Break` ends the work early, with an
/// [`Error::Io`] of the kind `Interrupted`.
pub type OnProgress<'a> = dyn Fn(Progress) -> ControlFlow<()> + Sync + 'a;

/// Work on one file after the other, on all processors.
pub(super) struct Work<'a> {
    dir: &'a Path,
    on_progress: &'a OnProgress<'a>,
    progress: Mutex<Progress>,
    is_stopped: AtomicBool,
}

impl<'a> Work<'a> {
    pub(super) fn new(dir: &'a Path, bytes_total: u64, on_progress: &'a OnProgress<'a>) -> Self {
        let progress = Mutex::new(Progress { bytes: 0, bytes_total });
        Work { dir, on_progress, progress, is_stopped: AtomicBool::new(false) }
    }

    /// `bytes` more are done.
    pub(super) fn advance(&self, bytes: u64) {
        let progress = {
            let mut progress = self.progress.lock();
            progress.bytes += bytes;
            *progress
        };
        if (self.on_progress)(progress).is_break() {
            self.is_stopped.store(true, Ordering::Relaxed);
        }
    }

    /// The results of `one` for each of `items`, in their order. Each thread has a state of its
    /// own.
    pub(super) fn run<I: Sync, S: Default, T: Send>(
        &self,
        items: &[I],
        one: impl Fn(&I, &mut S) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
        let work = || {
            let mut state = S::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(number).filter(|_| !self.is_stopped.load(Ordering::Relaxed))
                else {
                    return;
                };
                let result = one(item, &mut state);
                if result.is_err() {
                    self.is_stopped.store(true, Ordering::Relaxed);
                }
                results.lock().push((number, result));
            }
        };
        on_all_processors(Background::Threads, items.len(), work);
        let mut results = results.into_inner();
        results.sort_unstable_by_key(|(number, _)| *number);
        let done = results.len();
        let results = results.into_iter().map(|(_, result)| result).collect::<Result<Vec<_>>>()?;
        if done < items.len() {
            return Err(Error::io("finish the work on", self.dir, ErrorKind::Interrupted.into()));
        }
        Ok(results)
    }
}
