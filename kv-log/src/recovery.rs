//! Recovery: from the files of a store to its index, by replay.
//!
//! Every segment that the manifest names is read into a memory image and scanned. For each key the record
//! with the highest LSN wins, whatever the order of segments. So they are replayed in parallel, and the
//! newest first: these stay in memory if there is a budget. Tombstones take part, and leave the index at
//! the end.
//!
//! How a log segment may end, and what that means (every other combination is damage, reported with
//! file and offset, and nothing is changed):
//!
//! | the manifest says | the scan finds | a later segment holds bytes | verdict |
//! |---|---|---|---|
//! | sealed | the seal, at the known length, with the right counts | any | whole |
//! | not sealed | the seal, with the right counts | any | whole |
//! | not sealed | zeros after whole batches | no | the head: go on here |
//! | not sealed | torn bytes beyond what is known durable, and no mark that proves a later sync | no | torn: cut and sealed here |

use kv_core::{Background, Env, Error, Lsn, OpenMode, RecoveryReport, Result, SegmentId};
use kv_wal_format::{
    Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentHeader, SegmentKind, Stop, StopReason,
    Tail, judge_tail, parse_trusted,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::head::SEAL_LEN;
use crate::index::{Index, KeyHash};
use crate::manifest::{Entry, Manifest, header_error};
use crate::options::{Options, RecoveryProgress};
use crate::readers::{Guard, collect, pin};
use crate::segment::{
    Contents, Image, Location, SEGMENT_BYTES_MAX, Segment, SegmentFile, SegmentFiles, SegmentTable,
};

/// A store as its files say, before anything is changed on disk.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) table: Arc<SegmentTable>,
    /// Finished segments, and the head, if there is one.
    pub(crate) segments: BTreeMap<SegmentId, Arc<Segment>>,
    /// Where the log goes on.
    pub(crate) head: Option<Arc<Segment>>,
    /// The newest segment, if a crash tore it: its end is where it is to be cut.
    pub(crate) torn: Option<Arc<Segment>>,
    /// Length of the longest key, bytes.
    pub(crate) longest_key: usize,
    pub(crate) report: RecoveryReport,
}

/// One segment, read and replayed.
struct Replayed {
    segment: Arc<Segment>,
    entry: Entry,
    stop: Stop,
    /// All of the file, where the segment does not have its seal.
    unfinished: Option<Contents>,
    /// Highest LSN of any record, marks and seal included.
    last_lsn: u64,
}

/// Where segments are replayed into.
struct Replay<'a> {
    env: &'a Env,
    files: &'a Arc<SegmentFiles>,
    options: &'a Options,
    index: &'a Index,
    table: &'a Arc<SegmentTable>,
    store_id: u32,
    /// When all segments are taken to have been written: it is not known when they were.
    now: Duration,
    /// Bytes of images that stay.
    resident_bytes: AtomicU64,
    longest_key: AtomicUsize,
    progress: Mutex<RecoveryProgress>,
}

/// Deletes that the index points at, unless something newer was found.
type Tombstones = Vec<(KeyHash, Location)>;

