//! Pairs on their way into a store, many in one batch.

use crate::failure::Failure;
use crate::progress::Meter;
use kv_core::{Batch, Engine, Error, Limits};

/// Bytes of a batch. More are not faster.
const BATCH_BYTES: usize = 1 << 20;

/// Why a store refuses a pair.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: Error,
    /// Whether it refuses the pair of this call, and not one before.
    pub(super) is_this: bool,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal { error, is_this: false }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Store(refusal.error)
    }
}

/// Collects pairs, and puts them into a store.
pub(super) struct Sink<'a> {
    engine: &'a dyn Engine,
    meter: &'a Meter,
    limits: Limits,
    batch: Batch,
    bytes: usize,
    pairs: u64,
    /// Pairs that are in the store.
    pub(super) taken: u64,
}

impl<'a> Sink<'a> {
    /// Into `engine`, which takes pairs within `limits`.
    pub(super) fn new(engine: &'a dyn Engine, limits: Limits, meter: &'a Meter) -> Self {
        Sink { engine, meter, limits, batch: Batch::new(), bytes: 0, pairs: 0, taken: 0 }
    }

    /// Takes one more pair.
    ///
    /// # Errors
    /// The store refuses this pair, or one before it; `taken` counts those that it has.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let bytes = key.len() + value.len() + Limits::CHANGE_OVERHEAD;
        let is_refused = key.len() > self.limits.key_len_max || value.len() > self.limits.value_len_max;
        let is_alone = bytes > BATCH_BYTES || is_refused;
        if self.bytes + bytes > BATCH_BYTES || is_alone {
            self.flush()?;
        }
        if is_alone {
            self.engine.put(key, value).map_err(|error| Refusal { error, is_this: true })?;
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
    pub(super) fn flush(&mut self) -> Result<(), Error> {
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
