use kv_core::parts::{Life, Threads, call_at_exit};
use kv_core::{
    Batch, Capabilities, Checkpoint, Compact, Engine, EngineFactory, Env, Lsn, OpenOptions, PointInTime,
    Result, ScanVisitor, Stats, Value,
};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use crate::open::open;
use crate::store::Store;

/// A hash table with snapshots. See the [crate documentation](crate).
///
/// Dropping the last handle closes the store. A store in a `static` is never dropped. When `main`
/// returns, the engine makes its visible changes durable, and ignores errors. Call
/// [`close`](Engine::close) to see them. A forked child gets [`Forked`](kv_core::Error::Forked).
#[derive(Debug)]
pub struct NaiveEngine {
    store: Arc<Store>,
    life: Life<Threads>,
}

impl NaiveEngine {
    /// Opens the store in `dir` and loads its snapshot, on the operating system's files and clock.
    ///
    /// # Errors
    /// `Locked`, `NotAStore`, `UnsupportedVersion`, `Corruption`, `InvalidArgument`, I/O errors. A
    /// failed open leaves the store as it was.
    pub fn open(dir: impl AsRef<Path>, options: OpenOptions) -> Result<Self> {
        Self::open_in(dir.as_ref(), &Env::os(), options)
    }

    /// As [`open`](Self::open), in an environment of the caller's choice.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    #[expect(clippy::needless_pass_by_value, reason = "every engine takes its options by value")]
    pub fn open_in(dir: &Path, env: &Env, options: OpenOptions) -> Result<Self> {
        let store = Arc::new(open(dir, env, &options)?);
        let mut threads = Threads::of(dir);
        if store.has_thread() {
            // The thread shares the store and not the engine: dropping the engine stops it.
            let (of_thread, dir) = (Arc::clone(&store), dir.to_path_buf());
            threads.start("kv-naive snapshot", move || of_thread.snapshot_when_due(&dir))?;
            let weak: Weak<Store> = Arc::downgrade(&store);
            call_at_exit(weak);
        }
        Ok(NaiveEngine { store, life: Life::new(threads) })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Refuses to wait on a closed store, or for an LSN that no change has.
    fn check_wait(&self, lsn: Lsn) -> Result<()> {
        self.store.health.check_wait(lsn, self.store.table.last_lsn())
    }
}

/// An estimate of the memory that the allocations of a key and its value take beyond their bytes:
/// 16 bytes each for headers and rounding, and 16 for the value's reference counts.
const ALLOCATION_BYTES_PER_KEY: u64 = 48;

impl Engine for NaiveEngine {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let store = &*self.store;
        store.limits.check_key(key)?;
        store.limits.check_value(value)?;
        store.before_change()?;
        let lsn = store.table.put(key, value)?;
        store.after_change(lsn)?;
        Ok(lsn)
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        let store = &*self.store;
        store.check_look_up(key)?;
        store.before_change()?;
        let lsn = store.table.delete(key)?;
        lsn.map_or(Ok(()), |lsn| store.after_change(lsn))?;
        Ok(lsn)
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        let store = &*self.store;
        store.limits.check_batch_with(batch, store.key_len_max)?;
        store.before_change()?;
        match store.table.apply(batch)? {
            Some(lsn) => store.after_change(lsn).map(|()| lsn),
            None => Ok(store.table.last_lsn()),
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.store.health.check_readable()?;
        self.store.check_look_up(key)?;
        Ok(self.store.table.get(key))
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.store.health.check_readable()?;
        self.store.check_look_up(key)?;
        let value = self.store.table.share(key);
        if let Some(value) = &value {
            visit(value);
        }
        Ok(value.is_some())
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.store.health.check_readable()?;
        keys.iter().try_for_each(|key| self.store.check_look_up(key))?;
        for (position, key) in keys.iter().enumerate() {
            if !self.read(key, &mut |value| visit(position, Some(value)))? {
                visit(position, None);
            }
        }
        Ok(())
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.store.health.check_readable()?;
        let _ = self.store.table.copy().try_for_each(|(key, entry)| visit(&key, &entry.value));
        Ok(())
    }

    fn sync(&self) -> Result<Lsn> {
        self.store.health.check_writable()?;
        self.store.snapshotter.make_all_durable()?;
        Ok(self.store.snapshotter.durable_lsn())
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.check_wait(lsn)?;
        self.store.snapshotter.make_durable(lsn)
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.check_wait(lsn)?;
        self.store.poll_durable(lsn, cx)
    }

    fn durable_lsn(&self) -> Lsn {
        self.store.snapshotter.durable_lsn()
    }

    fn last_lsn(&self) -> Lsn {
        self.store.table.last_lsn()
    }

    fn stats(&self) -> Stats {
        let table = &self.store.table;
        let mut stats = Stats::default();
        self.store.snapshotter.fill(&mut stats);
        stats.keys = table.len() as u64;
        stats.live_bytes = table.live_bytes();
        stats.memory_bytes = stats.live_bytes + ALLOCATION_BYTES_PER_KEY * stats.keys;
        stats.index_bytes = table.slot_bytes();
        stats.retired_bytes = table.kept_bytes();
        stats.recovery = self.store.recovery.clone();
        stats
    }

    fn close(&self) -> Result<()> {
        self.store.health.check_process()?;
        let answer = self.life.close(|threads| {
            self.store.pacing.stop();
            threads.join();
            self.store.close()
        });
        self.store.pacing.wake_tasks();
        answer
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        Some(self)
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        Some(self)
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        None
    }
}

/// The snapshot is the checkpoint.
impl Checkpoint for NaiveEngine {
    fn checkpoint(&self) -> Result<Lsn> {
        self.sync()
    }
}

impl Drop for NaiveEngine {
    fn drop(&mut self) {
        if self.store.health.check_process().is_ok() {
            let _ = self.close();
            return;
        }
        // This process was forked from the one that opened the store. It has no worker thread, and
        // locks may be held forever, so no part of the store may be dropped.
        self.life.forget();
        std::mem::forget(Arc::clone(&self.store));
    }
}

/// Opens [`NaiveEngine`]s for a suite, a benchmark or a tool.
#[derive(Clone, Copy, Debug, Default)]
pub struct NaiveFactory;

impl EngineFactory for NaiveFactory {
    fn name(&self) -> &'static str {
        "naive"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().checkpoint(true).read_only(true).point_in_time(true)
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(NaiveEngine::open_in(dir, env, options.clone())?))
    }
}
