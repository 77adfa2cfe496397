use kv_core::{
    Batch, Capabilities, Checkpoint, Compact, Engine, EngineFactory, Env, Error, Lsn, OpenOptions,
    PointInTime, Result, ScanVisitor, Stats, Value,
};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crate::store::Store;

/// A hash table with snapshots. See the [crate documentation](crate).
#[derive(Debug)]
pub struct NaiveEngine {
    store: Arc<Store>,
    /// Also what makes closing happen once.
    worker: Mutex<Worker>,
}

/// The background thread of an open store.
#[derive(Debug)]
enum Worker {
    /// `None` in inline mode.
    Open(Option<JoinHandle<()>>),
    Closed,
}

impl NaiveEngine {
    /// Opens the store in `dir`, loading its snapshot.
    ///
    /// # Errors
    /// `Locked`, `NotAStore`, `UnsupportedVersion`, `Corruption`, `InvalidArgument`, I/O errors. A failed
    /// open leaves the store as it was.
    pub fn open(dir: &Path, env: &Env, options: OpenOptions) -> Result<Self> {
        let store = Arc::new(Store::open(dir, env, options)?);
        let worker = store.start_worker()?;
        Ok(NaiveEngine { store, worker: Mutex::new(Worker::Open(worker)) })
    }
}

impl Engine for NaiveEngine {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        self.store.options.limits.check_key(key)?;
        self.store.options.limits.check_value(value)?;
        self.store.before_change()?;
        let lsn = self.store.table.put(key, value).ok_or(Error::Closed)?;
        self.store.after_change(lsn)?;
        Ok(lsn)
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        self.store.options.limits.check_key(key)?;
        self.store.before_change()?;
        let (lsn, changed) = self.store.table.delete(key).ok_or(Error::Closed)?;
        if changed {
            self.store.after_change(lsn)?;
        }
        Ok(changed.then_some(lsn))
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        self.store.options.limits.check_batch(batch)?;
        self.store.before_change()?;
        let (lsn, changed) = self.store.table.apply(batch).ok_or(Error::Closed)?;
        if changed {
            self.store.after_change(lsn)?;
        }
        Ok(lsn)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.store.health.check_readable()?;
        self.store.options.limits.check_key(key)?;
        Ok(self.store.table.get(key).map(|value| Value::from(&*value)))
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.store.health.check_readable()?;
        self.store.options.limits.check_key(key)?;
        let value = self.store.table.get(key);
        if let Some(value) = &value {
            visit(value);
        }
        Ok(value.is_some())
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.store.health.check_readable()?;
        for (key, value) in self.store.table.pairs() {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<Lsn> {
        self.store.health.check_writable()?;
        self.store.make_durable(self.store.table.last_lsn())?;
        Ok(self.store.durable_lsn())
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.store.health.check_readable()?;
        let last = self.store.table.last_lsn();
        if lsn > last {
            return Err(Error::InvalidArgument(format!(
                "cannot wait for LSN {lsn}: the newest change has LSN {last}"
            )));
        }
        self.store.make_durable(lsn)
    }

    fn durable_lsn(&self) -> Lsn {
        self.store.durable_lsn()
    }

    fn last_lsn(&self) -> Lsn {
        self.store.table.last_lsn()
    }

    fn stats(&self) -> Stats {
        let (table, counters) = (&self.store.table, &self.store.counters);
        let mut stats = Stats::default();
        stats.keys = table.len() as u64;
        stats.live_bytes = table.live_bytes();
        // Each key and each value is an allocation; a value's holds two reference counts.
        stats.memory_bytes = stats.live_bytes + 16 * stats.keys;
        stats.index_bytes = table.slot_bytes();
        stats.unflushed_bytes = self.store.unflushed_bytes();
        stats.disk_bytes = counters.disk_bytes.load(Ordering::Relaxed);
        stats.last_lsn = table.last_lsn();
        stats.durable_lsn = self.store.durable_lsn();
        stats.changes = table.position().changes;
        stats.dumps = counters.snapshots.load(Ordering::Relaxed);
        stats.syncs = counters.syncs.load(Ordering::Relaxed);
        stats.bytes_written = counters.bytes_written.load(Ordering::Relaxed);
        stats.recovery = self.store.recovery.clone();
        stats
    }

    fn close(&self) -> Result<()> {
        let worker = std::mem::replace(&mut *self.worker.lock(), Worker::Closed);
        let Worker::Open(worker) = worker else { return Ok(()) };
        self.store.stop_worker(worker);
        self.store.close()
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

impl Drop for NaiveEngine {
    fn drop(&mut self) {
        let _ = self.close();
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
        Capabilities::new()
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(NaiveEngine::open(dir, env, options.clone())?))
    }
}
