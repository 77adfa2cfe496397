//! The recovered state: recovery loads the checkpoint, replays the segments that it does not cover,
//! and has [`verdict`](super::verdict) judge each of them.

use kv_core::fs::Dir;
use kv_core::{Background, Env, Error, Lsn, RecoveryReport, Result, SegmentId};
use kv_wal_format::{Record, SegmentKind};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::replay::{End, Replay, Replayed, named};
use super::verdict::{Before, Verdict, decide, unsealed_ending};
use crate::checkpoint::{Loaded, load};
use crate::index::Index;
use crate::log::SEAL_LEN_MAX;
use crate::manifest::Manifest;
use crate::options::Options;
use crate::reclaim::pin;
use crate::segments::{Segment, SegmentFiles, SegmentTable};
use crate::tail::Unwritten;

/// A store as its files describe it. Nothing on disk has changed.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) table: Arc<SegmentTable>,
    /// Whole segments, and the active or torn one, if there is one.
    pub(crate) segments: BTreeMap<SegmentId, Arc<Segment>>,
    /// The segment in which the log goes on.
    pub(crate) active: Option<Arc<Segment>>,
    /// The newest segment, if a crash has torn it. Its end is the place to cut.
    pub(crate) torn: Option<Arc<Segment>>,
    /// Length of the longest key, bytes.
    pub(crate) longest_key: usize,
    /// Each change up to this one has a mark behind it, or had one: compaction may have removed the
    /// mark with its segment. If all changes have one, it is the LSN of the newest change.
    pub(crate) dated_lsn: Lsn,
    pub(crate) report: RecoveryReport,
}

/// The part of a recovery that needs no record of the log.
#[derive(Debug)]
pub(crate) struct Start {
    loaded: Loaded,
    table: Arc<SegmentTable>,
    checkpoint_fault: Option<String>,
}

/// Loads the checkpoint that `manifest` names, if it can be used.
pub(crate) fn load_checkpoint(
    env: &Env,
    dir: &dyn Dir,
    files: &Arc<SegmentFiles>,
    options: &Options,
    manifest: &Manifest,
) -> Result<Start> {
    let seed = match env.background {
        // Against floods of colliding keys.
        Background::Threads => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
        Background::Inline => 0,
    };
    let table = Arc::new(SegmentTable::new(Options::RECYCLED_IMAGES_MAX));
    let loaded = match manifest.checkpoint {
        Some(name) => load(env, dir, files, options, manifest, name, &table)?.map(Some),
        None => Ok(None),
    };
    let (loaded, checkpoint_fault) = match loaded {
        Ok(loaded) => (loaded, None),
        Err(fault) => (None, Some(fault.reason)),
    };
    let loaded = loaded.unwrap_or_else(|| Loaded::nothing(Index::new(options.index_shards, seed)));
    Ok(Start { loaded, table, checkpoint_fault })
}

/// Replays the segments that the checkpoint does not cover, with the bytes that their files lack.
/// Changes nothing on disk.
pub(crate) fn recover(
    env: &Env,
    files: &Arc<SegmentFiles>,
    options: &Options,
    manifest: &Manifest,
    start: Start,
    unwritten: &Unwritten,
) -> Result<Recovered> {
    let Start { loaded, table, checkpoint_fault } = start;
    let mut report = RecoveryReport::default();
    report.checkpoint_fault = checkpoint_fault;
    let checkpoint_keys = loaded.index.len() as u64;
    let replay = Replay::new(env, files, options, manifest, &loaded, &table, unwritten);
    let (replayed, tombstones) = replay.all(manifest)?;
    let longest_key = replay.longest_key();

    (report.checkpoint_bytes, report.checkpoint_keys) = (loaded.bytes, checkpoint_keys);
    report.checkpoint_lsn = Lsn::new(loaded.horizon);
    let mut last_lsn = manifest.durable_lsn.get();
    // The durable LSN dates nothing: a power cut may have kept changes and taken their mark.
    let (mut dated_lsn, mut changed_lsn) = (0, 0);
    for segment in &replayed {
        report.files += 1;
        report.bytes += segment.stop.offset as u64;
        report.records += segment.segment.tally.records();
        last_lsn = last_lsn.max(segment.last_lsn);
        dated_lsn = dated_lsn.max(segment.dated_lsn);
        if segment.entry.kind == SegmentKind::Log {
            changed_lsn = changed_lsn.max(segment.segment.max_lsn());
        }
    }
    report.last_lsn = Lsn::new(last_lsn);
    // The changes of other segments had a mark before a checkpoint or a compaction took them.
    let dated_lsn = Lsn::new(if dated_lsn < changed_lsn { dated_lsn } else { last_lsn });

    let (index, mut segments) = (loaded.index, loaded.segments);
    let (mut active, mut torn): (Option<Arc<Segment>>, Option<Arc<Segment>>) = (None, None);
    // The highest LSN that earlier segments and the manifest prove. A change of the next segment up
    // to that LSN lies within its known length.
    let mut lsn_before = manifest.durable_lsn.get().max(loaded.max_lsn);
    for one in &replayed {
        let unfinished = active.as_ref().or(torn.as_ref());
        let unfinished = unfinished.filter(|_| one.entry.kind == SegmentKind::Log);
        let before = if unfinished.is_some() { Before::Unfinished } else { Before::AllSealed };
        let (ending, bytes) = match &one.end {
            End::Sealed(ending) => (*ending, &[][..]),
            End::Unfinished(file) => (unsealed_ending(&one.scanned(file.bytes()), lsn_before), file.bytes()),
        };
        match decide(named(one.entry), ending, before) {
            Verdict::Whole => {}
            Verdict::Active => {
                debug_assert!(
                    one.stop.offset + SEAL_LEN_MAX <= one.segment.capacity,
                    "`load` keeps room for a seal"
                );
                active = Some(Arc::clone(&one.segment));
            }
            Verdict::Torn => {
                report.torn_bytes = (bytes.len() - one.stop.offset) as u64;
                torn = Some(Arc::clone(&one.segment));
            }
            Verdict::Spare => {
                // Left out, and so dropped.
                table.retire(&one.segment);
                continue;
            }
            Verdict::LaterChanges => {
                return Err(later_changes(one, unfinished.unwrap_or(&one.segment)));
            }
            Verdict::Damaged(damage) => {
                return Err(damage.error(one.segment.file.path(), &one.scanned(bytes), lsn_before));
            }
        }
        lsn_before = lsn_before.max(one.last_lsn);
        segments.insert(one.segment.id, Arc::clone(&one.segment));
    }

    for (hash, location) in tombstones.into_iter().flatten() {
        if index.has_suspect(hash) {
            let note = |record: &Record<'_>| index.note_deleted(hash, record.key, record.lsn);
            table.with_record(location, &pin(), note)?;
        }
        index.lock(index.shard_of(hash)).remove(hash, location);
    }
    Ok(Recovered { index, table, segments, active, torn, longest_key, dated_lsn, report })
}

/// The log ends without a seal in `unfinished`, and `later` is not blank. The writer seals and
/// syncs a segment before it writes to the next one, so `unfinished` has lost its seal.
fn later_changes(later: &Replayed, unfinished: &Segment) -> Error {
    let fault = format!("the seal is missing or damaged: segment {} holds later changes", later.segment.id);
    Error::corruption(unfinished.file.path(), unfinished.end() as u64, fault)
}
