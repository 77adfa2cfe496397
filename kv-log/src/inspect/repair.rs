//! Salvages a damaged store into a new one.
//!
//! Repair reads every segment file past its damage, takes the newest intact change of each key, and
//! writes the values to compacted segments in another directory, with their LSNs. The source stays
//! as it is.
//!
//! `new_store.rs` tells what a crash leaves there.
//!
//! Compaction drops a tombstone once no segment that the manifest names holds an older put. So a
//! segment that the manifest does not name may bring a deleted key back. Repair takes such segments
//! only if the manifest is damaged, or if a segment that it names is missing or another one.

use kv_core::fs::{DirExt, FsExt};
use kv_core::parts::refuse_unless_empty;
use kv_core::{Background, Env, Error, Lsn, Result, SegmentId};
use kv_wal_format::{Decoder, Record, Step};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::damage::Damage;
use super::examine::examine;
use super::judge::judge;
use super::newest::{Newest, Place};
use super::pass::Pass;
use super::segment::Reading;
use super::survey::Survey;
use crate::directory::{self, REPAIR_MARK};
use crate::manifest::{Archive, Entry, Manifest};
use crate::new_store::NewStore;
use crate::progress::{OnProgress, Work, silently};

/// The report of a repair.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Repair {
    /// Keys of the new store.
    pub keys: u64,
    /// Bytes of the new store's segments.
    pub bytes: u64,
    /// The newest LSN that was found.
    pub last_lsn: Lsn,
    /// Every damaged part of the source.
    pub damages: Vec<Damage>,
    /// Segment files that took no part, and the reason.
    pub set_aside: Vec<(PathBuf, &'static str)>,
    /// Whether a key that was deleted before may be back, because segments took part that the
    /// manifest does not name.
    pub deleted_may_be_back: bool,
    /// The named lost changes that were the newest of their key, sorted by key and LSN.
    pub stale: Vec<StaleKey>,
    /// If changes are lost that nothing names: each of them has at most this LSN. A key of the new
    /// store with a lower LSN may be older than it was.
    pub unnamed_lsn_max: Option<Lsn>,
    /// The number of those keys of the new store.
    pub may_be_older: u64,
}

/// A key whose newest change is lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct StaleKey {
    /// The key.
    pub key: Vec<u8>,
    /// The LSN of the lost change.
    pub lost_lsn: u64,
    /// The LSN of the value that the key has in the new store. `None` if the key is absent there.
    pub now: Option<u64>,
    /// Whether the key is certain. Otherwise its own bytes may be damaged.
    pub is_certain: bool,
}

