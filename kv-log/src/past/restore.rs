//! Writes a past state to a new store.

use kv_core::{Env, Lsn, Moment, Result, SegmentId};
use kv_wal_format::{Record, encoded_len_max};
use std::path::Path;

use super::files::State;
use crate::directory::RESTORE_MARK;
use crate::manifest::{Archive, Manifest};
use crate::new_store::NewStore;

/// Writes a store with the pairs of `state` to the directory `into`, in segments of about
/// `segment_bytes` bytes. Its window begins at `moment`.
pub(super) fn write_store(
    env: &Env,
    into: &Path,
    state: &State,
    moment: Moment,
    segment_bytes: usize,
) -> Result<()> {
    let target = NewStore::begin(env, into, RESTORE_MARK)?;
    let mut manifest = Manifest::empty(env.draw_store_id(into));
    manifest.durable_lsn = moment.lsn;
    manifest.reserve_lsns(moment.lsn);
    manifest.archive = Archive::beginning(moment.lsn, moment.unix_ms);
    let written = write_segments(&target, &mut manifest, state, segment_bytes);
    target.undo_on_error(written.and_then(|()| target.finish(&manifest)))
}

fn write_segments(
    target: &NewStore,
    manifest: &mut Manifest,
    state: &State,
    segment_bytes: usize,
) -> Result<()> {
    let mut records: Vec<Record<'_>> = state
        .iter()
        .filter_map(|(key, (lsn, value))| Some(Record::put(*lsn, key, value.as_deref()?)))
        .collect();
    // As compaction does: what was written together lies together.
    records.sort_by_key(|record| record.lsn);
    let (mut rest, mut out) = (records.as_slice(), Vec::new());
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|record| {
            bytes += encoded_len_max(record.key.len(), record.value.len());
            bytes <= segment_bytes
        });
        let (part, behind) = rest.split_at(fitting.count().max(1));
        rest = behind;
        let id = manifest.ids_end;
        manifest.ids_end = SegmentId::new(id.get() + 1);
        let entry = target.write_segment(id, manifest.store_id, part, &mut out)?;
        manifest.segments.insert(id, entry);
    }
    debug_assert!(records.iter().all(|record| Lsn::new(record.lsn) <= manifest.durable_lsn));
    Ok(())
}
