//! Loading: the newest checkpoint fills the index, and its segments stay cold. Loading reads no
//! record, and needs nothing of adoption, so an opening does both at the same time.

use kv_core::fs::{Dir, OpenMode};
use kv_core::{Env, Error, Result, SegmentId};
use kv_wal_format::{SEGMENT_HEADER_LEN, SegmentHeader};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::format::{Covered, Fault, Parsed, fault, parse};
use super::read::read;
use crate::index::Index;
use crate::manifest::{CheckpointName, Entry, Manifest, header_error};
use crate::options::Options;
use crate::processors::{each_on_all_processors, on_all_processors};
use crate::segments::{Location, SEGMENT_BYTES_MAX, Segment, SegmentFile, SegmentFiles, SegmentTable};

/// An index that a checkpoint has filled.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) index: Index,
    /// The covered segments that are still there.
    pub(crate) segments: BTreeMap<SegmentId, Arc<Segment>>,
    /// The highest LSN of their changes.
    pub(crate) max_lsn: u64,
    pub(crate) longest_key: usize,
    /// The newest LSN when the checkpoint began. Only records above it displace entries.
    pub(crate) horizon: u64,
    /// Bytes of the checkpoint. 0 if there is none.
    pub(crate) bytes: u64,
}

impl Loaded {
    /// Without a checkpoint.
    pub(crate) fn nothing(index: Index) -> Self {
        Loaded { index, segments: BTreeMap::new(), max_lsn: 0, longest_key: 0, horizon: 0, bytes: 0 }
    }
}

/// A covered segment, in this store.
struct Placed {
    segment: Option<Arc<Segment>>,
    entries: u64,
}

/// Fills an index from the checkpoint `name`, which the manifest names. `Ok(Err(..))` says why that
/// checkpoint cannot be used.
///
/// # Errors
/// A covered segment is missing or damaged, or the system has no memory for the index.
pub(crate) fn load(
    env: &Env,
    dir: &dyn Dir,
    files: &Arc<SegmentFiles>,
    options: &Options,
    manifest: &Manifest,
    name: CheckpointName,
    table: &Arc<SegmentTable>,
) -> Result<Result<Loaded, Fault>> {
    let bytes = match read(env, dir, name) {
        Ok(bytes) => bytes,
        Err(fault) => return Ok(Err(fault)),
    };
    let parsed = parse(bytes.bytes(), name, manifest.store_id).and_then(|parsed| {
        check(&parsed, options, manifest)?;
        Ok((parsed.count_entries(env.background)?, parsed))
    });
    let (counts, parsed) = match parsed {
        Ok(parsed) => parsed,
        Err(fault) => return Ok(Err(fault)),
    };
    let index = Index::new(options.index_shards, parsed.head.seed);
    if index.hash_check() != parsed.head.hash_check {
        return Ok(Err(fault(SEGMENT_HEADER_LEN, "its entries were made with another hash function")));
    }
    let loading = Loading { env, files, table, manifest };
    let placed = loading.place(&parsed.segments, &counts)?;
    loading.fill(&index, &parsed, &placed, dir)?;
    let segments: BTreeMap<SegmentId, Arc<Segment>> = placed
        .iter()
        .filter_map(|placed| placed.segment.as_ref())
        .map(|segment| (segment.id, Arc::clone(segment)))
        .collect();
    index.set_estimated(parsed.head.is_estimated || segments.len() < parsed.segments.len());
    Ok(Ok(Loaded {
        index,
        max_lsn: segments.values().map(|segment| segment.max_lsn()).max().unwrap_or(0),
        segments,
        horizon: parsed.horizon,
        longest_key: usize::try_from(parsed.head.longest_key).unwrap_or(usize::MAX),
        bytes: bytes.bytes().len() as u64,
    }))
}

/// Compares the checkpoint with the manifest and the options.
fn check(parsed: &Parsed<'_>, options: &Options, manifest: &Manifest) -> Result<(), Fault> {
    let at = SEGMENT_HEADER_LEN;
    if parsed.head.shards != options.index_shards as u64 {
        let shards = parsed.head.shards;
        return Err(fault(at, format!("it is of an index with {shards} shards, and index_shards differs")));
    }
    if parsed.horizon > manifest.durable_lsn.get() {
        return Err(fault(at, "it is newer than the manifest"));
    }
    for covered in &parsed.segments {
        if covered.len > SEGMENT_BYTES_MAX as u64 {
            return Err(fault(at, format!("segment {} is longer than any segment", covered.id)));
        }
        let is_as_named = |entry: &Entry| {
            (entry.kind, entry.sealed, entry.durable_len) == (covered.kind, true, covered.len)
                && covered.facts.max_lsn <= parsed.horizon
        };
        if manifest.segments.get(&covered.id).is_some_and(|entry| !is_as_named(entry)) {
            return Err(fault(at, format!("it knows segment {} otherwise than the manifest", covered.id)));
        }
    }
    Ok(())
}

