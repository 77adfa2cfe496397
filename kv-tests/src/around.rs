//! An engine around another one, for a factory that counts or disturbs while the suite runs.

use kv_core::{Batch, Checkpoint, Compact, Engine, Lsn, PointInTime, Result, ScanVisitor, Stats, Value};
use std::fmt::Debug;
use std::task::{Context, Poll};

/// The additions of an [`Around`] to its engine.
pub trait Hooks<E>: Debug + Send + Sync {
    /// Called before each `put`, `delete` and `apply`. The call returns its error, and the engine
    /// does not see the call.
    fn before_change(&self, _engine: &E) -> Result<()> {
        Ok(())
    }

    /// Called before the engine is dropped.
    fn before_drop(&self, _engine: &E) {}
}

/// Passes every call on to `engine`.
#[derive(Debug)]
pub struct Around<E, H: Hooks<E>> {
    engine: E,
    hooks: H,
}

impl<E, H: Hooks<E>> Around<E, H> {
    /// `engine` with these hooks.
    pub fn new(engine: E, hooks: H) -> Self {
        Around { engine, hooks }
    }
}

impl<E, H: Hooks<E>> Drop for Around<E, H> {
    fn drop(&mut self) {
        self.hooks.before_drop(&self.engine);
    }
}

impl<E: Engine, H: Hooks<E>> Engine for Around<E, H> {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        self.hooks.before_change(&self.engine)?;
        self.engine.put(key, value)
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        self.hooks.before_change(&self.engine)?;
        self.engine.delete(key)
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        self.hooks.before_change(&self.engine)?;
        self.engine.apply(batch)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.engine.get(key)
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.engine.read(key, visit)
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.engine.read_many(keys, visit)
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.engine.scan(visit)
    }

    fn sync(&self) -> Result<Lsn> {
        self.engine.sync()
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.engine.wait_durable(lsn)
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.engine.poll_durable(lsn, cx)
    }

    fn durable_lsn(&self) -> Lsn {
        self.engine.durable_lsn()
    }

    fn last_lsn(&self) -> Lsn {
        self.engine.last_lsn()
    }

    fn stats(&self) -> Stats {
        self.engine.stats()
    }

    fn close(&self) -> Result<()> {
        self.engine.close()
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        self.engine.as_checkpoint()
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        self.engine.as_point_in_time()
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        self.engine.as_compact()
    }
}
