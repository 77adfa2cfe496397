//! Writes a past state to a new store.

use kv_core::{Env, Lsn, Moment, Result, SegmentId};
use kv_wal_format::{Record, encoded_len_max};
use std::path::Path;

use super::state::State;
use crate::directory::RESTORE_MARK;
use crate::manifest::{Archive, Manifest};
use crate::new_store::NewStore;
use crate::progress::Work;

/// Writes a store with the pairs of `state` to the directory `into`, in segments of about
/// `segment_bytes` bytes. Its window begins at `moment`.
pub(super) fn write_store(
    env: &Env,
    into: &Path,
    state: &State,
    moment: Moment,
    segment_bytes: usize,
    work: &Work<'_>,
) -> Result<()> {
    let target = NewStore::begin(env, into, RESTORE_MARK)?;
    let mut manifest = Manifest::empty(env.draw_store_id(into));
    manifest.durable_lsn = moment.lsn;
    manifest.reserve_lsns(moment.lsn);
    manifest.archive = Archive::beginning(moment.lsn, moment.unix_ms);
    let written = write_segments(&target, &mut manifest, state, segment_bytes, work);
    target.undo_on_error(written.and_then(|()| target.finish(&manifest)))
}

fn write_segments(
    target: &NewStore,
    manifest: &mut Manifest,
    state: &State,
    segment_bytes: usize,
    work: &Work<'_>,
) -> Result<()> {
    let puts = state.puts();
    debug_assert!(puts.iter().all(|put| Lsn::new(put.lsn) <= manifest.durable_lsn));
    let len_of = |put: &Record<'_>| encoded_len_max(put.key.len(), put.value.len());
    work.expect(puts.iter().map(len_of).sum::<usize>() as u64);
    let (mut rest, mut parts) = (puts.as_slice(), Vec::new());
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|put| {
            bytes += len_of(put);
            bytes <= segment_bytes
        });
        let (part, behind) = rest.split_at(fitting.count().max(1));
        rest = behind;
        parts.push((manifest.ids_end, part));
        manifest.ids_end = SegmentId::new(manifest.ids_end.get() + 1);
    }
    let store_id = manifest.store_id;
    let written = work.run(&parts, |(id, part), out: &mut Vec<u8>| {
        let entry = target.write_segment(*id, store_id, part, out)?;
        work.advance(part.iter().map(len_of).sum::<usize>() as u64);
        Ok((*id, entry))
    })?;
    manifest.segments.extend(written);
    Ok(())
}