/// Reads and replays all segments of `manifest`. Changes nothing on disk.
pub(crate) fn recover(
    env: &Env,
    files: &Arc<SegmentFiles>,
    options: &Options,
    manifest: &Manifest,
) -> Result<Recovered> {
    let seed = match env.background {
        // Against floods of colliding keys.
        Background::Threads => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
        Background::Inline => 0,
    };
    let index = Index::new(options.index_shards, seed);
    let table = Arc::new(SegmentTable::new(options.segment_bytes, options.recycled_images_max()));
    let replay = Replay {
        env,
        files,
        options,
        index: &index,
        table: &table,
        store_id: manifest.store_id,
        now: env.clock.monotonic(),
        resident_bytes: AtomicU64::new(0),
        longest_key: AtomicUsize::new(0),
        progress: Mutex::default(),
    };
    let (replayed, tombstones) = replay.all(manifest)?;

    let mut report = RecoveryReport::default();
    let mut last_lsn = manifest.durable_lsn.get();
    for segment in &replayed {
        report.files += 1;
        report.bytes += segment.stop.offset as u64;
        report.records += segment.segment.sums.records.load(Ordering::Relaxed);
        last_lsn = last_lsn.max(segment.last_lsn);
    }
    report.last_lsn = Lsn::new(last_lsn);

    let mut segments = BTreeMap::new();
    let (mut head, mut torn): (Option<Arc<Segment>>, Option<Arc<Segment>>) = (None, None);
    // LSNs that are durable, and not in the segment at hand or covered by its known length.
    let mut lsn_before = manifest.durable_lsn.get();
    for one in &replayed {
        let unfinished = head.as_ref().or(torn.as_ref());
        if let Some(unfinished) = unfinished.filter(|_| one.entry.kind == SegmentKind::Log) {
            // Made ahead of need, and never used: left out, and so dropped.
            require_blank(one, unfinished)?;
            table.retire(&one.segment);
            continue;
        }
        if let Some(file) = &one.unfinished {
            match judge(one, file.bytes(), lsn_before)? {
                None => head = Some(Arc::clone(&one.segment)),
                Some(torn_bytes) => {
                    report.torn_bytes = torn_bytes;
                    torn = Some(Arc::clone(&one.segment));
                }
            }
        }
        lsn_before = lsn_before.max(one.last_lsn);
        segments.insert(one.segment.id, Arc::clone(&one.segment));
    }

    for (hash, location) in tombstones.into_iter().flatten() {
        index.lock(index.shard_of(hash)).remove(hash, location);
    }
    let longest_key = replay.longest_key.into_inner();
    Ok(Recovered { index, table, segments, head, torn, longest_key, report })
}

/// Whether the segment with these bytes has its seal, as it must if the manifest says so.
fn check_finished(segment: &Segment, entry: Entry, bytes: &[u8], stop: &Stop) -> Result<bool> {
    let path = segment.file.path();
    let damaged = |offset: usize, detail: String| Err(Error::corruption(path, offset as u64, detail));
    if stop.reason == StopReason::Sealed {
        let seal_at = stop.offset - SEAL_LEN;
        let expected = segment.seal();
        let seal = bytes.get(seal_at..).and_then(parse_trusted).as_ref().and_then(Seal::from_record);
        let (end, known) = (stop.offset as u64, entry.durable_len);
        return if seal == Some(expected) && if entry.sealed { end == known } else { end >= known } {
            Ok(true)
        } else {
            damaged(seal_at, format!("the seal says {seal:?}, the segment holds {expected:?}"))
        };
    }
    if entry.sealed {
        return damaged(stop.fault, format!("a sealed segment ends before its seal: {:?}", stop.reason));
    }
    Ok(false)
}

/// Judges the end of the newest segment: `None` when the log can go on there, or how many bytes a crash
/// has torn.
fn judge(one: &Replayed, bytes: &[u8], lsn_before: u64) -> Result<Option<u64>> {
    let path = one.segment.file.path();
    if (one.stop.fault as u64) < one.entry.durable_len {
        return Err(Error::corruption(
            path,
            one.stop.fault as u64,
            format!(
                "no record can be read here ({:?}), and {} bytes are known to have been synced",
                one.stop.reason, one.entry.durable_len
            ),
        ));
    }
    match judge_tail(one.segment.id.get(), bytes, &one.stop, lsn_before) {
        Tail::Clean if one.stop.offset + SEAL_LEN <= one.segment.capacity => Ok(None),
        Tail::Clean => Ok(Some(0)),
        Tail::Torn { offset } => Ok(Some((bytes.len() - offset) as u64)),
        Tail::Corrupt { offset, evidence } => {
            Err(Error::corruption(path, offset as u64, evidence.to_string()))
        }
    }
}

