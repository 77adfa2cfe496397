//! Verification: the entries of a checkpoint are compared with the records of one segment.
//!
//! Until a segment is verified, readers read its records from its file, which checks each. An image
//! has no such check, and a compaction trusts that each live record has its entry. So verification
//! comes before both.

use kv_core::{Error, Result};
use kv_wal_format::{RecordKind, SEGMENT_HEADER_LEN, SMALL_HEADER_LEN, Scanner, Seal, StopReason};
use std::sync::atomic::AtomicU64;

use crate::index::{ByShard, Index, Records, prefetched};
use crate::reclaim::pin;
use crate::segments::{Contents, Location, Segment, SegmentTable};
use crate::working::Working;

/// The puts of a segment whose records were checked.
#[derive(Debug)]
pub(crate) struct Checked {
    puts: ByShard,
}

/// Checks every record of a segment, whose bytes are `contents`, and that each location in it leads
/// to a put with the hash of its entry. Writers go on meanwhile: each waits at most while the puts
/// in its shard are compared. One thread at a time verifies. `gauge` counts the memory that this
/// takes.
///
/// # Errors
/// As for [`Checked::new`] and [`Checked::compare`].
pub(crate) fn verify(
    segment: &Segment,
    contents: &Contents,
    index: &Index,
    segments: &SegmentTable,
    gauge: &AtomicU64,
) -> Result<()> {
    if !segment.is_unverified() {
        return Ok(());
    }
    let checked = Checked::new(segment, contents, index)?;
    let _working = Working::of(gauge, checked.memory_bytes());
    checked.compare(segment, index, segments)
}

impl Checked {
    /// Checks every record up to the seal, and the seal. Several threads may do so at a time.
    ///
    /// # Errors
    /// The segment is damaged. The system has no memory for the list of its puts.
    pub(crate) fn new(segment: &Segment, contents: &Contents, index: &Index) -> Result<Self> {
        let bytes = contents.bytes();
        let mut scanner = Scanner::new(segment.origin(), bytes, SEGMENT_HEADER_LEN);
        let (mut puts, mut last) = (Records::new(index, segment.file.path()), None);
        // A damaged checkpoint may name any number.
        let records = usize::try_from(segment.tally.records()).unwrap_or(usize::MAX);
        puts.reserve(records.min(bytes.len() / SMALL_HEADER_LEN))?;
        for (range, record) in scanner.by_ref() {
            last = Seal::from_record(&record);
            if record.kind == RecordKind::Put {
                puts.add(record.key, &range)?;
            }
        }
        let stop = scanner.stop();
        let is_whole = stop.reason == StopReason::Sealed && stop.offset == bytes.len();
        if is_whole && last == Some(segment.seal()) {
            return Ok(Checked { puts: puts.by_shard()? });
        }
        let fault = format!("this sealed segment cannot be read up to its seal: {}", stop.reason);
        Err(Error::corruption(segment.file.path(), stop.fault as u64, fault))
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.puts.memory_bytes()
    }

    /// Checks that each location in the segment leads to one of its puts, unless it is verified.
    /// Afterwards it is. One thread at a time compares.
    ///
    /// # Errors
    /// The checkpoint was wrong. A record of a suspect cannot be read.
    pub(crate) fn compare(&self, segment: &Segment, index: &Index, segments: &SegmentTable) -> Result<()> {
        if !segment.is_unverified() {
            return Ok(());
        }
        index.settle_at(|location| location.slot() == segment.slot, segments)?;
        let (mut entries, mut live) = (0, 0);
        for shard in 0..index.shard_count() {
            let puts = self.puts.of(shard);
            if puts.is_empty() {
                continue;
            }
            let (guard, locked) = (pin(), index.lock(shard));
            for put in prefetched(puts, |put| index.prefetch(put.hash, &guard)) {
                if locked.points_at(put.hash, Location::new(segment.slot, put.start())) {
                    entries += 1;
                    live += put.len() as u64;
                }
            }
            segment.note_walked(shard);
        }
        match segment.end_walk(entries, live) {
            0 => Ok(()),
            unfounded => {
                let fault =
                    format!("a checkpoint has {unfounded} entries that lead to no record of this segment");
                Err(Error::corruption(segment.file.path(), SEGMENT_HEADER_LEN as u64, fault))
            }
        }
    }
}
