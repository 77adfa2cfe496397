//! Replay: from segment files to the index.
//!
//! Replay reads every segment that no checkpoint covers into a memory image, and scans it. Then it
//! points the index at the records, one shard after the other. For each key, the record with the
//! highest LSN wins, so the order of the segments does not matter. All processors replay segments
//! in parallel. They begin with the newest: with a memory budget, those stay in memory. Tombstones
//! take part. [`recovered`](super::recovered) removes them from the index at the end.
//!
//! Replay changes nothing on disk.

use kv_core::fs::OpenMode;
use kv_core::{Env, Error, Lsn, Op, Result, SegmentId};
use kv_wal_format::{Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Stop, parse_trusted};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::verdict::{Before, Ending, Named, Scanned, Verdict, decide, sealed_ending, unsealed_ending};
use crate::checkpoint::Loaded;
use crate::index::{Index, KeyHash, LockedShard, RecordAt, Records, prefetched};
use crate::log::{MARK_LEN_MAX, SEAL_LEN_MAX};
use crate::manifest::{Entry, Manifest, header_of};
use crate::memory::prefetch;
use crate::options::{Options, RecoveryProgress};
use crate::processors::on_all_processors;
use crate::reclaim::{Guard, collect, pin};
use crate::segments::{
    Contents, Image, Location, SEGMENT_BYTES_MAX, Segment, SegmentFile, SegmentFiles, SegmentTable,
};
use crate::tail::{Rest, Unwritten};

/// One segment, read and replayed.
pub(super) struct Replayed {
    pub(super) segment: Arc<Segment>,
    pub(super) entry: Entry,
    pub(super) stop: Stop,
    pub(super) end: End,
    /// Highest LSN of any record, marks and seal included.
    pub(super) last_lsn: u64,
    /// LSN of the newest mark. 0 if there is none.
    pub(super) dated_lsn: u64,
}

/// How a segment with a seal ends, or all bytes of one without.
pub(super) enum End {
    Sealed(Ending),
    Unfinished(Contents),
}

impl Replayed {
    /// The facts for the verdict.
    pub(super) fn scanned<'a>(&self, bytes: &'a [u8]) -> Scanned<'a> {
        scanned(&self.segment, self.entry, bytes, self.stop)
    }
}

fn scanned<'a>(segment: &Segment, entry: Entry, bytes: &'a [u8], stop: Stop) -> Scanned<'a> {
    let (origin, seal) = (segment.origin(), segment.seal());
    Scanned { origin, bytes, stop, seal, known_len: entry.durable_len }
}

/// What the manifest says of a segment with this entry.
pub(super) fn named(entry: Entry) -> Named {
    if entry.sealed { Named::Sealed } else { Named::Unsealed }
}

/// The replay of segments into an index and a segment table.
pub(super) struct Replay<'a> {
    env: &'a Env,
    files: &'a Arc<SegmentFiles>,
    options: &'a Options,
    index: &'a Index,
    table: &'a Arc<SegmentTable>,
    store_id: u32,
    /// The segments that a checkpoint covers. They are not replayed.
    covered: &'a BTreeMap<SegmentId, Arc<Segment>>,
    /// Changes up to this LSN are in the checkpoint, unless they are in segments that it does not
    /// cover.
    horizon: u64,
    /// The age of all segments is counted from here, because the time of their records is unknown.
    now: Duration,
    /// Bytes that the files lack, for an opening for reading.
    unwritten: &'a Unwritten,
    /// Bytes of images that stay in memory.
    resident_bytes: AtomicU64,
    longest_key: AtomicUsize,
    progress: Mutex<RecoveryProgress>,
}

/// The distance between the first shards of two segments.
const SHARDS_APART: usize = 101;

/// Deletes that the index points at, unless a newer record of the key was found.
pub(super) type Tombstones = Vec<(KeyHash, Location)>;

/// How a segment with a seal ends. `None` for a segment without one, which may be unfinished.
///
/// # Errors
/// The segment is damaged in itself.
fn check_seal(segment: &Segment, entry: Entry, bytes: &[u8], stop: Stop) -> Result<Option<Ending>> {
    let scanned = scanned(segment, entry, bytes, stop);
    let ending = match sealed_ending(&scanned) {
        Some(ending) => ending,
        None if entry.sealed => unsealed_ending(&scanned, stop.last_lsn),
        None => return Ok(None),
    };
    match decide(named(entry), ending, Before::AllSealed) {
        Verdict::Damaged(damage) => Err(damage.error(segment.file.path(), &scanned, stop.last_lsn)),
        _ => Ok(Some(ending)),
    }
}