/// A segment after the unfinished one must be blank: nothing is written to it before its predecessor is
/// sealed and synced.
fn require_blank(one: &Replayed, unfinished: &Segment) -> Result<()> {
    let is_blank = |file: &Contents| file.bytes().iter().skip(SEGMENT_HEADER_LEN).all(|byte| *byte == 0);
    if !one.unfinished.as_ref().is_some_and(is_blank) {
        return Err(Error::corruption(
            unfinished.file.path(),
            unfinished.end() as u64,
            format!("the seal is missing or damaged: segment {} holds later changes", one.segment.id),
        ));
    }
    Ok(())
}

impl Replay<'_> {
    /// Replays every segment, in the order of ids in the answer, on all processors. Tombstones come
    /// as each of these found them.
    fn all(&self, manifest: &Manifest) -> Result<(Vec<Replayed>, Vec<Tombstones>)> {
        let newest_first: Vec<(SegmentId, Entry)> =
            manifest.segments.iter().rev().map(|(id, entry)| (*id, *entry)).collect();
        let workers = match self.env.background {
            Background::Threads => {
                thread::available_parallelism().map_or(1, NonZero::get).min(newest_first.len())
            }
            Background::Inline => 1,
        };
        self.progress.lock().files_total = newest_first.len() as u64;
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
        thread::scope(|scope| {
            // Where the system has no more threads, fewer do it.
            let start = |_| thread::Builder::new().spawn_scoped(scope, work).is_ok();
            let _all_started = (1..workers).all(start);
            work();
        });
        let (mut results, tombstones) = results.into_inner();
        results.sort_unstable_by_key(|(id, _)| *id);
        Ok((results.into_iter().map(|(_, result)| result).collect::<Result<_>>()?, tombstones))
    }

    fn one(&self, id: SegmentId, entry: Entry, tombstones: &mut Tombstones) -> Result<Replayed> {
        let (segment, file) = self.load(id, entry)?;
        let stop = self.scan(&segment, file.bytes(), tombstones)?;
        segment.set_end(stop.offset);
        segment.set_written(stop.offset);
        let durable_len = usize::try_from(entry.durable_len).unwrap_or(usize::MAX);
        segment.set_synced(durable_len.min(stop.offset));
        let is_finished = check_finished(&segment, entry, file.bytes(), &stop)?;
        if is_finished {
            segment.mark_sealed();
            if entry.sealed {
                segment.mark_durable();
            }
        }
        let last_lsn = stop.last_lsn;
        // Before the budget is looked at: an image that is shared could not go.
        let unfinished = (!is_finished).then_some(file);
        self.keep_within_budget(&segment);
        self.tell(&segment);
        Ok(Replayed { segment, entry, stop, unfinished, last_lsn })
    }

    /// A segment, and its file, in memory.
    fn load(&self, id: SegmentId, entry: Entry) -> Result<(Arc<Segment>, Contents)> {
        // What is sealed is not written again: on an overlay, opening it for that would copy it.
        let is_written = !entry.sealed && !self.options.read_only;
        let mode = if is_written { OpenMode::ReadWrite } else { OpenMode::Read };
        let file = SegmentFile::open(self.files, id, mode)?;
        let path = file.path().to_path_buf();
        let damaged = |offset: usize, detail: &str| Error::corruption(&path, offset as u64, detail);
        let file_len = usize::try_from(file.len()?)
            .ok()
            .filter(|len| *len <= SEGMENT_BYTES_MAX)
            .ok_or_else(|| damaged(SEGMENT_BYTES_MAX, "the file is longer than any segment"))?;
        if (file_len as u64) < entry.durable_len {
            return Err(damaged(file_len, &format!("the file was {} bytes long", entry.durable_len)));
        }
        // A sealed segment needs no more room than its records; the head can grow to its full size, and at least to
        // take a seal, even if it was made when segments were larger.
        let (capacity, read_len) = match usize::try_from(entry.durable_len) {
            Ok(len) if entry.sealed => (len, len),
            _ => ((file_len + SEAL_LEN).max(self.options.segment_bytes), file_len),
        };
        let image = Image::new(capacity).map_err(|error| Error::io("allocate memory for", &path, error))?;
        // SAFETY: nobody else knows this image yet.
        let (read, bytes) = unsafe {
            let read = image.fill(0, read_len, |bytes| {
                if entry.sealed { file.read_at(bytes, 0) } else { file.read_sparsely(bytes) }
            })?;
            (read, image.published(0, read_len).unwrap_or_default())
        };
        if read < read_len {
            return Err(damaged(read, "the file ended while it was read"));
        }
        let header = SegmentHeader::decode(bytes).map_err(|error| header_error(&path, error))?;
        if header != (SegmentHeader { kind: entry.kind, segment_id: id.get(), ..header }) {
            return Err(damaged(
                0,
                &format!(
                    "this is {} segment {}, not {} segment {id}",
                    header.kind, header.segment_id, entry.kind
                ),
            ));
        }
        if header.store_id != self.store_id {
            return Err(damaged(0, "this is a segment of another store than the manifest's"));
        }
        let slot =
            self.table.reserve_slot(0).ok_or_else(|| damaged(0, "there are more segments than slots"))?;
        let (file, end) = (Arc::new(file.with_capacity(capacity)), SEGMENT_HEADER_LEN);
        let segment = Arc::new(Segment::new(id, slot, entry.kind, image, file, self.now, end));
        self.table.install(&segment);
        let image = segment.share_image().expect("it was just made with one");
        // SAFETY: this thread filled it, and nobody writes to it during recovery.
        Ok((segment, unsafe { Contents::new(image, read_len) }))
    }

    /// Puts the changes of one segment with these bytes into the index.
    fn scan(&self, segment: &Segment, bytes: &[u8], tombstones: &mut Tombstones) -> Result<Stop> {
        let mut scanner = Scanner::new(segment.id.get(), bytes, SEGMENT_HEADER_LEN);
        let (guard, mut longest_key) = (pin(), 0);
        for (offset, record) in scanner.by_ref() {
            if !record.kind.is_change() {
                continue;
            }
            longest_key = longest_key.max(record.key.len());
            if record.lsn == 0 {
                let detail = "a change without LSN";
                return Err(Error::corruption(segment.file.path(), offset as u64, detail));
            }
            segment.add_record(Lsn::new(record.lsn), record.kind, record.encoded_len());
            self.replay(&record, Location::new(segment.slot, offset), tombstones, &guard)?;
        }
        self.longest_key.fetch_max(longest_key, Ordering::Relaxed);
        Ok(scanner.stop())
    }

    /// The record with the highest LSN wins.
    fn replay(
        &self,
        record: &Record<'_>,
        location: Location,
        tombstones: &mut Tombstones,
        guard: &Guard,
    ) -> Result<()> {
        let hash = self.index.hash(record.key);
        let mut shard = self.index.lock(self.index.shard_of(hash));
        let known =
            shard.find(hash, record.key, self.table, guard, |at, known| (at, known.lsn, Pair::of(&known)))?;
        let died = |location: Location, pair: Pair| {
            self.table.get(location, guard).sums.died(pair.encoded_len);
        };
        let (pair, mut went) = (Pair::of(record), 0);
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
            tombstones
                .try_reserve(1)
                .map_err(|_| Error::io("allocate memory to recover", path, ErrorKind::OutOfMemory.into()))?;
            tombstones.push((hash, location));
        }
        shard.insert(hash, known.map(|(at, ..)| at), location);
        Ok(())
    }

    /// One more is replayed.
    fn tell(&self, segment: &Segment) {
        if let Some(on_recovery) = &self.options.on_recovery {
            let mut progress = self.progress.lock();
            progress.files += 1;
            progress.bytes += segment.end() as u64;
            progress.records += segment.sums.records.load(Ordering::Relaxed);
            on_recovery.call(*progress);
        }
    }

    /// Gives up the image of a segment that is one too many.
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

/// What is counted of a put.
#[derive(Clone, Copy)]
struct Pair {
    /// Of key and value.
    bytes: usize,
    encoded_len: u64,
}

impl Pair {
    fn of(record: &Record<'_>) -> Option<Self> {
        let pair = || Pair {
            bytes: record.key.len() + record.value.len(),
            encoded_len: record.encoded_len() as u64,
        };
        (record.kind == RecordKind::Put).then(pair)
    }
}