struct Loading<'a> {
    env: &'a Env,
    files: &'a Arc<SegmentFiles>,
    table: &'a Arc<SegmentTable>,
    manifest: &'a Manifest,
}

impl Loading<'_> {
    /// Opens the covered segments that are still there, each with the number of its entries, on all
    /// processors.
    fn place(&self, segments: &[Covered], entries: &[u64]) -> Result<Vec<Placed>> {
        let is_named = |covered: &Covered| self.manifest.segments.contains_key(&covered.id);
        let items: Vec<(&Covered, u64)> = segments.iter().zip(entries.iter().copied()).collect();
        each_on_all_processors(self.env.background, &items, |(covered, entries), (): &mut ()| {
            let segment = if is_named(covered) { Some(self.open(covered, *entries)?) } else { None };
            Ok(Placed { segment, entries: *entries })
        })
    }

    /// Opens a segment without a read of its records. Its length and its header are checked.
    fn open(&self, covered: &Covered, entries: u64) -> Result<Arc<Segment>> {
        let file = SegmentFile::open(self.files, covered.id, OpenMode::Read)?;
        let path = file.path().to_path_buf();
        let damaged = |offset: u64, fault: &str| Error::corruption(&path, offset, fault);
        let file_len = file.len()?;
        if file_len < covered.len {
            let fault = format!("the file ends here, and was {} bytes long", covered.len);
            return Err(damaged(file_len, &fault));
        }
        let mut start = [0; SEGMENT_HEADER_LEN];
        file.read_at(&mut start, 0)?;
        let header = SegmentHeader::decode(&start).map_err(|error| header_error(&path, error))?;
        let (kind, segment_id, store_id) = (covered.kind, covered.id.get(), self.manifest.store_id);
        if header != (SegmentHeader { kind, segment_id, base_lsn: covered.base_lsn, store_id }) {
            let fault = "this is the header of another segment than the one that the manifest names";
            return Err(damaged(0, fault));
        }
        let slot = self.table.reserve_slot(0);
        let slot = slot.ok_or_else(|| damaged(0, "there are more segments than slots"))?;
        let len = usize::try_from(covered.len).unwrap_or(usize::MAX);
        let (file, now) = (Arc::new(file.with_capacity(len)), self.env.clock.monotonic());
        let segment = Arc::new(Segment::unread(&header, slot, file, now, len, &covered.facts, entries));
        self.table.install(&segment);
        Ok(segment)
    }

    /// Fills the shards on all processors.
    fn fill(&self, index: &Index, parsed: &Parsed<'_>, placed: &[Placed], dir: &dyn Dir) -> Result<()> {
        let slots: Vec<Option<u16>> =
            placed.iter().map(|placed| placed.segment.as_ref().map(|segment| segment.slot)).collect();
        let place = |location: Location| {
            let slot = slots.get(usize::from(location.slot())).copied().flatten();
            slot.map(|slot| Location::new(slot, location.offset()))
        };
        let kept: u64 =
            placed.iter().filter(|placed| placed.segment.is_some()).map(|placed| placed.entries).sum();
        let all: u64 = placed.iter().map(|placed| placed.entries).sum();
        // The share of the pairs that are still there, if they are equally long.
        let estimate =
            |bytes: u64| u64::try_from(u128::from(bytes) * u128::from(kept) / u128::from(all.max(1)));
        let by_shard: Vec<_> = parsed.parts.chunk_by(|one, next| one.shard == next.shard).collect();
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Ok(())));
        let work = || {
            while let Some(parts) = by_shard.get(next.fetch_add(1, Ordering::Relaxed)) {
                let shard = parts.first().map_or(0, |part| part.shard);
                let keys = parts.iter().map(|part| part.entries.len()).sum();
                let bytes = estimate(parts.iter().map(|part| part.pair_bytes).sum()).unwrap_or(u64::MAX);
                if let Err(error) = index.prepare_shard(shard, keys, bytes, dir.path()) {
                    *failed.lock() = Err(error);
                    return;
                }
                parts.iter().for_each(|part| index.fill_shard(shard, part.entries, place));
            }
        };
        on_all_processors(self.env.background, by_shard.len(), work);
        failed.into_inner()
    }
}
