use crate::{Durable, Engine, Lsn, Result, ScanVisitor, Value};
use std::ops::ControlFlow;

/// Conveniences on top of any [`Engine`].
pub trait EngineExt: Engine {
    /// Puts, and returns once the change is durable, with any policy.
    ///
    /// # Errors
    /// As for [`Engine::put`] and [`Engine::wait_durable`].
    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let lsn = self.put(key, value)?;
        self.wait_durable(lsn)?;
        Ok(lsn)
    }

    /// A future that is ready once `lsn` is durable: [`Engine::poll_durable`] for use with
    /// `.await`. It depends on no runtime.
    ///
    /// # Async use
    /// `put`, `delete`, `apply` and reads of resident values return quickly under a policy that
    /// acknowledges [`WhenVisible`](crate::Acknowledge::WhenVisible): call them in a task, and
    /// await this future where the task needs durability. Tasks that wait at the same time share
    /// one sync (group commit).
    ///
    /// `wait_durable`, `sync`, and `put` under [`Always`](crate::Always) block their thread for a
    /// whole sync. In a task they stop all other tasks of that thread. Those tasks cannot put
    /// meanwhile, so there is nothing to share: each sync covers one change. Run these calls on
    /// threads for blocking work (`spawn_blocking` in tokio).
    ///
    /// ```
    /// use kv_core::{Engine, EngineExt, Result};
    /// use std::sync::Arc;
    ///
    /// /// Handles one request.
    /// async fn store(engine: Arc<dyn Engine>, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
    ///     let lsn = engine.put(&key, &value)?; // visible
    ///     engine.durable(lsn).await // durable; other tasks run meanwhile
    /// }
    ///
    /// // The future may move between threads: any executor can spawn it.
    /// fn spawn(_task: impl Future<Output = Result<()>> + Send + 'static) {}
    /// # fn example(engine: Arc<dyn Engine>) {
    /// spawn(store(engine, b"key".to_vec(), b"value".to_vec()));
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`Engine::poll_durable`]. A future that waits while `close` makes its change durable
    /// is ready without an error.
    fn durable(&self, lsn: Lsn) -> Durable<'_, Self> {
        Durable::new(self, lsn)
    }

    /// Whether `key` is present.
    ///
    /// # Errors
    /// As for [`Engine::get`].
    fn contains_key(&self, key: &[u8]) -> Result<bool> {
        self.read(key, &mut |_| {})
    }

    /// The values of several keys, in their order; see [`Engine::read_many`].
    ///
    /// # Errors
    /// As for [`Engine::read_many`].
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        let mut values = Vec::with_capacity(keys.len());
        self.read_many(keys, &mut |_, value| values.push(value.map(Value::from)))?;
        Ok(values)
    }

    /// Scans the keys that start with `prefix`. O(all keys): engines keep no order.
    ///
    /// # Errors
    /// As for [`Engine::scan`].
    fn scan_prefix(&self, prefix: &[u8], visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.scan(&mut |key, value| {
            if key.starts_with(prefix) { visit(key, value) } else { ControlFlow::Continue(()) }
        })
    }

    /// All keys and values, sorted by key. For tests and tools: everything is copied.
    ///
    /// # Errors
    /// As for [`Engine::scan`].
    fn to_sorted_vec(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut pairs = Vec::new();
        self.scan(&mut |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        pairs.sort_unstable();
        Ok(pairs)
    }
}

impl<E: Engine + ?Sized> EngineExt for E {}
