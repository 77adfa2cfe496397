//! Survivors: the records of the victims that a compaction on disk keeps.

use kv_core::{Error, Result, SegmentId};
use kv_wal_format::{
    Decoder, RecordKind, SEGMENT_HEADER_LEN, Scanner, SegmentKind, Step, encoded_len, parse_trusted,
};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::index::{Index, KeyHash};
use crate::manifest::Replaced;
use crate::memory::{Mapped, Plain};
use crate::reclaim::pin;
use crate::relocation::LOOK_UPS_AT_A_TIME;
use crate::segments::{Contents, Location, Segment};

/// A record to keep. A compaction may have millions of them.
#[derive(Clone, Copy)]
pub(super) struct Survivor {
    pub(super) lsn: u64,
    pub(super) hash: KeyHash,
    /// The victim that holds it. `offset` is its place there.
    pub(super) victim: u16,
    pub(super) is_put: bool,
    pub(super) key_len: u16,
    pub(super) value_len: u32,
    offset: u32,
}

// SAFETY: all fields are numbers or booleans, for which zero bytes are valid.
unsafe impl Plain for Survivor {}

/// A segment to compact, and its bytes.
pub(super) struct Victim {
    pub(super) segment: Arc<Segment>,
    pub(super) contents: Contents,
}

/// A victim whose records cannot be read now.
pub(super) struct Unreadable {
    pub(super) victim: SegmentId,
    pub(super) error: Error,
}

impl Survivor {
    pub(super) fn place_in(&self, slot: u16) -> Location {
        Location::new(slot, self.offset as usize)
    }

    /// The bytes of its victim, which are `contents`, from the encoded record on.
    pub(super) fn encoded<'a>(&self, contents: &'a [u8]) -> &'a [u8] {
        contents.get(self.offset as usize..).unwrap_or_default()
    }

    /// Length of the record in a segment with this base LSN, bytes.
    pub(super) fn len_in(&self, base_lsn: u64) -> usize {
        encoded_len(base_lsn, self.lsn, usize::from(self.key_len), self.value_len as usize)
    }
}

impl Victim {
    /// Loads the file if the segment is cold. The file stays open: readers that found a record in
    /// it may read it after the removal.
    pub(super) fn load(segment: &Arc<Segment>) -> Result<Self, Unreadable> {
        match segment.contents().and_then(|contents| segment.file.stay_open().map(|()| contents)) {
            Ok(contents) => Ok(Victim { segment: Arc::clone(segment), contents }),
            Err(error) => Err(Unreadable { victim: segment.id, error }),
        }
    }

    pub(super) fn decoder(&self) -> Decoder {
        Decoder::new(self.segment.origin())
    }

    fn no_memory(&self, error: io::Error) -> Unreadable {
        let error = Error::io("allocate memory to compact", self.segment.file.path(), error);
        Unreadable { victim: self.segment.id, error }
    }

    fn damaged(&self, offset: usize) -> Unreadable {
        let fault = "a record does not match its checksums any more: faulty memory, or a damaged file";
        let error = Error::corruption(self.segment.file.path(), offset as u64, fault);
        Unreadable { victim: self.segment.id, error }
    }
}

/// The live puts of the victims, and the tombstones that may still hide a put, in the order of
/// their LSNs. No segment outside the victims holds a dead put older than `oldest_elsewhere`.
pub(super) fn survivors(
    index: &Index,
    victims: &[Victim],
    oldest_elsewhere: u64,
) -> Result<Mapped<Survivor>, Unreadable> {
    let mut survivors = Mapped::default();
    if let Some(first) = victims.first() {
        let count = victims.iter().map(|victim| victim.segment.survivors_max()).sum();
        survivors = Mapped::with_capacity(count).map_err(|error| first.no_memory(error))?;
    }
    for (number, victim) in (0..).zip(victims) {
        let found = survivors_of(index, number, victim, oldest_elsewhere, &mut survivors)?;
        // A record with a damaged key looks dead, because the index does not point at it.
        // Writers that replace records meanwhile are the usual reason, so the scan decides.
        if found < victim.segment.tally.live_bytes() {
            let bytes = victim.contents.bytes();
            let stop = Scanner::new(victim.segment.origin(), bytes, SEGMENT_HEADER_LEN).stop();
            if stop.offset != bytes.len() {
                return Err(victim.damaged(stop.fault));
            }
        }
    }
    // Records written at the same time are likely to be overwritten at the same time, which
    // makes their segment cheap to compact (Rosenblum and Ousterhout: age sort). Most victims
    // are sorted already.
    survivors.sort_unstable_by_key(|survivor| (survivor.lsn, survivor.victim, survivor.offset));
    Ok(survivors)
}

