use crate::progress::Meter;
use kv_core::{Engine, Result};

/// Puts pairs into a store, and counts them.
///
/// Each pair is a change of its own: damage to one record of a batch costs the whole batch.
pub(super) struct Sink<'a> {
    engine: &'a dyn Engine,
    meter: &'a Meter,
    /// Pairs that are in the store.
    pub(super) taken: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(engine: &'a dyn Engine, meter: &'a Meter) -> Self {
        Sink { engine, meter, taken: 0 }
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.engine.put(key, value)?;
        self.taken += 1;
        self.meter.add_one();
        Ok(())
    }
}
