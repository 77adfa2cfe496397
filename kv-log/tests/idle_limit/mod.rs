//! The memory of an idle store.

use kv_core::Stats;

/// Header and alignment of a small record, bytes.
pub(crate) const HEADER_LEN: u64 = 14;

/// Bytes of all live records.
pub(crate) fn record_bytes(stats: &Stats) -> u64 {
    stats.live_bytes + stats.keys * HEADER_LEN
}

/// Whether at most a tenth of the memory holds no record. The active segment has a sixteenth of the
/// store, and its memory is reserved. An empty store may take 128 KiB.
pub(crate) fn is_small(stats: &Stats) -> bool {
    let records = record_bytes(stats);
    stats.memory_bytes + stats.retired_bytes <= records * 11 / 10 + records / 16 + (128 << 10)
}