/// Adds the survivors of one victim. Returns the bytes of its live puts. Checks the checksums
/// of survivors only.
fn survivors_of(
    index: &Index,
    number: u16,
    victim: &Victim,
    oldest_elsewhere: u64,
    survivors: &mut Mapped<Survivor>,
) -> Result<u64, Unreadable> {
    let (decoder, slot) = (victim.decoder(), victim.segment.slot);
    let base_lsn = victim.segment.base_lsn;
    let (mut at, mut put_bytes) = (SEGMENT_HEADER_LEN, 0);
    let bytes = victim.contents.bytes();
    let mut group: Vec<(RecordKind, Survivor)> = Vec::with_capacity(LOOK_UPS_AT_A_TIME);
    while at < bytes.len() {
        let guard = pin();
        while group.len() < LOOK_UPS_AT_A_TIME && at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some((record, info)) = parse_trusted(base_lsn, rest).zip(decoder.check_header(rest)) else {
                return Err(victim.damaged(at));
            };
            let hash = index.hash(record.key);
            index.prefetch(hash, &guard);
            let (Ok(offset), Ok(key_len), Ok(value_len)) =
                (u32::try_from(at), u16::try_from(info.key_len), u32::try_from(info.value_len))
            else {
                return Err(victim.damaged(at));
            };
            let (lsn, is_put) = (record.lsn, record.kind == RecordKind::Put);
            let one = Survivor { lsn, hash, victim: number, is_put, key_len, value_len, offset };
            group.push((record.kind, one));
            at += info.encoded_len();
        }
        for (kind, one) in group.drain(..) {
            let survives = match kind {
                RecordKind::Put => index.points_at(one.hash, one.place_in(slot), &guard),
                RecordKind::Delete => one.lsn > oldest_elsewhere,
                _ => false,
            };
            if survives {
                if !matches!(decoder.step(one.encoded(bytes)), Step::Record { .. }) {
                    return Err(victim.damaged(one.offset as usize));
                }
                put_bytes += if one.is_put { one.len_in(base_lsn) as u64 } else { 0 };
                survivors.push(one).map_err(|error| victim.no_memory(error))?;
            }
        }
    }
    Ok(put_bytes)
}

/// The victims as past states need them. A compacted segment of which every record survives is not
/// needed any more. A log segment is, because its marks tell times.
pub(super) fn replaced(victims: &[Victim], survivors: &[Survivor]) -> Vec<Replaced> {
    let mut counts = vec![0_u64; victims.len()];
    for survivor in survivors {
        if let Some(count) = counts.get_mut(usize::from(survivor.victim)) {
            *count += 1;
        }
    }
    let replaced = |(victim, survive): (&Victim, u64)| {
        let segment = Arc::clone(&victim.segment);
        let is_whole = segment.kind == SegmentKind::Compacted && survive == segment.tally.records();
        Replaced { segment, is_needed_before: !is_whole }
    };
    victims.iter().zip(counts).map(replaced).collect()
}

/// The mean time at which the survivors were written, as the victims know it.
pub(super) fn mean_time(survivors: &[Survivor], victims: &[Victim]) -> Duration {
    let mut bytes_of = vec![0_u128; victims.len()];
    for survivor in survivors {
        if let Some(bytes) = bytes_of.get_mut(usize::from(survivor.victim)) {
            *bytes += u128::from(survivor.value_len) + u128::from(survivor.key_len);
        }
    }
    let times = victims.iter().map(|victim| victim.segment.created.as_nanos());
    let weighted: u128 = times.zip(&bytes_of).map(|(time, bytes)| time * bytes).sum();
    let ns = weighted.checked_div(bytes_of.iter().sum()).unwrap_or_default();
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}
