//! Recovery: from the files of a store to its index, by replay.
//!
//! Every segment that the manifest names is read into a memory image and scanned; for each key the
//! record with the highest LSN wins, whatever the order of segments, so they are replayed in parallel.
//! Tombstones take part, and leave the index at the end.
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

use kv_core::{Background, Env, Error, Lsn, RecoveryReport, Result, SegmentId};
use kv_wal_format::{
    Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentHeader, SegmentKind, Stop, StopReason,
    Tail, judge_tail,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::commit::SEAL_LEN;
use crate::counters::Counters;
use crate::index::Index;
use crate::manifest::{Entry, Manifest, header_error};
use crate::options::Options;
use crate::segment::{Image, Location, SEGMENT_BYTES_MAX, Segment, SegmentFile, SegmentTable};

/// A store as its files say, before anything is changed on disk.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) table: Arc<SegmentTable>,
    pub(crate) counters: Counters,
    /// Finished segments, and the head, if there is one.
    pub(crate) segments: BTreeMap<SegmentId, Arc<Segment>>,
    /// Where the log goes on.
    pub(crate) head: Option<Arc<Segment>>,
    /// The newest segment, if a crash tore it: its end is where it is to be cut.
    pub(crate) torn: Option<Arc<Segment>>,
    pub(crate) report: RecoveryReport,
}

/// One segment, read and replayed.
struct Replayed {
    segment: Arc<Segment>,
    entry: Entry,
    stop: Stop,
    /// Bytes that the file has.
    file_len: usize,
    /// Highest LSN of any record, marks and seal included.
    last_lsn: u64,
}

/// Where segments are replayed into.
struct Replay<'a> {
    env: &'a Env,
    dir: &'a Path,
    options: &'a Options,
    index: &'a Index,
    table: &'a Arc<SegmentTable>,
    store_id: u32,
}

