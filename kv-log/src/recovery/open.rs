//! Opening a store. Until recovery has judged an existing store, only adoption changes its files.
//!
//! A power cut between any two steps of a creation leaves nothing, an empty directory, a temporary
//! manifest, or a manifest that names no segment. Opening each of them completes the creation.
//!
//! Opening an existing store changes the disk in this order:
//!
//! 0. Adoption writes the records that a dead process left in shared memory (`tail/`).
//! 1. If a segment is torn, the objects in shared memory go. Then a seal cuts off the torn bytes.
//! 2. Bytes that are not known to be durable are written again and synced. Then the space behind a
//!    seal is given back, and the file is synced again. The objects in shared memory go, if any are
//!    left.
//! 3. A manifest with reserved LSNs replaces the old one.
//! 4. Orphans are removed.
//! 5. The file of the recovered active segment is extended. If there is none, one is created.
//! 6. If the recovered changes have no mark, one is written and synced. At most one compaction plan
//!    follows (`Store::begin`).
//!
//! A crash between any two steps leaves a store that recovers to the same state. The same holds if
//! the manifest that was read is not durable, and a power cut brings back the one before.

use kv_core::fs::{DirExt, FsExt, LockKind};
use kv_core::parts::StoreLock;
use kv_core::{Env, Error, Lsn, Op, Result};
use kv_wal_format::{Encoder, Record};
use std::path::Path;
use std::sync::Arc;

use super::orphans;
use super::recovered::{load_checkpoint, recover};
use crate::context::Context;
use crate::directory::{self, BACKUP_MARK, Content};
use crate::log::{LogEnd, MARK_LEN_MAX, SEAL_LEN_MAX, create_active, fitting_capacity};
use crate::manifest::{Archive, Catalog, Manifest, Need, Room, SegmentMaker};
use crate::options::Options;
use crate::processors::both;
use crate::reclaim;
use crate::segments::{Segment, SegmentFiles, SegmentTable, Via};
use crate::store::{Foundation, Recovery, Store};
use crate::tail::{Tail, adopt, draw_nonce, remove_outdated};
use kv_core::parts::Progress;

/// Opens the store in `dir`.
pub(crate) fn open(dir: &Path, env: &Env, options: Options) -> Result<Store> {
    options.validate()?;
    reclaim::begin();
    let start = env.clock.monotonic();
    // Checked before the lock, which may leave a file: a foreign directory stays as it is.
    check_content(dir, &env.fs.list_if_exists(dir)?.unwrap_or_default(), &options)?;
    if !options.read_only {
        env.fs.create_dir_durably(dir)?;
    }
    let dir = env.fs.open_dir(dir).map_err(|error| Error::io(Op::Open, dir, error))?;
    let kind = if options.read_only { LockKind::Shared } else { LockKind::Exclusive };
    let lock = Arc::new(StoreLock::new(dir.path(), dir.lock_or_refuse(kind)?));
    let mut manifest = if check_content(dir.path(), &dir.names()?, &options)? == Content::Store {
        Manifest::load(&*dir)?
    } else {
        let mut manifest = Manifest::empty(env.draw_store_id(dir.path()));
        manifest.archive = Archive::beginning(Lsn::ZERO, env.clock.unix_time_ms());
        manifest.store(&*dir)?;
        manifest
    };
    let files = SegmentFiles::new(Arc::clone(&dir), options.open_files_max);
    let room = Arc::new(Room::new(&dir, options.read_only));
    // Neither needs the other, and both wait for the disk.
    let load = || load_checkpoint(env, &*dir, &files, &options, &manifest);
    let adopt_tail = || adopt(env, &*dir, &room, &manifest, &options);
    let (loaded, adopted) = both(env.background, load, adopt_tail);
    let adopted = adopted?;
    let mut recovered = recover(env, &files, &options, &manifest, loaded?, &adopted.unwritten)?;
    recovered.report.adopted_bytes = adopted.bytes;
    let unnamed = orphans::examine_all(&*dir, &manifest, recovered.report.last_lsn)?;
    if !options.read_only {
        if let Some(torn) = &recovered.torn {
            // First: once it has a seal, the next opening would go on to the segments behind it,
            // whose changes follow those that are torn.
            adopted.give_up()?;
            seal_torn(torn)?;
        }
        make_durable(recovered.segments.values())?;
        adopted.give_up()?;
        remove_outdated(env);
        manifest.nonce = draw_nonce(env, dir.path(), manifest.nonce);
    }
    let tail = Tail::open(env, &*dir, &options, manifest.store_id, manifest.nonce)?;
    recovered.report.warnings = adopted.warnings;

    // Changes before a crash may have had any LSN up to the ceiling.
    let lsn_floor = manifest.lsn_ceiling.max(recovered.report.last_lsn);
    // A reader may not sync, so only the changes that the manifest knows to be durable count.
    let durable_lsn = if options.read_only { manifest.durable_lsn } else { recovered.report.last_lsn };
    let progress = Arc::new(Progress::new(durable_lsn, env.clock.monotonic()));
    let context = Arc::new(Context::new(dir, env.clone(), options, tail, recovered.longest_key));
    let maker =
        SegmentMaker::new(Arc::clone(&context), files, Arc::clone(&recovered.table), Arc::clone(&room));
    let catalog = Catalog::new(
        Arc::clone(&context),
        Arc::clone(&lock),
        Arc::clone(&progress),
        maker,
        manifest,
        recovered.segments,
        adopted.unwritten,
    );
    catalog.loaded_checkpoint(recovered.report.checkpoint_bytes);
    let (active, capacity) = if context.options.read_only {
        (catalog.placeholder()?, 0)
    } else {
        catalog.begin(unnamed, lsn_floor)?;
        let is_dated = recovered.dated_lsn >= recovered.report.last_lsn;
        let ends = if is_dated { SEAL_LEN_MAX } else { MARK_LEN_MAX + SEAL_LEN_MAX };
        let (active, capacity) = begin_log(recovered.active, &catalog, &context.options, ends, lsn_floor)?;
        move_to_tail(&active, capacity, &context.tail, &recovered.table)?;
        (active, capacity)
    };
    recovered.report.duration = env.clock.monotonic().saturating_sub(start);
    let end = LogEnd::new(active, capacity, recovered.report.last_lsn, lsn_floor, recovered.dated_lsn);
    let recovery = Recovery { report: recovered.report, lsn_floor };
    let foundation = Foundation {
        context,
        lock,
        index: recovered.index,
        segments: recovered.table,
        catalog,
        room,
        progress,
    };
    let store = Store::new(foundation, end, recovery);
    store.begin()?;
    Ok(store)
}

