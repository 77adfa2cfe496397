//! Compaction on disk: the compactor copies the survivors of the victims to new segments, and then
//! removes the victims.
//!
//! A survivor keeps its LSN, so replay finds the same newest record wherever the survivor lies. The
//! compactor drops a dead record only after the record that replaced it is durable. It drops a
//! tombstone only if no segment outside the victims holds an older dead put. An older live put
//! belongs to another key.
//!
//! On disk after a power cut between any two steps:
//!
//! | after | on disk |
//! |---|---|
//! | writing and syncing the new segments | the old manifest, the victims; the new files are orphans |
//! | syncing the log up to the LSN that the choice of survivors saw | the same |
//! | syncing the directory | the same |
//! | replacing the manifest | either the above, or the new manifest and both; the victims are orphans |
//! | removing the victims | the new manifest, the new segments, any of the victims as orphans |
//!
//! Recovery removes orphans. If a step before the new manifest fails, the victims stay. After a
//! refusal, or a failed write of an output, the compactor removes the new segments. After a failure
//! of the directory or the manifest, the next opening does.

use kv_core::parts::{MANY_SEGMENTS, MERGED_SEGMENT_BYTES};
use kv_core::{CompactionReport, Lsn, Result, SegmentId};
use kv_wal_format::{Decoder, Encoder, Record, RecordKind, SEGMENT_HEADER_LEN, Seal, encoded_len};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::choice::oldest_dead_put;
use super::claims::{Claim, Claims};
use super::survivors::{Survivor, Unreadable, Victim, mean_time, replaced, survivors};
use crate::context::Context;
use crate::flush::Flusher;
use crate::index::Index;
use crate::log::{Log, SEAL_LEN_MAX};
use crate::manifest::{Catalog, Replaced};
use crate::reclaim::collect;
use crate::relocation::{Move, relocate_all};
use crate::segments::{Location, Segment, SegmentTable};
use crate::verification::verify;
use crate::working::Working;

/// The outcome of one compaction.
pub(super) struct Compacted {
    pub(super) report: CompactionReport,
    /// Whether the outputs are smaller than the victims. The space of a victim does not come free
    /// if a backup has a link of it, or past states need it.
    pub(super) is_smaller: bool,
}

/// A new segment, and the range of survivors that it holds.
struct Output {
    segment: Arc<Segment>,
    survivors: Range<usize>,
}

/// Compacts segments on disk.
#[derive(Debug)]
pub(super) struct DiskCompactor {
    context: Arc<Context>,
    index: Arc<Index>,
    segments: Arc<SegmentTable>,
    catalog: Arc<Catalog>,
    log: Arc<Log>,
    flusher: Arc<Flusher>,
    claims: Arc<Claims>,
}

impl DiskCompactor {
    pub(super) fn new(
        context: &Arc<Context>,
        index: &Arc<Index>,
        segments: &Arc<SegmentTable>,
        catalog: &Arc<Catalog>,
        log: &Arc<Log>,
        flusher: &Arc<Flusher>,
        claims: &Arc<Claims>,
    ) -> Self {
        DiskCompactor {
            context: Arc::clone(context),
            index: Arc::clone(index),
            segments: Arc::clone(segments),
            catalog: Arc::clone(catalog),
            log: Arc::clone(log),
            flusher: Arc::clone(flusher),
            claims: Arc::clone(claims),
        }
    }

    /// Compacts the victims together, which are in the order of their ids. One thread at a time
    /// calls this.
    ///
    /// # Errors
    /// Outer: a victim is unreadable, and nothing was changed. Inner: a write failed.
    pub(super) fn compact(&self, victims: &[Arc<Segment>]) -> Result<Result<Compacted>, Unreadable> {
        let (claim, segments, oldest_elsewhere) = self.claim(victims);
        let report = self.load_and_replace(&segments, oldest_elsewhere, claim);
        if !matches!(report, Ok(Ok(_))) {
            for victim in segments {
                victim.file.allow_close();
            }
        }
        report
    }

    /// Claims the victims. Returns their current images, and a lower bound for the LSNs of dead
    /// puts elsewhere.
    fn claim(&self, victims: &[Arc<Segment>]) -> (Claim<'_>, Vec<Arc<Segment>>, u64) {
        let mut claim = self.claims.begin();
        let mut alone = self.claims.lock();
        // Compaction in memory may have replaced the images since the choice.
        let segments = victims.iter().filter_map(|victim| self.catalog.current(victim.id)).collect();
        let ids: Vec<SegmentId> = victims.iter().map(|victim| victim.id).collect();
        for id in &ids {
            claim.add(&mut alone, *id);
        }
        let oldest_elsewhere = oldest_dead_put(&self.catalog.segments(), &ids);
        (claim, segments, oldest_elsewhere)
    }

