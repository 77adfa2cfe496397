//! The operations that the bench measures.

use crate::failure::Failure;
use kv_core::Engine;

/// Receives a value in place.
pub(crate) type Visit<'a> = dyn FnMut(&[u8]) + 'a;

/// A store or a table, as far as the bench measures it. Any thread may call any method. A change is
/// visible to all threads when its call returns.
pub(crate) trait Subject: Send + Sync {
    /// Stores `value` under `key`.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure>;

    /// Shows the value in the subject's cheapest way: borrowed, if the subject can lend it.
    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure>;

    /// Gets a value that outlives the call and any later change, and shows it.
    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure>;

    /// Removes `key`, which the caller knows to be there. An engine that does not find it is wrong.
    fn delete(&self, key: &[u8]) -> Result<(), Failure>;

    /// Counts the keys. The bench does not time it, so it may visit all of them.
    fn count(&self) -> Result<u64, Failure>;

    /// Makes all earlier changes durable. A volatile table has nothing to do.
    fn sync(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Shuts the subject down cleanly. A volatile table has nothing to do.
    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }

    /// The engine of this workspace behind the subject, if any: for its statistics.
    fn engine(&self) -> Option<&dyn Engine> {
        None
    }
}
