//! Verification: the entries of a checkpoint are compared with the records of one segment.
//!
//! Until then, readers read the segment's records from its file, which checks each. An image has no
//! such check, and a compaction trusts that each live record has its entry. So a segment is
//! verified before either.

use kv_core::{Error, Result};
use kv_wal_format::{RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal, StopReason};
use std::collections::VecDeque;

use crate::index::Index;
use crate::reclaim::pin;
use crate::segments::{Contents, Location, Segment, SegmentTable};

/// So many puts before its turn, the place of a put in the index is prefetched.
const AHEAD: usize = 16;

/// Checks every record of a segment, whose bytes are `contents`, and that each location in it leads
/// to a put with the hash of its entry. Writers go on meanwhile. One thread at a time verifies.
///
/// # Errors
/// The segment is damaged, or the checkpoint was wrong. A record of a suspect cannot be read.
pub(crate) fn verify(
    segment: &Segment,
    contents: &Contents,
    index: &Index,
    segments: &SegmentTable,
) -> Result<()> {
    if !segment.is_unverified() {
        return Ok(());
    }
    check_records(segment, contents.bytes())?;
    index.settle_at(|location| location.slot() == segment.slot, segments)?;
    let (mut entries, mut live) = (0, 0);
    let (mut ahead, mut read_to) = (VecDeque::with_capacity(AHEAD), SEGMENT_HEADER_LEN);
    loop {
        while read_to < contents.bytes().len() && ahead.len() < AHEAD {
            let (start, (record, len)) = (read_to, contents.record_at(read_to));
            read_to += len;
            if record.kind == RecordKind::Put {
                let hash = index.hash(record.key);
                index.prefetch(hash, &pin());
                ahead.push_back((hash, start, len));
            }
        }
        let Some((hash, start, len)) = ahead.pop_front() else { break };
        index.claim(hash, Location::new(segment.slot, start), |is_live| {
            entries += u64::from(is_live);
            live += if is_live { len as u64 } else { 0 };
            segment.walk_to(start + len);
        });
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

/// Checks every record up to the seal, and the seal.
fn check_records(segment: &Segment, bytes: &[u8]) -> Result<()> {
    let mut scanner = Scanner::new(segment.origin(), bytes, SEGMENT_HEADER_LEN);
    let mut last = None;
    scanner.by_ref().for_each(|(_, record)| last = Seal::from_record(&record));
    let stop = scanner.stop();
    let is_whole = stop.reason == StopReason::Sealed && stop.offset == bytes.len();
    if is_whole && last == Some(segment.seal()) {
        return Ok(());
    }
    let fault = format!("this sealed segment cannot be read up to its seal: {}", stop.reason);
    Err(Error::corruption(segment.file.path(), stop.fault as u64, fault))
}
