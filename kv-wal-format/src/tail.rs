//! Judges the end of a log: whole, torn, or damaged.

use std::fmt;

use crate::decoder::{Decoder, Step, is_zero};
use crate::mark::Mark;
use crate::scanner::{Stop, StopReason};
use crate::segment_header::Origin;

/// The bytes after the last whole batch of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing, zeros, or a seal: the log ends here.
    Clean,
    /// A crash can leave these bytes. No evidence shows that the lost changes had been synced.
    Torn {
        /// The place to cut: the end of the last whole batch.
        offset: usize,
    },
    /// No crash can leave these bytes: synced changes are damaged.
    Corrupt {
        /// Start of the first invalid record.
        offset: usize,
        /// The evidence of damage.
        evidence: Evidence,
    },
}

/// Evidence that a tail is damaged, and not torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// A mark after the damage says that the missing changes had been synced.
    Mark {
        /// Offset of the mark.
        offset: usize,
        /// The mark's `durable_lsn`: changes up to it had been synced.
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
            Self::BrokenBatch => StopReason::BrokenBatch.fmt(f),
        }
    }
}

/// Judges the tail of the newest segment of a log. `stop` is the result of scanning the segment.
///
/// `segment` is all bytes of the segment, header included. `last_lsn` is the highest LSN known to
/// lie before this segment: from earlier segments, their seals, a checkpoint or a manifest. A value
/// that is too low can make a torn tail look damaged.
///
/// A power cut keeps or loses each unsynced sector independently. So valid changes or a seal behind
/// unreadable bytes prove nothing. A [`Mark`] is evidence, because a writer appends it after a
/// sync: if its `durable_lsn` is above every LSN before the damage, then synced changes are
/// missing.
///
/// The search tries every byte, and skips the body of a valid record header. Its cost is linear in
/// the length of the tail. The [format description](crate::format) lists the cases that it cannot
/// tell apart.
pub fn judge_tail(origin: Origin, segment: &[u8], stop: &Stop, last_lsn: u64) -> Tail {
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
    match find_later_mark(origin, segment, stop.fault, last_lsn) {
        Some((offset, durable_lsn)) => {
            Tail::Corrupt { offset: stop.fault, evidence: Evidence::Mark { offset, durable_lsn, last_lsn } }
        }
        None => Tail::Torn { offset: stop.offset },
    }
}

/// Finds the first valid mark at or after `from`, and before any valid seal, whose `durable_lsn` is
/// above `last_lsn`. Returns its offset and its `durable_lsn`.
fn find_later_mark(origin: Origin, segment: &[u8], from: usize, last_lsn: u64) -> Option<(usize, u64)> {
    let decoder = Decoder::new(origin);
    let mut at = from;
    loop {
        // Most bytes of a lost write are zeros, and no record starts with one.
        at += segment.get(at..)?.iter().position(|&byte| byte != 0)?;
        let buf = segment.get(at..)?;
        let Some(info) = decoder.check_header(buf) else {
            at += 1;
            continue;
        };
        if !info.kind.is_change()
            && let Step::Record { record, .. } = decoder.step(buf)
        {
            // A record that is neither a change nor a mark is a seal. Bytes after it do not count.
            let mark = Mark::from_record(&record)?;
            if mark.durable_lsn > last_lsn {
                return Some((at, mark.durable_lsn));
            }
        }
        let end = at.checked_add(info.encoded_len())?;
        // Other bytes pass for a small header once in 65,536 tries, and must not hide a mark. So
        // the search skips a body only if a record may follow it.
        at = if decoder.may_follow(segment, end) { end } else { at + 1 };
    }
}

#[cfg(test)]
mod tests;