/// The segment in which the log goes on, and the bytes of it that may be used: the recovered active
/// segment with room for `ends` more bytes, or a new one.
fn begin_log(
    recovered: Option<Arc<Segment>>,
    catalog: &Catalog,
    options: &Options,
    ends: usize,
    lsn_floor: Lsn,
) -> Result<(Arc<Segment>, usize)> {
    let wanted = fitting_capacity(catalog, options);
    if let Some(active) = recovered {
        // Its file was cut at close, or made when segments were smaller.
        let capacity = active.file.reserve(wanted, active.end() + ends)?;
        return Ok((active, capacity));
    }
    let active = create_active(catalog, options, 0, wanted, Need::LastRelief, lsn_floor)?;
    let capacity = active.capacity;
    Ok((active, capacity))
}

/// Moves the segment in which the log goes on to shared memory. The log uses `capacity` bytes.
fn move_to_tail(active: &Segment, capacity: usize, tail: &Tail, table: &Arc<SegmentTable>) -> Result<()> {
    if let Some(image) = tail.image(active.id, capacity)? {
        // SAFETY: the store is not open yet, so no other thread knows the segment.
        unsafe { table.exchange_sparse(active, image) };
    }
    Ok(())
}

/// Judges a directory with these names.
///
/// # Errors
/// No store can be opened or created here.
fn check_content(dir: &Path, names: &[String], options: &Options) -> Result<Content> {
    let not_a_store = |detail: String| Err(Error::NotAStore { path: dir.to_path_buf(), detail });
    if !options.read_only && names.iter().any(|name| name == BACKUP_MARK) {
        return not_a_store(directory::describe_foreign(BACKUP_MARK));
    }
    match directory::classify(names) {
        Content::Empty if options.read_only => not_a_store(
            "there is no kv-log store here, and none is created to be read only; correct the path".to_owned(),
        ),
        Content::Empty if !options.create_if_missing => not_a_store(
            "there is no kv-log store here, and none is created without create_if_missing; correct the path"
                .to_owned(),
        ),
        Content::Foreign(name) => not_a_store(directory::describe_foreign(&name)),
        Content::ManifestMissing => {
            let fault = "the manifest is missing, and segments are there";
            Err(Error::corruption(&dir.join(directory::MANIFEST), 0, fault))
        }
        content => Ok(content),
    }
}

/// Makes the recovered bytes durable. The bytes that a dead process wrote may be in the page cache
/// only. If a sync of that process failed, the cache shows bytes that no later sync saves. So bytes
/// that are not known to be synced are written again before the sync.
///
/// The dead process may not have trimmed the file of a sealed segment. The bytes behind a seal take
/// part in the verdict on a torn segment, so they are trimmed after the seal is synced.
fn make_durable<'a>(segments: impl Iterator<Item = &'a Arc<Segment>>) -> Result<()> {
    for segment in segments.filter(|segment| !segment.is_durable()) {
        let (synced, end) = (segment.synced(), segment.end());
        if synced < end {
            segment.file.write(segment.contents()?.bytes(), synced..end, Via::Cache)?;
            segment.file.sync()?;
            segment.set_synced(end);
        }
        if segment.is_sealed() {
            if segment.file.trim(end)? {
                segment.file.sync()?;
            }
            segment.mark_durable();
        }
    }
    Ok(())
}

/// Writes a seal over the torn bytes. Until the seal is synced, a new opening judges the torn bytes
/// as this one did.
fn seal_torn(torn: &Segment) -> Result<()> {
    let (start, body) = (torn.end(), torn.seal().encode_body());
    let mut bytes = Vec::with_capacity(SEAL_LEN_MAX);
    Encoder::new(torn.origin())
        .append(&Record::seal(torn.max_lsn(), &body), &mut bytes)
        .expect("a seal is a valid record");
    let image = torn.share_image().expect("only a durable segment has no image");
    // SAFETY: no reader looks beyond the end of a segment, and replay is over.
    unsafe { image.fill(start, bytes.len(), |out| out.copy_from_slice(&bytes)) };
    let end = start + bytes.len();
    torn.set_end(end);
    torn.file.write(torn.contents()?.bytes(), start..end, Via::Cache)?;
    torn.file.sync()?;
    torn.set_written(torn.end());
    torn.mark_sealed();
    Ok(())
}