    fn load_and_replace(
        &self,
        segments: &[Arc<Segment>],
        oldest_elsewhere: u64,
        claim: Claim<'_>,
    ) -> Result<Result<Compacted>, Unreadable> {
        let mut loaded = Working::begin(&self.context.counters.working_bytes);
        let load = |segment: &Arc<Segment>| {
            let victim = Victim::load(segment)?;
            loaded.take(if segment.memory_bytes() == 0 { victim.contents.memory_bytes() } else { 0 });
            Ok(victim)
        };
        let victims: Vec<Victim> = segments.iter().map(load).collect::<Result<_, _>>()?;
        for Victim { segment, contents } in &victims {
            verify(segment, contents, &self.index, &self.segments, &self.context.counters.working_bytes)
                .map_err(|error| Unreadable { victim: segment.id, error })?;
        }
        let survivors = survivors(&self.index, &victims, oldest_elsewhere)?;
        loaded.take(size_of_val(&*survivors));
        let replaced = replaced(&victims, &survivors);
        Ok(self.replace(&replaced, victims, &survivors, claim))
    }

    /// Replaces the victims by new segments that hold the survivors.
    fn replace(
        &self,
        replaced: &[Replaced],
        victims: Vec<Victim>,
        survivors: &[Survivor],
        mut claim: Claim<'_>,
    ) -> Result<Compacted> {
        // The choice of survivors saw changes up to here. They must be durable before the records
        // that they replaced are dropped.
        let horizon = self.log.end.last_lsn();
        let mut outputs: Vec<Output> = Vec::new();
        let mut copies = Working::begin(&self.context.counters.copy_bytes);
        let written = self
            .write_outputs(&victims, survivors, &mut outputs, &mut copies)
            .and_then(|()| self.flusher.make_durable(horizon));
        if let Err(error) = written {
            for output in &outputs {
                self.catalog.discard_segment(&output.segment);
            }
            self.forget(&outputs);
            return Err(error);
        }
        let new: Vec<Arc<Segment>> = outputs.iter().map(|output| Arc::clone(&output.segment)).collect();
        {
            // Before the index points at a record of theirs, they seem to hold dead records only.
            let mut alone = self.claims.lock();
            for output in &new {
                claim.add(&mut alone, output.id);
            }
        }
        let freed_before = self.catalog.freed_bytes();
        let mut left = Working::begin(&self.context.counters.promised_bytes);
        let last_lsn = self.log.end.last_lsn();
        if let Err(error) = self.catalog.exchange(replaced, &new, horizon, last_lsn, &mut left) {
            self.forget(&outputs);
            return Err(error);
        }
        drop(copies);
        for output in &outputs {
            let _alone = self.claims.lock();
            relocate_all(&self.index, &output.segment, output.moves(survivors, &victims));
        }
        // Dropped, so that the images can be recycled once no reader uses them.
        drop(victims);
        for victim in replaced {
            self.segments.retire(&victim.segment);
        }
        drop(left);
        collect();
        // At the end, because it takes long: the memory is free by now.
        self.catalog.remove_victims();

        let copied_bytes = outputs.iter().map(|output| output.segment.tally.put_bytes()).sum();
        let before: u64 = replaced.iter().map(|victim| victim.segment.file_len() as u64).sum();
        let after: u64 = outputs.iter().map(|output| output.segment.file_len() as u64).sum();
        self.context.counters.compactions.fetch_add(1, Ordering::Relaxed);
        self.context.counters.compacted_bytes.fetch_add(copied_bytes, Ordering::Relaxed);
        let report = CompactionReport {
            victims: replaced.len() as u64,
            outputs: outputs.len() as u64,
            copied_bytes,
            freed_bytes: (self.catalog.freed_bytes() - freed_before).saturating_sub(after),
            leftover_files: 0,
        };
        Ok(Compacted { report, is_smaller: after < before })
    }

    /// Drops outputs that the index never pointed at.
    fn forget(&self, outputs: &[Output]) {
        for output in outputs {
            self.segments.retire(&output.segment);
        }
    }