/// Reads and replays all segments of `manifest`. Changes nothing on disk.
pub(crate) fn recover(env: &Env, dir: &Path, options: &Options, manifest: &Manifest) -> Result<Recovered> {
    let seed = match env.background {
        // Against floods of colliding keys.
        Background::Threads => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
        Background::Inline => 0,
    };
    let index = Index::new(options.index_shards, seed);
    let table = Arc::new(SegmentTable::new(options.segment_bytes));
    let replay = Replay { env, dir, options, index: &index, table: &table, store_id: manifest.store_id };
    let replayed = replay.all(manifest)?;

    let mut report = RecoveryReport::default();
    let mut last_lsn = manifest.durable_lsn.get();
    for segment in &replayed {
        report.files += 1;
        report.bytes += segment.stop.offset as u64;
        report.records += segment.segment.records.load(Ordering::Relaxed);
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
            table.retire(&one.segment, &crossbeam_epoch::pin());
            continue;
        }
        if check_finished(one)? {
            one.segment.mark_sealed();
            if one.entry.sealed {
                one.segment.mark_durable();
            }
        } else {
            match judge(one, lsn_before)? {
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

    let counters = Counters::default();
    settle(&index, &table, &counters);
    Ok(Recovered { index, table, counters, segments, head, torn, report })
}

/// Whether the segment has its seal, as it must if the manifest says so.
fn check_finished(one: &Replayed) -> Result<bool> {
    let path = one.segment.file.path();
    let damaged = |offset: usize, detail: String| Err(Error::corruption(path, offset as u64, detail));
    if one.stop.reason == StopReason::Sealed {
        let seal_at = one.stop.offset - SEAL_LEN;
        let expected = one.segment.seal();
        let seal = Seal::from_record(&one.segment.record_at(seal_at));
        return if seal == Some(expected)
            && (!one.entry.sealed || one.stop.offset as u64 == one.entry.durable_len)
        {
            Ok(true)
        } else {
            damaged(seal_at, format!("the seal says {seal:?}, the segment holds {expected:?}"))
        };
    }
    if one.entry.sealed {
        return damaged(
            one.stop.fault,
            format!("a sealed segment ends before its seal: {:?}", one.stop.reason),
        );
    }
    Ok(false)
}

/// Judges the end of the newest segment: `None` when the log can go on there, or how many bytes a crash
/// has torn.
fn judge(one: &Replayed, lsn_before: u64) -> Result<Option<u64>> {
    let path = one.segment.file.path();
    // SAFETY: the image was filled by this recovery, and nobody writes to it yet.
    let bytes = unsafe { one.segment.image.published(0, one.file_len) }.unwrap_or_default();
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
        Tail::Clean if one.stop.offset + SEAL_LEN <= one.segment.image.capacity() => Ok(None),
        Tail::Clean => Ok(Some(0)),
        Tail::Torn { offset } => Ok(Some((one.file_len - offset) as u64)),
        Tail::Corrupt { offset, evidence } => {
            Err(Error::corruption(path, offset as u64, evidence.to_string()))
        }
    }
}

/// A segment after the unfinished one must be blank: nothing is written to it before its predecessor is
/// sealed and synced.
fn require_blank(one: &Replayed, unfinished: &Segment) -> Result<()> {
    // SAFETY: as in `judge`.
    let bytes = unsafe { one.segment.image.published(0, one.file_len) }.unwrap_or_default();
    if one.entry.sealed || bytes.iter().skip(SEGMENT_HEADER_LEN).any(|byte| *byte != 0) {
        return Err(Error::corruption(
            unfinished.file.path(),
            unfinished.end() as u64,
            format!("the seal is missing or damaged: segment {} holds later changes", one.segment.id),
        ));
    }
    Ok(())
}

/// Takes the tombstones out of the index, and counts what is live.
fn settle(index: &Index, table: &SegmentTable, counters: &Counters) {
    let guard = crossbeam_epoch::pin();
    index.retain(|location| {
        let segment = table.get(location, &guard);
        let record = segment.record_at(location.offset());
        if record.kind == RecordKind::Delete {
            return false;
        }
        segment.live_bytes.fetch_add(record.encoded_len() as u64, Ordering::Relaxed);
        counters.add_pair(record.key.len() + record.value.len());
        true
    });
}

impl Replay<'_> {
    /// Replays every segment, in the order of ids in the answer, on all processors.
    fn all(&self, manifest: &Manifest) -> Result<Vec<Replayed>> {
        let entries: Vec<(SegmentId, Entry)> =
            manifest.segments.iter().map(|(id, entry)| (*id, *entry)).collect();
        let workers = match self.env.background {
            Background::Threads => thread::available_parallelism().map_or(1, NonZero::get).min(entries.len()),
            Background::Inline => 1,
        };
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::with_capacity(entries.len()));
        let work = || {
            while let Some((id, entry)) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = self.one(*id, *entry);
                let failed = result.is_err();
                results.lock().push((*id, result));
                if failed {
                    next.store(entries.len(), Ordering::Relaxed);
                }
            }
        };
        if workers <= 1 {
            work();
        } else {
            thread::scope(|scope| {
                for _ in 0..workers {
                    scope.spawn(work);
                }
            });
        }
        let mut results = results.into_inner();
        results.sort_unstable_by_key(|(id, _)| *id);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn one(&self, id: SegmentId, entry: Entry) -> Result<Replayed> {
        let file = SegmentFile::open(&*self.env.fs, self.dir, id)?;
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
        let read = unsafe { image.fill(0, read_len, |bytes| file.read(bytes)) }?;
        if read < read_len {
            return Err(damaged(read, "the file ended while it was read"));
        }
        // SAFETY: as above; it is not written again before the scan is over.
        let bytes = unsafe { image.published(0, read_len) }.unwrap_or_default();
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
            self.table.reserve_slot().ok_or_else(|| damaged(0, "there are more segments than slots"))?;
        let now = self.env.clock.monotonic();
        let segment =
            Arc::new(Segment::new(id, slot, entry.kind, image, Arc::new(file), now, SEGMENT_HEADER_LEN));
        self.table.install(&segment);

        let (stop, last_lsn) = self.scan(&segment, read_len)?;
        segment.set_end(stop.offset);
        segment.set_written(stop.offset);
        let durable_len = usize::try_from(entry.durable_len).unwrap_or(usize::MAX);
        segment.set_synced(durable_len.min(stop.offset));
        Ok(Replayed { segment, entry, stop, file_len: read_len, last_lsn })
    }

    /// Puts the changes of one segment into the index.
    fn scan(&self, segment: &Arc<Segment>, len: usize) -> Result<(Stop, u64)> {
        // SAFETY: the image was filled before, and nobody writes to it during recovery.
        let bytes = unsafe { segment.image.published(0, len) }.unwrap_or_default();
        let mut scanner = Scanner::new(segment.id.get(), bytes, SEGMENT_HEADER_LEN);
        let guard = crossbeam_epoch::pin();
        for (offset, record) in scanner.by_ref() {
            if !record.kind.is_change() {
                continue;
            }
            if record.lsn == 0 {
                let detail = "a change without LSN";
                return Err(Error::corruption(segment.file.path(), offset as u64, detail));
            }
            segment.add_record(Lsn::new(record.lsn));
            if record.kind == RecordKind::Delete {
                segment.tombstone_bytes.fetch_add(record.encoded_len() as u64, Ordering::Relaxed);
            }
            self.replay(&record, Location::new(segment.slot, offset), &guard);
        }
        let stop = scanner.stop();
        Ok((stop, stop.last_lsn))
    }

    /// The record with the highest LSN wins.
    fn replay(&self, record: &Record<'_>, location: Location, guard: &crossbeam_epoch::Guard) {
        let hash = self.index.hash(record.key);
        let mut shard = self.index.lock(self.index.shard_of(hash));
        let known = shard.find(hash, record.key, self.table, guard);
        if known.is_none_or(|known| known.record(self.table, guard).lsn < record.lsn) {
            shard.insert(hash, record.key, known, location, self.table, guard);
        }
    }
}
