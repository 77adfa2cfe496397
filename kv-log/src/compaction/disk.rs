//! Compaction on disk: survivors of the victims go to new segments, then the victims go.
//!
//! A survivor keeps its LSN, so replay does not care where it lies. Dead records are dropped only when
//! what supersedes them is durable, and a tombstone only when no segment outside the victims holds a
//! dead put older than it: a live one is of another key.
//!
//! On disk after a power cut between any two steps:
//!
//! | after | on disk |
//! |---|---|
//! | writing and syncing the new segments | the old manifest, the victims; the new files are orphans |
//! | syncing the log up to what the choice of survivors saw | the same |
//! | syncing the directory | the same |
//! | replacing the manifest | either the above, or the new manifest and both; the victims are orphans |
//! | removing the victims | the new manifest, the new segments, any of the victims as orphans |
//!
//! Recovery removes orphans.

use kv_core::{CompactionReport, Error, Lsn, Result, SegmentId};
use kv_wal_format::{
    Decoder, Encoder, Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal, Step, parse_trusted,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{LOOK_UPS_AT_A_TIME, Move, oldest_dead_put};
use crate::commit::SEAL_LEN;
use crate::index::KeyHash;
use crate::segment::{Contents, Location, Segment};
use crate::store::Store;

/// A record that is to be kept.
struct Survivor<'a> {
    lsn: u64,
    kind: RecordKind,
    /// The record as it stands in the victim.
    encoded: &'a [u8],
    hash: KeyHash,
    from: Location,
}

impl Store {
    pub(super) fn compact_on_disk(&self, victims: &[Arc<Segment>]) -> Result<CompactionReport> {
        let contents = victims.iter().map(|victim| victim.contents()).collect::<Result<Vec<_>>>()?;
        let survivors = self.survivors(victims, &contents)?;
        // What the choice of survivors saw: only durable changes may make others obsolete on disk.
        let horizon = self.head.lock().last_lsn();

        let mut outputs = Vec::new();
        let mut moves = Vec::with_capacity(survivors.len());
        for part in split(&survivors, self.options.segment_bytes) {
            let output = self.write_output(part, victims, &mut moves);
            match output {
                Ok(output) => outputs.push(output),
                Err(error) => {
                    self.forget(&outputs);
                    return Err(error);
                }
            }
        }
        if let Err(error) = self.make_durable(horizon).and_then(|()| self.catalog.exchange(victims, &outputs))
        {
            self.forget(&outputs);
            return Err(error);
        }
        self.relocate_all(&moves);
        self.retire(victims)?;

        let copied_bytes: u64 = moves.iter().map(|one| one.len).sum();
        let before: u64 = victims.iter().map(|segment| segment.file_len() as u64).sum();
        let after: u64 = outputs.iter().map(|segment| segment.file_len() as u64).sum();
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        self.counters.compacted_bytes.fetch_add(copied_bytes, Ordering::Relaxed);
        Ok(CompactionReport {
            victims: victims.len() as u64,
            outputs: outputs.len() as u64,
            copied_bytes,
            freed_bytes: before.saturating_sub(after),
        })
    }