/// Salvages every intact change of the store in `src` into a new store in `dst`, which must be
/// missing or empty. Changes nothing in `src`, whose lock of a reader it holds meanwhile.
///
/// For each key the newest intact change wins, a tombstone too. A batch that has lost a change is
/// lost as a whole. Values keep their LSNs, and new changes of the new store get higher ones than
/// any change of `src` had.
///
/// # Errors
/// As for [`examine`]; [`Error::InvalidArgument`] if `dst` is not empty; an I/O error of `dst`.
/// After an error, `dst` holds no store.
///
/// ```
/// use kv_log::{Engine, Env, LogEngine, Options, inspect};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let (broken, repaired) = (dir.path().join("broken"), dir.path().join("repaired"));
/// let store = LogEngine::open(&broken, Options::default())?;
/// store.put(b"planet", b"earth")?;
/// store.close()?;
/// # #[allow(clippy::disallowed_methods)]
/// std::fs::remove_file(broken.join("MANIFEST")).unwrap();
/// assert!(LogEngine::open(&broken, Options::default()).is_err());
///
/// let report = inspect::repair(&Env::os(), &broken, &repaired, &inspect::silently)?;
/// assert_eq!((report.keys, report.damages.len()), (1, 1));
/// let store = LogEngine::open(&repaired, Options::default())?;
/// assert_eq!(store.get(b"planet")?.as_deref(), Some(b"earth".as_slice()));
/// # Ok::<(), kv_log::Error>(())
/// ```
pub fn repair(env: &Env, src: &Path, dst: &Path, on_progress: &OnProgress<'_>) -> Result<Repair> {
    let survey = Survey::open(env, src)?;
    refuse_unless_empty(dst, &env.fs.list_if_exists(dst)?.unwrap_or_default())?;
    let mut pass = Pass::new(&survey, Some(Newest::default()), on_progress);
    let (named, unnamed) = survey.sources();
    let mut readings = pass.read(&named, true)?;
    let mut findings = judge(&survey, &readings)?;
    let mut set_aside = Vec::new();
    let deleted_may_be_back = !findings.is_manifest_complete && !unnamed.is_empty();
    if deleted_may_be_back {
        readings.extend(pass.read(&unnamed, true)?);
        readings.sort_unstable_by_key(|reading| reading.source.id);
        findings = judge(&survey, &readings)?;
    } else {
        let path = |id| survey.dir.path_of(&directory::segment_file_name(id));
        let reason = |is_archived| {
            if is_archived {
                "only past states need it, and a repair saves the newest one"
            } else {
                "the manifest does not name it, so the store needs none of its changes"
            }
        };
        set_aside.extend(unnamed.iter().map(|source| (path(source.id), reason(source.is_archived))));
    }
    for reading in readings.iter().filter(|reading| reading.is_foreign(pass.store_id)) {
        let path = survey.dir.path_of(&directory::segment_file_name(reading.source.id));
        set_aside.push((path, "it is of another store"));
    }
    let mut newest = pass.newest.take().unwrap_or_default();
    let mut manifest = new_manifest(env, dst, &survey, &mut newest);
    let last_lsn = manifest.durable_lsn;
    let target = NewStore::begin(env, dst, REPAIR_MARK)?;
    let outputs = write(&target, &survey, &readings, &mut newest, manifest.store_id, on_progress);
    let outputs = target.undo_on_error(outputs)?;
    let bytes = outputs.values().map(|entry| entry.durable_len).sum();
    manifest.ids_end =
        outputs.keys().next_back().map_or(SegmentId::new(1), |id| SegmentId::new(id.get() + 1));
    manifest.segments = outputs;
    let finished = target.finish(&manifest);
    target.undo_on_error(finished)?;
    drop(target);
    let keys = newest.places().filter(Place::is_put).count() as u64;
    check(env, dst, keys)?;
    let damages = findings.damages;
    let (stale, unnamed_lsn_max) = (stale(&damages, &newest), unnamed_lsn_max(&damages));
    let is_older = |place: &Place| unnamed_lsn_max.is_some_and(|max| place.lsn < max.get());
    let may_be_older = newest.places().filter(|place| place.is_put() && is_older(place)).count() as u64;
    Ok(Repair {
        keys,
        bytes,
        last_lsn,
        damages,
        set_aside,
        deleted_may_be_back,
        stale,
        unnamed_lsn_max,
        may_be_older,
    })
}

/// The manifest of the new store, without segments. LSNs of lost changes are reserved.
fn new_manifest(env: &Env, dst: &Path, survey: &Survey, newest: &mut Newest) -> Manifest {
    let mut manifest = Manifest::empty(env.draw_store_id(dst));
    let last_lsn = newest.places().map(|place| place.lsn).max().unwrap_or(0);
    manifest.durable_lsn = Lsn::new(last_lsn);
    match &survey.manifest {
        Ok(known) => {
            manifest.durable_lsn = manifest.durable_lsn.max(known.durable_lsn);
            manifest.lsn_ceiling = known.lsn_ceiling.max(manifest.durable_lsn);
        }
        Err(_) => manifest.reserve_lsns(manifest.durable_lsn),
    }
    // Older states are gone.
    manifest.archive = Archive::beginning(manifest.durable_lsn, env.clock.unix_time_ms());
    manifest
}

