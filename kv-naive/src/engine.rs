use kv_core::{
    AtExit, Background, Batch, Capabilities, Checkpoint, Compact, Engine, EngineFactory, Env, Life, Lsn,
    OpenOptions, PointInTime, Result, ScanVisitor, Stats, Value, call_at_exit,
};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::identity;
use crate::store::Store;
use crate::worker::Worker;

/// A hash table with snapshots. See the [crate documentation](crate).
///
/// Dropping the last handle closes the store. Of a store in a `static`, which is never dropped, the
/// visible changes are made durable when `main` returns, and an error is not told;
/// [`close`](Engine::close) tells it. A forked child gets [`Forked`](kv_core::Error::Forked).
#[derive(Debug)]
pub struct NaiveEngine {
    store: Arc<Store>,
    life: Life<Worker>,
}

impl NaiveEngine {
    /// Opens the store in `dir`, loading its snapshot.
    ///
    /// # Errors
    /// `Locked`, `NotAStore`, `UnsupportedVersion`, `Corruption`, `InvalidArgument`, I/O errors. A failed
    /// open leaves the store as it was.
    pub fn open(dir: &Path, env: &Env, options: OpenOptions) -> Result<Self> {
        let store = Arc::new(Store::open(dir, env, options)?);
        let worker = Worker::start(&store)?;
        if env.background == Background::Threads && !store.options.read_only {
            let weak: Weak<Store> = Arc::downgrade(&store);
            call_at_exit(weak);
        }
        Ok(NaiveEngine { store, life: Life::new(worker) })
    }

    /// Refuses to wait on a closed store, or for an LSN that was not given out.
    fn check_wait(&self, lsn: Lsn) -> Result<()> {
        self.store.health.check_wait(lsn, self.store.table.last_lsn())
    }
}

/// What the allocations of a key and its value take beyond their bytes, estimated: 16 bytes each of headers
/// and rounding, and 16 for the value's reference counts.
const ALLOCATION_BYTES_PER_KEY: u64 = 48;

impl Engine for NaiveEngine {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let store = &*self.store;
        store.options.limits.check_key(key)?;
        store.options.limits.check_value(value)?;
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
        store.options.limits.check_batch_with(batch, store.key_len_max)?;
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
        let table = &self.store.table;
        for shard in 0..table.shards() {
            for (key, entry) in table.copy_shard(shard, || {}) {
                if visit(&key, &entry.value).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<Lsn> {
        self.store.health.check_writable()?;
        self.store.make_durable(self.store.table.last_lsn())?;
        Ok(self.store.progress.durable_lsn())
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.check_wait(lsn)?;
        self.store.make_durable(lsn)
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.check_wait(lsn)?;
        self.store.poll_durable(lsn, cx)
    }

    fn durable_lsn(&self) -> Lsn {
        self.store.progress.durable_lsn()
    }

    fn last_lsn(&self) -> Lsn {
        self.store.table.last_lsn()
    }

    fn stats(&self) -> Stats {
        let (table, counters) = (&self.store.table, &self.store.counters);
        let mut stats = Stats::default();
        // Before the visible side, which it never passes.
        stats.durable_lsn = self.store.progress.durable_lsn();
        let position = table.position();
        stats.keys = table.len() as u64;
        stats.live_bytes = table.live_bytes();
        stats.memory_bytes = stats.live_bytes + ALLOCATION_BYTES_PER_KEY * stats.keys;
        stats.index_bytes = table.slot_bytes();
        stats.unflushed_bytes = self.store.progress.pending(position, Duration::ZERO).bytes;
        stats.disk_bytes =
            counters.snapshot_bytes.load(Ordering::Relaxed) + identity::FILE_LEN + self.store.reserve.len();
        stats.last_lsn = position.lsn;
        stats.changes = position.changes;
        stats.dumps = counters.snapshots.load(Ordering::Relaxed);
        stats.syncs = counters.syncs.load(Ordering::Relaxed);
        stats.bytes_written = counters.bytes_written.load(Ordering::Relaxed);
        stats.recovery = self.store.recovery.clone();
        stats
    }

    fn close(&self) -> Result<()> {
        self.store.health.check_process()?;
        let answer = self.life.close(|worker| {
            worker.stop(&self.store);
            self.store.close()
        });
        self.store.wake_tasks();
        answer
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        None
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        None
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        None
    }
}

impl AtExit for Store {
    fn at_exit(&self) {
        if self.health.check_writable().is_ok() {
            let _ = self.make_durable(self.table.last_lsn());
        }
    }
}

impl Drop for NaiveEngine {
    fn drop(&mut self) {
        if self.store.health.check_process().is_ok() {
            let _ = self.close();
            return;
        }
        // This process was forked from the one that opened the store. The thread is not here, and
        // locks may be held for ever: nothing of the store may be dropped.
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
        Capabilities::new().read_only(true)
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(NaiveEngine::open(dir, env, options.clone())?))
    }
}