    /// The records of the victims that the index points at, and the tombstones that may still hide
    /// something.
    fn survivors<'a>(&self, victims: &[Arc<Segment>], contents: &'a [Contents]) -> Result<Vec<Survivor<'a>>> {
        let ids: Vec<SegmentId> = victims.iter().map(|segment| segment.id).collect();
        let oldest_elsewhere = oldest_dead_put(&self.catalog.segments(), &ids);
        let mut survivors = Vec::new();
        for (victim, contents) in victims.iter().zip(contents) {
            let found = self.survivors_of(victim, contents.bytes(), oldest_elsewhere, &mut survivors)?;
            // A damaged key would pass for another one, whose record is dead. Changes that come meanwhile may be the
            // reason as well.
            if found < victim.live_bytes.load(Ordering::Relaxed) {
                let stop = Scanner::new(victim.id.get(), contents.bytes(), SEGMENT_HEADER_LEN).stop();
                if stop.offset != contents.bytes().len() {
                    return Err(damaged(victim, stop.fault));
                }
            }
        }
        // What was written at the same time is likely to be overwritten at the same time, and then a segment of it is
        // cheap to compact (Rosenblum and Ousterhout: age sort). Victims are sorted already, most of them.
        survivors.sort_by_key(|survivor| survivor.lsn);
        Ok(survivors)
    }

    /// Adds those of one victim; returns how many bytes of puts that were. Only what survives is checked as a whole.
    fn survivors_of<'a>(
        &self,
        victim: &Segment,
        bytes: &'a [u8],
        oldest_elsewhere: u64,
        survivors: &mut Vec<Survivor<'a>>,
    ) -> Result<u64> {
        let decoder = Decoder::new(victim.id.get());
        let (mut offset, mut put_bytes) = (SEGMENT_HEADER_LEN, 0);
        let mut group: Vec<Survivor<'a>> = Vec::with_capacity(LOOK_UPS_AT_A_TIME);
        while offset < bytes.len() {
            let guard = crossbeam_epoch::pin();
            while group.len() < LOOK_UPS_AT_A_TIME && offset < bytes.len() {
                let rest = bytes.get(offset..).unwrap_or_default();
                let info = rest.first_chunk().and_then(|header| decoder.check_header(header).ok());
                let Some((record, len)) = parse_trusted(rest).zip(info.map(|info| info.encoded_len)) else {
                    return Err(damaged(victim, offset));
                };
                let (hash, from) = (self.index.hash(record.key), Location::new(victim.slot, offset));
                self.index.prefetch(hash, &guard);
                let encoded = rest.get(..len).unwrap_or_default();
                group.push(Survivor { lsn: record.lsn, kind: record.kind, encoded, hash, from });
                offset += len;
            }
            for one in group.drain(..) {
                let survives = match one.kind {
                    RecordKind::Put => self.index.points_at(one.hash, one.from, &guard),
                    RecordKind::Delete => one.lsn > oldest_elsewhere,
                    _ => false,
                };
                if survives {
                    if !matches!(decoder.step(one.encoded), Step::Record { .. }) {
                        return Err(damaged(victim, one.from.offset()));
                    }
                    put_bytes += if one.kind == RecordKind::Put { one.encoded.len() as u64 } else { 0 };
                    survivors.push(one);
                }
            }
        }
        Ok(put_bytes)
    }

    /// Writes survivors of the victims, in the order of their LSNs, to a new segment that is just as large as they
    /// need, and syncs it.
    fn write_output(
        &self,
        survivors: &[Survivor<'_>],
        victims: &[Arc<Segment>],
        moves: &mut Vec<Move>,
    ) -> Result<Arc<Segment>> {
        let min_lsn = survivors.first().map_or(0, |survivor| survivor.lsn);
        let max_lsn = survivors.last().map_or(0, |survivor| survivor.lsn);
        let end = SEGMENT_HEADER_LEN
            + survivors.iter().map(|survivor| survivor.encoded.len()).sum::<usize>()
            + SEAL_LEN;
        let header = self.catalog.compacted_header(min_lsn);
        let mut offsets = Vec::with_capacity(survivors.len());
        let created = mean_time(survivors, victims);
        let output = self.catalog.create_segment(header, end, end, created, |mut out| {
            let encoder = Encoder::new(header.segment_id);
            let mut offset = SEGMENT_HEADER_LEN;
            let seal = Seal { records: survivors.len() as u64, max_lsn }.encode_body();
            for survivor in survivors {
                let len = encoder.copy(survivor.encoded, out).expect("the segment was made to fit");
                offsets.push(offset);
                offset += len;
                out = out.split_at_mut(len).1;
            }
            encoder.encode(&Record::seal(max_lsn, &seal), out).expect("the segment was made to fit");
        })?;
        for (survivor, offset) in survivors.iter().zip(offsets) {
            let len = survivor.encoded.len();
            output.add_record(Lsn::new(survivor.lsn), survivor.kind, len);
            if survivor.kind == RecordKind::Put {
                let to = Location::new(output.slot, offset);
                moves.push(Move { hash: survivor.hash, from: survivor.from, to, len: len as u64 });
            }
        }
        output.mark_sealed();
        output.mark_durable();
        self.segments.install(&output);
        Ok(output)
    }

    /// Removes the victims' files, and their memory once no reader can look at it.
    fn retire(&self, victims: &[Arc<Segment>]) -> Result<()> {
        let guard = crossbeam_epoch::pin();
        for victim in victims {
            self.segments.retire(victim, &guard);
        }
        guard.flush();
        drop(guard);
        for victim in victims {
            let path = victim.file.path();
            self.env.fs.remove_file(path).map_err(|error| Error::io("remove", path, error))?;
        }
        Ok(())
    }

    /// Drops outputs that the index never pointed at.
    fn forget(&self, outputs: &[Arc<Segment>]) {
        let guard = crossbeam_epoch::pin();
        for output in outputs {
            self.segments.retire(output, &guard);
        }
    }
}

fn damaged(victim: &Segment, offset: usize) -> Error {
    let detail = "a record does not match its checksums any more: faulty memory, or a damaged file";
    Error::corruption(victim.file.path(), offset as u64, detail)
}

/// When the survivors were written, on average, as far as their victims know.
fn mean_time(survivors: &[Survivor<'_>], victims: &[Arc<Segment>]) -> Duration {
    let (mut weighted, mut weight) = (0, 0);
    for victim in victims {
        let from_here = survivors.iter().filter(|survivor| survivor.from.slot() == victim.slot);
        let bytes: usize = from_here.map(|survivor| survivor.encoded.len()).sum();
        weighted += victim.created.as_nanos() * bytes as u128;
        weight += bytes as u128;
    }
    let ns = weighted.checked_div(weight).unwrap_or_default();
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// Cuts survivors into parts that fit a segment each.
fn split<'s, 'r>(
    survivors: &'s [Survivor<'r>],
    segment_bytes: usize,
) -> impl Iterator<Item = &'s [Survivor<'r>]> {
    let mut rest = survivors;
    std::iter::from_fn(move || {
        let mut bytes = SEGMENT_HEADER_LEN + SEAL_LEN;
        let fitting = rest
            .iter()
            .take_while(|survivor| {
                bytes += survivor.encoded.len();
                bytes <= segment_bytes
            })
            .count();
        let (part, others) = rest.split_at_checked(fitting.max(1))?;
        rest = others;
        Some(part)
    })
}
