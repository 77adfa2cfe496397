//! [`LogEngine`]: opens and closes a store, and hands each call to a part.

use kv_core::parts::{AtExit, Life, Threads, call_at_exit};
use kv_core::{
    Batch, Checkpoint, Compact, CompactionReport, Engine, Env, Lsn, PointInTime, RecoveryReport, Result,
    ScanVisitor, Stats, Value,
};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use crate::commit::commit_batch;
use crate::options::Options;
use crate::reclaim::collect;
use crate::recovery::open;
use crate::store::Store;
use crate::workers;

/// A log-structured key-value store. See the [crate documentation](crate).
///
/// # The end of the process
/// Dropping the last handle closes the store. A store in a `static`, or a leaked one, is never
/// dropped. When `main` returns, or the process calls [`std::process::exit`], the engine makes its
/// visible changes durable as by [`sync`](Engine::sync), and ignores errors. Call
/// [`close`](Engine::close) before that to see errors. If the process aborts or is killed, some
/// changes are not dumped yet. The next opening recovers them from shared memory: see
/// [`Options::process_safe`].
///
/// # Forked children
/// A child process that was forked from the one that opened the store gets
/// [`Forked`](kv_core::Error::Forked) from every call that reads, changes, syncs or closes. The
/// parent's store goes on. On Linux, the child may open another store.
///
/// One risk remains if the parent has several threads, which a store starts, too. All locks of
/// `parking_lot` share a table of waiting threads. If another thread changes this table at the
/// moment of the fork, a part of it stays locked in the child. A thread of the child that has to
/// wait for a lock can then hang. If a child must never hang, fork it before you open the first
/// store.
#[derive(Debug)]
pub struct LogEngine {
    pub(crate) store: Arc<Store>,
    life: Life<Threads>,
}

impl LogEngine {
    /// Opens the store in `dir`, on the operating system's files and clock.
    ///
    /// # Errors
    /// `Locked`, `NotAStore`, `UnsupportedVersion`, `Corruption`, `InvalidArgument`, a refusal, I/O
    /// errors. After a failed open, the next one recovers the same state. The failed one may have
    /// written changes of a dead process from shared memory to the files.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_in(dir.as_ref(), &Env::os(), options)
    }

    /// As [`open`](Self::open), in an environment of the caller's choice.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_in(dir: &Path, env: &Env, options: Options) -> Result<Self> {
        let store = Arc::new(open(dir, env, options)?);
        let threads = workers::start(&store)?;
        if store.context.has_workers() {
            let weak: Weak<Store> = Arc::downgrade(&store);
            call_at_exit(weak);
        }
        Ok(LogEngine { store, life: Life::new(threads) })
    }

    /// The report of the recovery at open.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.store.recovery.report
    }

    /// The parts, for tests that do a worker's work.
    #[cfg(all(test, not(shuttle)))]
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Refuses to wait on a closed store, or for an LSN that no change has.
    fn check_wait(&self, lsn: Lsn) -> Result<()> {
        self.store.context.health.check_wait(lsn, self.store.log.end.last_lsn())
    }
}

impl Engine for LogEngine {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let end = self.store.committer.put(key, value)?;
        self.store.after_change(end)?;
        Ok(end.lsn)
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        let Some(end) = self.store.committer.delete(key)? else { return Ok(None) };
        self.store.after_change(end)?;
        Ok(Some(end.lsn))
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        let end = commit_batch(&self.store.committer, batch)?;
        self.store.after_change(end)?;
        Ok(end.lsn)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.store.reader.get(key)
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.store.reader.read(key, visit)
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.store.reader.read_many(keys, visit)
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.store.reader.scan(visit)
    }

    fn sync(&self) -> Result<Lsn> {
        self.store.context.health.check_writable()?;
        self.store.flusher.make_durable(self.store.log.end.last_lsn())?;
        self.store.compact_if_due()?;
        Ok(self.store.progress.durable_lsn())
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.check_wait(lsn)?;
        self.store.flusher.make_durable(lsn)?;
        if self.store.context.options.read_only { Ok(()) } else { self.store.compact_if_due() }
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.check_wait(lsn)?;
        self.store.poll_durable(lsn, cx)
    }

    fn durable_lsn(&self) -> Lsn {
        self.store.progress.durable_lsn()
    }

    fn last_lsn(&self) -> Lsn {
        self.store.log.end.last_lsn()
    }

    fn stats(&self) -> Stats {
        self.store.stats()
    }

    fn close(&self) -> Result<()> {
        self.store.context.health.check_process()?;
        let answer = self.life.close(|threads| {
            workers::stop(&self.store, threads);
            self.store.close()
        });
        self.store.wake_tasks();
        // Frees memory that readers no longer use.
        collect();
        answer
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        Some(self)
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        Some(self)
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        Some(self)
    }
}

impl Compact for LogEngine {
    fn compact(&self) -> Result<CompactionReport> {
        self.store.context.health.check_change()?;
        self.store.compactor.compact_all()
    }
}

impl Checkpoint for LogEngine {
    fn checkpoint(&self) -> Result<Lsn> {
        self.store.context.health.check_change()?;
        self.store.checkpointer.checkpoint(&self.store.compactor)
    }
}

impl AtExit for Store {
    fn at_exit(&self) {
        if self.context.health.check_writable().is_ok() {
            let _ = self.flusher.make_durable(self.log.end.last_lsn());
        }
    }
}

impl Drop for LogEngine {
    fn drop(&mut self) {
        if self.store.context.health.check_process().is_ok() {
            let _ = self.close();
            return;
        }
        // This process was forked from the one that opened the store. It has no worker threads, and
        // locks may be held forever, so no part of the store may be dropped.
        self.life.forget();
        std::mem::forget(Arc::clone(&self.store));
    }
}
