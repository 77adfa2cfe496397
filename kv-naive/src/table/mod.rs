//! The hash table, and its state at one LSN while writers go on.
//!
//! **The gate.** A writer holds the gate shared while it takes an LSN and changes one entry. It
//! does both under the lock of the entry's shard. A batch holds the gate exclusively, and so does a
//! [`Cut`] while it begins.
//!
//! **Log order.** A writer takes the LSN, and changes the entry, before it unlocks the shard. A
//! reader of the key waits for that lock. So no reader sees a later change and misses this one.
//! `last_lsn` may name a put an instant before it can be read. A cut begins with no writer in
//! flight: it holds all changes up to its LSN and none beyond.
//!
//! **Batches** become visible at once: a sequence number is odd while one is applied. A reader that
//! finds the number odd or changed reads again behind the gate, and so waits for one batch at most.
//! Other readers write only to the lock of a shard and, if they share the value, to its reference
//! count.
//!
//! Lock order: gate, shard, entries kept for a cut.

mod cut;
mod hash_table;
mod shards;
#[cfg(test)]
mod tests;

pub(crate) use cut::Cut;
pub(crate) use hash_table::Table;
pub(crate) use shards::Entry;