/// Writes a segment for each segment of the source that holds newest puts.
fn write(
    target: &NewStore,
    survey: &Survey,
    readings: &[Reading],
    newest: &mut Newest,
    store_id: u32,
    on_progress: &OnProgress<'_>,
) -> Result<BTreeMap<SegmentId, Entry>> {
    let mut wanted: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for place in newest.places().filter(Place::is_put) {
        wanted.entry(place.segment).or_default().push(place.offset);
    }
    let jobs: Vec<(u64, &Reading, Vec<u32>)> = (1..)
        .zip(readings.iter().filter_map(|reading| Some((reading, wanted.remove(&reading.source.number)?))))
        .map(|(id, (reading, offsets))| (id, reading, offsets))
        .collect();
    let bytes_total = jobs.iter().map(|(_, reading, _)| reading.summary.file_bytes).sum();
    let work = Work::new(Background::Threads, target.dir.path(), bytes_total, on_progress);
    let written = work.run(&jobs, |(id, reading, offsets), (bytes, out): &mut (Vec<u8>, Vec<u8>)| {
        survey.read(reading.source.id, reading.source.len_max(), bytes)?;
        let mut offsets = offsets.clone();
        offsets.sort_unstable();
        let records = records(survey, reading, bytes, &offsets)?;
        let id = SegmentId::new(*id);
        let entry = target.write_segment(id, store_id, &records, out)?;
        work.advance(reading.summary.file_bytes);
        Ok((id, entry))
    })?;
    Ok(written.into_iter().collect())
}

/// The records at `offsets`, checked once more.
fn records<'a>(
    survey: &Survey,
    reading: &Reading,
    bytes: &'a [u8],
    offsets: &[u32],
) -> Result<Vec<Record<'a>>> {
    let decoder = Decoder::new(reading.origin);
    let record = |offset: &u32| {
        let rest = bytes.get(*offset as usize..).unwrap_or_default();
        if let Step::Record { record, .. } = decoder.step(rest) {
            return Ok(record);
        }
        let path = survey.dir.path_of(&directory::segment_file_name(reading.source.id));
        let fault = "a record that was intact at first cannot be read again: the disk may be failing";
        Err(Error::corruption(&path, u64::from(*offset), fault))
    };
    offsets.iter().map(record).collect()
}

/// Checks the finished store.
fn check(env: &Env, dst: &Path, keys: u64) -> Result<()> {
    let found = examine(env, dst, false, &silently)?;
    if let Some(Damage { path, offset, fault, .. }) = found.damages.into_iter().next() {
        return Err(Error::corruption(&path, offset, fault));
    }
    let puts: u64 = found.segments.iter().map(|segment| segment.puts).sum();
    if puts != keys {
        let fault = format!("the new store holds {puts} keys, and {keys} were written");
        return Err(Error::corruption(&dst.join(directory::MANIFEST), 0, fault));
    }
    Ok(())
}

/// The named lost changes that were the newest of their key.
fn stale(damages: &[Damage], newest: &Newest) -> Vec<StaleKey> {
    let lost = damages.iter().flat_map(|damage| &damage.lost.named);
    let stale = lost.filter_map(|lost| {
        let key = lost.key.clone()?;
        let known = newest.get(&key);
        let is_newest = known.is_none_or(|place| place.lsn < lost.lsn);
        let now = known.filter(Place::is_put).map(|place| place.lsn);
        is_newest.then_some(StaleKey { key, lost_lsn: lost.lsn, now, is_certain: lost.is_intact })
    });
    let mut stale: Vec<StaleKey> = stale.collect();
    stale.sort_unstable();
    stale
}

/// The highest LSN of lost changes that nothing names, if there are any.
fn unnamed_lsn_max(damages: &[Damage]) -> Option<Lsn> {
    let lost = damages.iter().map(|damage| &damage.lost);
    let unnamed = lost.filter(|lost| lost.others || lost.named.iter().any(|change| change.key.is_none()));
    unnamed.map(|lost| Lsn::new(lost.lsn_max.unwrap_or(u64::MAX))).max()
}