impl<'a> Replay<'a> {
    /// After the checkpoint that was `loaded`.
    pub(super) fn new(
        env: &'a Env,
        files: &'a Arc<SegmentFiles>,
        options: &'a Options,
        manifest: &Manifest,
        loaded: &'a Loaded,
        table: &'a Arc<SegmentTable>,
        unwritten: &'a Unwritten,
    ) -> Self {
        Replay {
            env,
            files,
            options,
            index: &loaded.index,
            table,
            store_id: manifest.store_id,
            covered: &loaded.segments,
            horizon: loaded.horizon,
            now: env.clock.monotonic(),
            unwritten,
            resident_bytes: AtomicU64::new(0),
            longest_key: AtomicUsize::new(loaded.longest_key),
            progress: Mutex::default(),
        }
    }

    /// Length of the longest key of the checkpoint and the replayed segments, bytes.
    pub(super) fn longest_key(&self) -> usize {
        self.longest_key.load(Ordering::Relaxed)
    }

    /// Replays every segment on all processors. The answer is in the order of ids, with the
    /// tombstones that each thread found.
    pub(super) fn all(&self, manifest: &Manifest) -> Result<(Vec<Replayed>, Vec<Tombstones>)> {
        let replayed = manifest.segments.iter().filter(|(id, _)| !self.covered.contains_key(id));
        let newest_first: Vec<(SegmentId, Entry)> = replayed.rev().map(|(id, entry)| (*id, *entry)).collect();
        *self.progress.lock() = RecoveryProgress {
            files_total: newest_first.len() as u64,
            bytes_left: newest_first.iter().fold(0, |sum, (_, entry)| entry.durable_len.saturating_add(sum)),
            ..RecoveryProgress::default()
        };
        let next = AtomicUsize::new(0);
        let results = Mutex::new((Vec::with_capacity(newest_first.len()), Vec::new()));
        let work = || {
            let mut tombstones = Tombstones::new();
            while let Some((id, entry)) = newest_first.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = self.one(*id, *entry, &mut tombstones);
                let failed = result.is_err();
                results.lock().0.push((*id, result));
                if failed {
                    next.store(newest_first.len(), Ordering::Relaxed);
                }
            }
            results.lock().1.push(tombstones);
        };
        on_all_processors(self.env.background, newest_first.len(), work);
        let (mut results, tombstones) = results.into_inner();
        results.sort_unstable_by_key(|(id, _)| *id);
        Ok((results.into_iter().map(|(_, result)| result).collect::<Result<_>>()?, tombstones))
    }

    fn one(&self, id: SegmentId, entry: Entry, tombstones: &mut Tombstones) -> Result<Replayed> {
        let (segment, file) = self.load(id, entry)?;
        let (stop, dated_lsn) = self.scan(&segment, file.bytes(), tombstones)?;
        segment.set_end(stop.offset);
        segment.set_written(stop.offset);
        let durable_len = usize::try_from(entry.durable_len).unwrap_or(usize::MAX);
        segment.set_synced(durable_len.min(stop.offset));
        let sealed = check_seal(&segment, entry, file.bytes(), stop)?;
        if sealed.is_some() {
            segment.mark_sealed();
            if entry.sealed {
                segment.mark_durable();
            }
        }
        let last_lsn = stop.last_lsn;
        // Before the budget is checked: an image that is shared cannot be evicted.
        let end = sealed.map_or_else(|| End::Unfinished(file), End::Sealed);
        self.keep_within_budget(&segment);
        self.tell(&segment, entry);
        Ok(Replayed { segment, entry, stop, end, last_lsn, dated_lsn })
    }

    /// Reads a segment's file into an image.
    fn load(&self, id: SegmentId, entry: Entry) -> Result<(Arc<Segment>, Contents)> {
        // A sealed segment is not written again. On an overlay file system, opening it for writing
        // would copy it.
        let is_written = !entry.sealed && !self.options.read_only;
        let mode = if is_written { OpenMode::ReadWrite } else { OpenMode::Read };
        let file = SegmentFile::open(self.files, id, mode)?;
        let path = file.path().to_path_buf();
        let damaged = |offset: usize, fault: &str| Error::corruption(&path, offset as u64, fault);
        let file_len = usize::try_from(file.len()?)
            .ok()
            .filter(|len| *len <= SEGMENT_BYTES_MAX)
            .ok_or_else(|| damaged(SEGMENT_BYTES_MAX, "the file is longer than any segment"))?;
        if (file_len as u64) < entry.durable_len {
            let fault = format!("the file ends here, and was {} bytes long", entry.durable_len);
            return Err(damaged(file_len, &fault));
        }
        // A sealed segment needs no more room than its records. The active one may grow to the
        // segment size, and always has room for a mark and a seal, even if it was made when
        // segments were larger.
        let unwritten = self.unwritten.get(&id);
        let all_len = unwritten.map_or(0, |rest| rest.from + rest.bytes.len()).max(file_len);
        let (capacity, read_len) = match usize::try_from(entry.durable_len) {
            Ok(len) if entry.sealed => (len, len),
            _ => ((all_len + MARK_LEN_MAX + SEAL_LEN_MAX).max(self.options.segment_bytes), file_len),
        };
        let image = Image::new(capacity).map_err(|error| Error::io(Op::AllocateMemory, &path, error))?;
        // SAFETY: no other thread knows this image yet.
        let (read, bytes) = unsafe {
            let read = image.fill(0, read_len, |bytes| {
                if entry.sealed { file.read_at(bytes, 0) } else { file.read_sparsely(bytes) }
            })?;
            if let Some(Rest { from, bytes }) = unwritten {
                image.fill(*from, bytes.len(), |out| out.copy_from_slice(bytes));
            }
            (read, image.published(0, read_len).unwrap_or_default())
        };
        if read < read_len {
            return Err(damaged(read, "the file ended while it was read"));
        }
        let header = header_of(&path, bytes, entry.kind, id, self.store_id)?;
        let slot =
            self.table.reserve_slot(0).ok_or_else(|| damaged(0, "there are more segments than slots"))?;
        let (file, end) = (Arc::new(file.with_capacity(capacity)), SEGMENT_HEADER_LEN);
        let segment = Arc::new(Segment::new(&header, slot, image, file, self.now, end));
        self.table.install(&segment);
        let image = segment.share_image().expect("it was just made with one");
        // SAFETY: this thread filled it, and no thread writes to it during recovery.
        Ok((segment, unsafe { Contents::new(image, all_len.min(capacity), header.base_lsn) }))
    }

    /// Replays the changes in one segment, whose bytes are `bytes`. Returns where its records end,
    /// and the LSN of its newest mark.
    fn scan(&self, segment: &Segment, bytes: &[u8], tombstones: &mut Tombstones) -> Result<(Stop, u64)> {
        let mut scanner = Scanner::new(segment.origin(), bytes, SEGMENT_HEADER_LEN);
        let mut changes = Records::new(self.index, segment.file.path());
        let (mut longest_key, mut dated_lsn) = (0, 0);
        for (range, record) in scanner.by_ref() {
            if !record.kind.is_change() {
                dated_lsn = if record.kind == RecordKind::Mark { record.lsn } else { dated_lsn };
                continue;
            }
            if record.lsn == 0 {
                let fault = "this change has the LSN 0, which no change has";
                return Err(Error::corruption(segment.file.path(), range.start as u64, fault));
            }
            longest_key = longest_key.max(record.key.len());
            segment.add_record(Lsn::new(record.lsn), record.kind, range.len());
            changes.add(record.key, &range)?;
        }
        self.longest_key.fetch_max(longest_key, Ordering::Relaxed);
        let changes = changes.by_shard()?;
        // Threads begin at different shards, so that they seldom wait for each other.
        let (shards, first) = (self.index.shard_count(), usize::from(segment.slot) * SHARDS_APART);
        for shard in (first..first + shards).map(|shard| shard % shards) {
            self.replay_shard(segment, bytes, shard, changes.of(shard), tombstones)?;
        }
        Ok((scanner.stop(), dated_lsn))
    }

    /// Replays the `changes` to the keys of one shard. They are in one segment, whose bytes are
    /// `bytes`.
    fn replay_shard(
        &self,
        segment: &Segment,
        bytes: &[u8],
        shard: usize,
        changes: &[RecordAt],
        tombstones: &mut Tombstones,
    ) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let (guard, mut locked) = (pin(), self.index.lock(shard));
        let rest = |change: &RecordAt| bytes.get(change.start()..).unwrap_or_default();
        let prefetch_both = |change: &RecordAt| {
            self.index.prefetch(change.hash, &guard);
            prefetch(rest(change).as_ptr());
        };
        for change in prefetched(changes, prefetch_both) {
            let record = parse_trusted(segment.base_lsn, rest(change)).expect("the scan found it here");
            let location = Location::new(segment.slot, change.start());
            let found = Found { record, len: change.len(), hash: change.hash, location };
            self.replay(&mut locked, &found, tombstones, &guard)?;
        }
        Ok(())
    }

    /// Points the index at a change, unless the index knows a newer record of its key.
    fn replay(
        &self,
        shard: &mut LockedShard<'_>,
        &Found { ref record, len, hash, location }: &Found<'_>,
        tombstones: &mut Tombstones,
        guard: &Guard,
    ) -> Result<()> {
        let is_unread = |at| self.table.get(at, guard).is_unverified();
        if record.lsn > self.horizon && !self.covered.is_empty() {
            shard.displace(hash, is_unread);
        }
        // The entries of the checkpoint that are left are of other keys, or newer: the copy of the
        // shard showed this record or a newer one. Only a tombstone meets a newer one of its key.
        let others = &mut shard.locations_with(hash, is_unread);
        let known = shard.find(hash, record.key, others, self.table, guard, |at, known, len| {
            (at, known.lsn, Pair::of(&known, len))
        })?;
        let number = shard.number();
        let died = |location: Location, pair: Pair| {
            self.table.get(location, guard).tally.died_in(number, pair.encoded_len);
        };
        let (pair, mut went) = (Pair::of(record, len), 0);
        if let Some((at, lsn, known)) = known {
            if lsn >= record.lsn {
                if let Some(pair) = pair {
                    died(location, pair);
                }
                return Ok(());
            }
            if let Some(pair) = known {
                went = pair.bytes;
                died(at, pair);
            }
        }
        shard.count_pairs(pair.map_or(0, |pair| pair.bytes), went);
        if known.is_none() {
            shard.reserve(1, self.table.get(location, guard).file.path())?;
        }
        if pair.is_none() {
            let path = self.table.get(location, guard).file.path();
            let no_memory = |_| Error::io(Op::AllocateMemory, path, ErrorKind::OutOfMemory.into());
            tombstones.try_reserve(1).map_err(no_memory)?;
            tombstones.push((hash, location));
        }
        shard.insert(hash, known.map(|(at, ..)| at), location);
        Ok(())
    }

    /// Tells the caller that one more segment is replayed.
    fn tell(&self, segment: &Segment, entry: Entry) {
        if let Some(on_recovery) = &self.options.on_recovery {
            let mut progress = self.progress.lock();
            progress.files += 1;
            progress.bytes += segment.end() as u64;
            progress.records += segment.tally.records();
            progress.bytes_left = progress.bytes_left.saturating_sub(entry.durable_len);
            on_recovery.call(*progress);
        }
    }

    /// Evicts the image of a segment that exceeds the budget.
    fn keep_within_budget(&self, segment: &Segment) {
        let Some(limit) = self.options.resident_bytes_max() else { return };
        let bytes = segment.memory_bytes() as u64;
        let images = self.resident_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if segment.is_durable() && images + self.index.allocated_bytes() as u64 > limit {
            self.resident_bytes.fetch_sub(self.table.evict(segment), Ordering::Relaxed);
            collect();
        }
    }
}

/// A change in its segment.
struct Found<'a> {
    record: Record<'a>,
    /// Bytes of the encoded record.
    len: usize,
    hash: KeyHash,
    location: Location,
}

/// The counted sizes of a put.
#[derive(Clone, Copy)]
struct Pair {
    /// Bytes of key and value.
    bytes: usize,
    encoded_len: u64,
}

impl Pair {
    fn of(record: &Record<'_>, encoded_len: usize) -> Option<Self> {
        let pair = || Pair { bytes: record.key.len() + record.value.len(), encoded_len: encoded_len as u64 };
        (record.kind == RecordKind::Put).then(pair)
    }
}
