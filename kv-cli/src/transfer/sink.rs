//! Pairs on their way into a store, many in one batch.

use crate::progress::Meter;
use kv_core::{Batch, Engine, Limits, Result};

/// Bytes of a batch. More are not faster.
const BATCH_BYTES: usize = 1 << 20;

/// Collects pairs, and puts them into a store.
pub(super) struct Sink<'a> {
    engine: &'a dyn Engine,
    meter: &'a Meter,
    batch: Batch,
    bytes: usize,
    pairs: u64,
    /// Pairs that are in the store.
    pub(super) taken: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(engine: &'a dyn Engine, meter: &'a Meter) -> Self {
        Sink { engine, meter, batch: Batch::new(), bytes: 0, pairs: 0, taken: 0 }
    }

    /// Takes one more pair.
    ///
    /// # Errors
    /// The store refuses this pair, or one before it; `taken` counts those that it has.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let bytes = key.len() + value.len() + Limits::CHANGE_OVERHEAD;
        if self.bytes + bytes > BATCH_BYTES {
            self.flush()?;
        }
        if bytes > BATCH_BYTES {
            self.engine.put(key, value)?;
            self.count(1);
            return Ok(());
        }
        self.batch.put(key, value);
        self.bytes += bytes;
        self.pairs += 1;
        Ok(())
    }

    /// Puts the collected pairs into the store.
    ///
    /// # Errors
    /// The store refuses a pair. It has all pairs before that one.
    pub(super) fn flush(&mut self) -> Result<()> {
        let batch = std::mem::replace(&mut self.batch, Batch::new());
        self.bytes = 0;
        let pairs = std::mem::take(&mut self.pairs);
        if self.engine.apply(&batch).is_ok() {
            self.count(pairs);
            return Ok(());
        }
        // One by one, to find the pair that it refuses.
        for change in batch.changes() {
            if let kv_core::Change::Put { key, value } = change {
                self.engine.put(key, value)?;
                self.count(1);
            }
        }
        Ok(())
    }

    fn count(&mut self, pairs: u64) {
        self.taken += pairs;
        self.meter.add_pairs(pairs);
    }
}
