//! Relocation: the index is pointed at copies of live records, for compaction and eviction.

use crate::index::{Index, KeyHash};
use crate::reclaim::pin;
use crate::segments::{Location, Segment};

/// Records whose index entries are prefetched together.
pub(crate) const LOOK_UPS_AT_A_TIME: usize = 16;

/// The old and the new place of a live record.
pub(crate) struct Move {
    pub(crate) hash: KeyHash,
    pub(crate) from: Location,
    pub(crate) to: Location,
    /// Bytes of the record.
    pub(crate) len: u64,
}

/// Points the index at the records' new places, which are in `new`. The index keeps the place of a
/// record that a writer has replaced since.
pub(crate) fn relocate_all(index: &Index, new: &Segment, moves: impl Iterator<Item = Move>) {
    let (mut moves, mut group) = (moves.peekable(), Vec::with_capacity(LOOK_UPS_AT_A_TIME));
    while moves.peek().is_some() {
        let guard = pin();
        for one in moves.by_ref().take(LOOK_UPS_AT_A_TIME) {
            index.prefetch(one.hash, &guard);
            group.push(one);
        }
        count_relocated(new, group.iter().map(|one| one.len).sum(), || {
            let done = group.drain(..).filter(|one| index.relocate(one.hash, one.from, one.to));
            done.map(|one| one.len).sum()
        });
    }
}

/// Calls `relocate`, which points the index at records in `new` of at most `bytes` bytes, and
/// returns the bytes that it relocated.
///
/// The bytes count as live before that: a writer that replaces a record right after its relocation
/// subtracts them. They are counted for a group, because an atomic addition waits for the earlier
/// stores of the thread, which are the copy of a record.
pub(crate) fn count_relocated(new: &Segment, bytes: u64, relocate: impl FnOnce() -> u64) {
    new.tally.came_to_life(bytes);
    let moved = relocate();
    new.tally.died(bytes - moved);
}
