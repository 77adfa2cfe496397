//! What a scan that stopped before a seal says about the log: whole, torn, or damaged.

use std::fmt;

use crate::decoder::{Decoder, Step, is_zero};
use crate::layout::{ALIGNMENT, RECORD_HEADER_LEN};
use crate::mark::Mark;
use crate::scanner::{Stop, StopReason};

/// What follows the last whole batch of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing, zeros, or a seal: the log ends here.
    Clean,
    /// Bytes that a crash can leave of changes it lost. Nothing shows that they had ever been synced.
    Torn {
        /// Where to cut: the end of the last whole batch.
        offset: usize,
    },
    /// Bytes that no crash can leave: changes that had been synced are damaged.
    Corrupt {
        /// The first byte that is no valid record.
        offset: usize,
        /// What shows it.
        evidence: Evidence,
    },
}

/// What shows that a tail is damaged, and not torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// A mark after the damage says that changes had been synced which are not before it.
    Mark {
        /// Offset of the mark.
        offset: usize,
        /// The LSN up to which it says that changes had been synced.
        durable_lsn: u64,
        /// The last LSN before the damage.
        last_lsn: u64,
    },
    /// Two valid records side by side that no writer put there; see [`StopReason::BrokenBatch`].
    BrokenBatch,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark { offset, durable_lsn, last_lsn } => write!(
                f,
                "readable up to LSN {last_lsn}, but a mark at offset {offset} says that LSN {durable_lsn} had been synced"
            ),
            Self::BrokenBatch => f.write_str("the record after a member of a batch does not continue it"),
        }
    }
}

/// Judges the tail of the newest segment of a log, in which a scan came to this `stop`.
///
/// `segment` is all of the segment's bytes, header included. `last_lsn` is the highest LSN known to lie
/// before this segment: from the segments before it, their seals, a checkpoint or a manifest. One that is
/// too low can make a torn tail look damaged.
///
/// A power cut can keep or lose each unsynced sector on its own, so valid changes behind unreadable bytes
/// prove nothing, nor does a seal. A [`Mark`] does: it was appended after a sync, so if its `durable_lsn`
/// is above every LSN before the damage, then changes that had been synced are missing. Marks are found
/// by trying every multiple of [`ALIGNMENT`]; where a record header is valid, its body is skipped. The
/// cost is linear in the length of the tail. What this cannot tell is in the
/// [format description](crate::format).
pub fn judge_tail(segment_id: u64, segment: &[u8], stop: &Stop, last_lsn: u64) -> Tail {
    let rest = segment.get(stop.fault..).unwrap_or_default();
    match stop.reason {
        StopReason::Sealed => return Tail::Clean,
        StopReason::End if is_zero(rest) => return Tail::Clean,
        StopReason::BrokenBatch => {
            return Tail::Corrupt { offset: stop.fault, evidence: Evidence::BrokenBatch };
        }
        StopReason::End | StopReason::Torn | StopReason::Corrupt(_) => {}
    }
    let last_lsn = last_lsn.max(stop.last_lsn);
    match find_later_mark(segment_id, segment, stop.fault, last_lsn) {
        Some((offset, durable_lsn)) => {
            Tail::Corrupt { offset: stop.fault, evidence: Evidence::Mark { offset, durable_lsn, last_lsn } }
        }
        None => Tail::Torn { offset: stop.offset },
    }
}

/// The first valid mark at or after `from`, and before any seal, whose `durable_lsn` is above `last_lsn`.
fn find_later_mark(segment_id: u64, segment: &[u8], from: usize, last_lsn: u64) -> Option<(usize, u64)> {
    let decoder = Decoder::new(segment_id);
    let mut at = from.checked_next_multiple_of(ALIGNMENT)?;
    loop {
        let buf = segment.get(at..)?;
        let header = buf.first_chunk::<RECORD_HEADER_LEN>()?;
        let Ok(info) = decoder.check_header(header) else {
            at += ALIGNMENT;
            continue;
        };
        if !info.kind.is_change()
            && let Step::Record { record, .. } = decoder.step(buf)
        {
            // What is neither a change nor a mark is a seal: whatever follows it is ignored.
            let mark = Mark::from_record(&record)?;
            if mark.durable_lsn > last_lsn {
                return Some((at, mark.durable_lsn));
            }
        }
        at = at.checked_add(info.encoded_len)?;
    }
}

#[cfg(test)]
mod tests;