    /// Writes all survivors to new segments, and adds these to `outputs` one by one.
    fn write_outputs(
        &self,
        victims: &[Victim],
        survivors: &[Survivor],
        outputs: &mut Vec<Output>,
        copies: &mut Working<'_>,
    ) -> Result<()> {
        let mut start = 0;
        while start < survivors.len() {
            let part = first_part(survivors.get(start..).unwrap_or_default(), self.output_bytes());
            let segment = self.write_output(part, victims, copies)?;
            let end = start + part.len();
            outputs.push(Output { segment, survivors: start..end });
            start = end;
        }
        Ok(())
    }

    /// Length of an output, bytes: a part of the store, or more if it has very many segments.
    fn output_bytes(&self) -> usize {
        let segments = self.catalog.segments().len() as u64;
        let least = if segments > MANY_SEGMENTS { MERGED_SEGMENT_BYTES } else { 0 };
        self.log.slack.output_bytes().max(usize::try_from(least).unwrap_or(usize::MAX))
    }

    /// Writes survivors to a new segment of exactly their size, and syncs it. They are in the order
    /// of their LSNs.
    fn write_output(
        &self,
        survivors: &[Survivor],
        victims: &[Victim],
        copies: &mut Working<'_>,
    ) -> Result<Arc<Segment>> {
        let min_lsn = survivors.first().map_or(0, |survivor| survivor.lsn);
        let max_lsn = survivors.last().map_or(0, |survivor| survivor.lsn);
        let end = SEGMENT_HEADER_LEN
            + survivors.iter().map(|survivor| survivor.len_in(min_lsn)).sum::<usize>()
            + encoded_len(min_lsn, max_lsn, 0, Seal::BODY_LEN);
        copies.take(end);
        let (last_lsn, created) = (self.log.end.last_lsn(), mean_time(survivors, victims));
        let decoders: Vec<Decoder> = victims.iter().map(Victim::decoder).collect();
        let output = self.catalog.create_output(min_lsn, last_lsn, end, created, |origin, mut out| {
            let encoder = Encoder::new(origin);
            let seal = Seal { records: survivors.len() as u64, max_lsn }.encode_body();
            for survivor in survivors {
                let (decoder, contents) = decoders
                    .get(usize::from(survivor.victim))
                    .zip(victims.get(usize::from(survivor.victim)))
                    .map(|(decoder, victim)| (decoder, victim.contents.bytes()))
                    .expect("every survivor has a victim");
                let len = encoder.copy(decoder, survivor.encoded(contents), out);
                out = out.split_at_mut(len.expect("the segment was made to fit")).1;
            }
            encoder.encode(&Record::seal(max_lsn, &seal), out).expect("the segment was made to fit");
        })?;
        for survivor in survivors {
            let kind = if survivor.is_put { RecordKind::Put } else { RecordKind::Delete };
            output.add_record(Lsn::new(survivor.lsn), kind, survivor.len_in(min_lsn));
        }
        output.tally.nothing_lives_yet();
        output.mark_sealed();
        output.mark_durable();
        self.segments.install(&output);
        Ok(output)
    }
}

impl Output {
    /// The moves of its live records from the victims to this segment.
    fn moves<'a>(
        &self,
        survivors: &'a [Survivor],
        victims: &'a [Victim],
    ) -> impl Iterator<Item = Move> + use<'a> {
        let (slot, base_lsn, mut end) = (self.segment.slot, self.segment.base_lsn, SEGMENT_HEADER_LEN);
        let survivors = survivors.get(self.survivors.clone()).unwrap_or_default();
        survivors.iter().filter_map(move |survivor| {
            let start = end;
            let len = survivor.len_in(base_lsn);
            end += len;
            let victim = victims.get(usize::from(survivor.victim)).filter(|_| survivor.is_put)?;
            let from = survivor.place_in(victim.segment.slot);
            Some(Move { hash: survivor.hash, from, to: Location::new(slot, start), len: len as u64 })
        })
    }
}

/// As many survivors as fit a segment, and at least one.
fn first_part(survivors: &[Survivor], segment_bytes: usize) -> &[Survivor] {
    let mut bytes = SEGMENT_HEADER_LEN + SEAL_LEN_MAX;
    let base_lsn = survivors.first().map_or(0, |survivor| survivor.lsn);
    let fitting = survivors.iter().take_while(|survivor| {
        bytes += survivor.len_in(base_lsn);
        bytes <= segment_bytes
    });
    let count = fitting.count().max(1);
    survivors.get(..count).unwrap_or(survivors)
}
