//! Compaction on disk: survivors of the victims go to new segments, then the victims go.
//!
//! A survivor keeps its LSN, so replay does not care where it lies. Dead records are dropped only when
//! what supersedes them is durable, and a tombstone only when no segment outside the victims holds a
//! put older than it.
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
use kv_wal_format::{Encoder, Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{LOOK_UPS_AT_A_TIME, Move, oldest_put};
use crate::commit::SEAL_LEN;
use crate::index::KeyHash;
use crate::segment::{Contents, Location, Segment};
use crate::store::Store;

/// A record that is to be kept.
struct Survivor<'a> {
    record: Record<'a>,
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
            let output = self.write_output(part, &mut moves);
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
        let oldest_elsewhere = oldest_put(&self.catalog.segments(), &ids);
        let mut survivors = Vec::new();
        let mut group: Vec<Survivor<'a>> = Vec::with_capacity(LOOK_UPS_AT_A_TIME);
        for (victim, contents) in victims.iter().zip(contents) {
            let bytes = contents.bytes();
            let mut scanner = Scanner::new(victim.id.get(), bytes, SEGMENT_HEADER_LEN);
            loop {
                let guard = crossbeam_epoch::pin();
                group.extend(scanner.by_ref().take(LOOK_UPS_AT_A_TIME).map(|(offset, record)| {
                    let (hash, from) = (self.index.hash(record.key), Location::new(victim.slot, offset));
                    self.index.prefetch(hash, &guard);
                    let encoded = bytes.get(offset..offset + record.encoded_len()).unwrap_or_default();
                    Survivor { record, encoded, hash, from }
                }));
                if group.is_empty() {
                    break;
                }
                survivors.extend(group.drain(..).filter(|one| match one.record.kind {
                    RecordKind::Put => self.index.points_at(one.hash, one.from, &guard),
                    RecordKind::Delete => one.record.lsn > oldest_elsewhere,
                    _ => false,
                }));
            }
            let stop = scanner.stop();
            if stop.offset != bytes.len() {
                let detail =
                    "a record does not match its checksums any more: faulty memory, or a damaged file";
                return Err(Error::corruption(victim.file.path(), stop.fault as u64, detail));
            }
        }
        Ok(survivors)
    }

    /// Writes survivors to a new segment that is just as large as they need, and syncs it.
    fn write_output(&self, survivors: &[Survivor<'_>], moves: &mut Vec<Move>) -> Result<Arc<Segment>> {
        let lsns = || survivors.iter().map(|survivor| survivor.record.lsn);
        let (min_lsn, max_lsn) = (lsns().min().unwrap_or(0), lsns().max().unwrap_or(0));
        let end = SEGMENT_HEADER_LEN
            + survivors.iter().map(|survivor| survivor.record.encoded_len()).sum::<usize>()
            + SEAL_LEN;
        let header = self.catalog.compacted_header(min_lsn);
        let mut offsets = Vec::with_capacity(survivors.len());
        let output = self.catalog.create_segment(header, end, end, |mut out| {
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
            let len = survivor.record.encoded_len() as u64;
            output.add_record(Lsn::new(survivor.record.lsn), survivor.record.kind);
            if survivor.record.kind == RecordKind::Delete {
                output.tombstone_bytes.fetch_add(len, Ordering::Relaxed);
            } else {
                let to = Location::new(output.slot, offset);
                moves.push(Move { hash: survivor.hash, from: survivor.from, to, len });
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
                bytes += survivor.record.encoded_len();
                bytes <= segment_bytes
            })
            .count();
        let (part, others) = rest.split_at_checked(fitting.max(1))?;
        rest = others;
        Some(part)
    })
}
