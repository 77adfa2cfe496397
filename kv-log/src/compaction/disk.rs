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
//! Recovery removes orphans. If a step before the new manifest fails, the victims stay, and the
//! compactor removes the new segments.

use kv_core::parts::{MANY_SEGMENTS, MERGED_SEGMENT_BYTES};
use kv_core::{CompactionReport, Error, Lsn, Result, SegmentId};
use kv_wal_format::{
    Decoder, Encoder, Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentKind, Step, encoded_len,
    parse_trusted,
};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::choice::oldest_dead_put;
use super::claims::{Claim, Claims};
use super::working::Working;
use crate::checkpoint::verify;
use crate::context::Context;
use crate::flush::Flusher;
use crate::index::{Index, KeyHash};
use crate::log::{Log, SEAL_LEN_MAX};
use crate::manifest::{Catalog, Replaced};
use crate::memory::{Mapped, Plain};
use crate::reclaim::{collect, pin};
use crate::relocation::{LOOK_UPS_AT_A_TIME, Move, relocate_all};
use crate::segments::{Contents, Location, Segment, SegmentTable};

/// A record to keep. A compaction may have millions of them.
#[derive(Clone, Copy)]
struct Survivor {
    lsn: u64,
    hash: KeyHash,
    /// The victim that holds it. `offset` is its place there.
    victim: u16,
    is_put: bool,
    key_len: u16,
    value_len: u32,
    offset: u32,
}

// SAFETY: all fields are numbers or booleans, for which zero bytes are valid.
unsafe impl Plain for Survivor {}

/// A segment to compact, and its bytes.
struct Victim {
    segment: Arc<Segment>,
    contents: Contents,
}

/// A victim whose records cannot be read now.
pub(super) struct Unreadable {
    pub(super) victim: SegmentId,
    pub(super) error: Error,
}

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

    /// Compacts the victims together. One thread at a time calls this.
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
        let mut loaded = Working::begin(&self.context.counters.compacting_bytes);
        let load = |segment: &Arc<Segment>| {
            let victim = Victim::load(segment)?;
            loaded.take(if segment.memory_bytes() == 0 { victim.contents.memory_bytes() } else { 0 });
            Ok(victim)
        };
        let victims: Vec<Victim> = segments.iter().map(load).collect::<Result<_, _>>()?;
        for Victim { segment, contents } in &victims {
            verify(segment, contents, &self.index, &self.segments)
                .map_err(|error| Unreadable { victim: segment.id, error })?;
        }
        let survivors = self.survivors(&victims, oldest_elsewhere)?;
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
        let mut copies = Working::begin(&self.context.counters.compacting_bytes);
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
        if let Err(error) = self.catalog.exchange(replaced, &new, horizon, self.log.end.last_lsn()) {
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

    /// The live puts of the victims, and the tombstones that may still hide a put, in the order of
    /// their LSNs. No segment outside the victims holds a dead put older than `oldest_elsewhere`.
    fn survivors(&self, victims: &[Victim], oldest_elsewhere: u64) -> Result<Mapped<Survivor>, Unreadable> {
        let mut survivors = Mapped::default();
        if let Some(first) = victims.first() {
            let count = victims.iter().map(|victim| victim.segment.survivors_max()).sum();
            survivors = Mapped::with_capacity(count).map_err(|error| first.no_memory(error))?;
        }
        for (number, victim) in (0..).zip(victims) {
            let found = self.survivors_of(number, victim, oldest_elsewhere, &mut survivors)?;
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
        &self,
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
                let Some((record, info)) = parse_trusted(base_lsn, rest).zip(decoder.check_header(rest))
                else {
                    return Err(victim.damaged(at));
                };
                let hash = self.index.hash(record.key);
                self.index.prefetch(hash, &guard);
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
                    RecordKind::Put => self.index.points_at(one.hash, one.place_in(slot), &guard),
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
            let segment = self.write_output(part, victims)?;
            copies.take(segment.memory_bytes());
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
    fn write_output(&self, survivors: &[Survivor], victims: &[Victim]) -> Result<Arc<Segment>> {
        let min_lsn = survivors.first().map_or(0, |survivor| survivor.lsn);
        let max_lsn = survivors.last().map_or(0, |survivor| survivor.lsn);
        let end = SEGMENT_HEADER_LEN
            + survivors.iter().map(|survivor| survivor.len_in(min_lsn)).sum::<usize>()
            + encoded_len(min_lsn, max_lsn, 0, Seal::BODY_LEN);
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

impl Survivor {
    fn place_in(&self, slot: u16) -> Location {
        Location::new(slot, self.offset as usize)
    }

    /// The bytes of its victim, which are `contents`, from the encoded record on.
    fn encoded<'a>(&self, contents: &'a [u8]) -> &'a [u8] {
        contents.get(self.offset as usize..).unwrap_or_default()
    }

    /// Length of the record in a segment with this base LSN, bytes.
    fn len_in(&self, base_lsn: u64) -> usize {
        encoded_len(base_lsn, self.lsn, usize::from(self.key_len), self.value_len as usize)
    }
}

impl Victim {
    /// Loads the file if the segment is cold. The file stays open, because the compactor removes it
    /// before it points the index at the copies.
    fn load(segment: &Arc<Segment>) -> Result<Self, Unreadable> {
        match segment.contents().and_then(|contents| segment.file.stay_open().map(|()| contents)) {
            Ok(contents) => Ok(Victim { segment: Arc::clone(segment), contents }),
            Err(error) => Err(Unreadable { victim: segment.id, error }),
        }
    }

    fn decoder(&self) -> Decoder {
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

/// The victims as past states need them. A compacted segment of which every record survives is not
/// needed any more. A log segment is, because its marks tell times.
fn replaced(victims: &[Victim], survivors: &[Survivor]) -> Vec<Replaced> {
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
fn mean_time(survivors: &[Survivor], victims: &[Victim]) -> Duration {
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
