//! Opening a store: check, lock, recover, and only then change anything.
//!
//! On disk after a power cut between any two steps of a creation: nothing, an empty directory, a
//! temporary manifest, or a manifest that names no segment; each can be opened, and is then created
//! to its end. When an existing store is opened, in this order: torn bytes are cut by a seal in
//! their place; what is not known to be durable is written again and synced; a manifest with
//! reserved LSNs replaces the old one; orphans go; a head is made if there is none. A crash between
//! any two leaves a store that recovers to the same state. So it does where the manifest that was
//! read is not durable itself, and a power cut brings back the one before.

use kv_core::{DirExt, Env, Error, FsExt, Health, Leadership, LockKind, Lsn, Reserve, Result, StoreLock};
use kv_wal_format::{Encoder, Record};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;

use crate::background::Signals;
use crate::catalog::{Catalog, Parts};
use crate::compaction::Extent;
use crate::counters::Counters;
use crate::directory::{self, Content};
use crate::head::{LogEnd, SEAL_LEN};
use crate::manifest::Manifest;
use crate::options::Options;
use crate::progress::Progress;
use crate::recovery;
use crate::reserve::Need;
use crate::segment::{Segment, SegmentFiles, Via};
use crate::spares::{Spares, create_head, fitting_capacity};
use crate::store::Store;

/// Opens the store in `dir`.
pub(crate) fn open(dir: &Path, env: &Env, options: Options) -> Result<Store> {
    options.validate()?;
    let start = env.clock.monotonic();
    // Looked at before it is locked: a lock may leave a file, and a foreign directory is none of ours.
    check_content(dir, &env.fs.list_if_exists(dir)?.unwrap_or_default(), &options)?;
    if !options.read_only {
        env.fs.create_dir_durably(dir)?;
    }
    let dir = env.fs.open_dir(dir).map_err(|error| Error::io("open", dir, error))?;
    let kind = if options.read_only { LockKind::Shared } else { LockKind::Exclusive };
    let lock = Arc::new(StoreLock::new(dir.path(), dir.lock_or_refuse(kind)?));
    let manifest = if check_content(dir.path(), &dir.names()?, &options)? == Content::Store {
        Manifest::load(&*dir)?
    } else {
        let manifest = Manifest::empty(env.draw_store_id(dir.path()));
        manifest.store(&*dir)?;
        manifest
    };
    let files = SegmentFiles::new(Arc::clone(&dir), options.open_files_max);
    let mut recovered = recovery::recover(env, &files, &options, &manifest)?;
    if !options.read_only {
        if let Some(torn) = &recovered.torn {
            seal_torn(torn)?;
        }
        make_durable(recovered.segments.values())?;
    }

    // Every LSN up to the ceiling may have been given out before a crash.
    let lsn_floor = manifest.lsn_ceiling.max(recovered.report.last_lsn);
    // A reader may not sync, so it calls durable only the changes that were known to be.
    let durable_lsn = if options.read_only { manifest.durable_lsn } else { recovered.report.last_lsn };
    let progress = Progress::new(durable_lsn, lsn_floor, env.clock.monotonic());
    let (progress, counters) = (Arc::new(progress), Arc::new(Counters::default()));
    let parts = Parts {
        dir: Arc::clone(&dir),
        reserve: if options.read_only {
            Reserve::none(Arc::clone(&dir))
        } else {
            Reserve::open(Arc::clone(&dir))
        },
        lock: Arc::clone(&lock),
        env: env.clone(),
        files,
        via: options.via(),
        segment_bytes: options.segment_bytes,
        closes_victims: options.memory_budget.is_none(),
        table: Arc::clone(&recovered.table),
        progress: Arc::clone(&progress),
        counters: Arc::clone(&counters),
    };
    let catalog = Catalog::new(parts, manifest, std::mem::take(&mut recovered.segments));
    let (head, capacity) = if options.read_only {
        catalog.check_orphans(recovered.report.last_lsn)?;
        (catalog.placeholder()?, 0)
    } else {
        catalog.begin(recovered.report.last_lsn, lsn_floor)?;
        begin_log(recovered.head, &catalog, &options, lsn_floor)?
    };
    recovered.report.duration = env.clock.monotonic().saturating_sub(start);
    let store = Store {
        dir,
        env: env.clone(),
        key_len_max: recovered.longest_key.max(options.limits.key_len_max),
        acknowledge: options.persistence.acknowledge(),
        end: LogEnd::new(head, capacity, recovered.report.last_lsn, lsn_floor),
        spares: Spares::default(),
        index: recovered.index,
        segments: recovered.table,
        catalog,
        progress,
        leadership: Leadership::default(),
        health: if options.read_only { Health::read_only() } else { Health::default() },
        counters,
        signals: Signals::new(),
        compacting: Mutex::new(()),
        recovery: recovered.report,
        lsn_floor,
        lock,
        options,
    };
    // The index grew while segments were replayed.
    store.evict_in_place();
    if store.options.read_only {
        return Ok(store);
    }
    // One plan now, however soon the process ends: a store that is opened often and killed each
    // time would never be compacted otherwise. The rest is left to the background.
    store.compact_in_passing(Extent::OnePlan)?;
    store.compaction_due();
    Ok(store)
}

/// The segment in which the log goes on, and how many bytes of it may be used: the one that was
/// recovered, or a new one.
fn begin_log(
    recovered: Option<Arc<Segment>>,
    catalog: &Catalog,
    options: &Options,
    lsn_floor: Lsn,
) -> Result<(Arc<Segment>, usize)> {
    if let Some(active) = recovered {
        // Its file was cut when the store was closed, or made when segments were smaller.
        let (least, wanted) = (active.end() + SEAL_LEN, fitting_capacity(catalog, options));
        let capacity = active.file.reserve(wanted, least)?;
        return Ok((active, capacity));
    }
    let wanted = fitting_capacity(catalog, options);
    let active = create_head(catalog, options, 0, wanted, Need::LastRelief, lsn_floor)?;
    let capacity = active.capacity;
    Ok((active, capacity))
}

/// What a directory with these names is, if it can be opened.
fn check_content(dir: &Path, names: &[String], options: &Options) -> Result<Content> {
    let not_a_store = |detail: String| Err(Error::NotAStore { path: dir.to_path_buf(), detail });
    match directory::classify(names) {
        Content::Empty if options.read_only => not_a_store(
            "there is no kv-log store here, and none is created to be read only; correct the path".to_owned(),
        ),
        Content::Empty if !options.create_if_missing => not_a_store(
            "there is no kv-log store here; set create_if_missing, or correct the path".to_owned(),
        ),
        Content::Foreign(name) => not_a_store(format!(
            "it holds {name}, which is not a file of a kv-log store; choose another directory"
        )),
        Content::ManifestMissing => Err(Error::corruption(
            &dir.join(directory::MANIFEST),
            0,
            "the manifest is missing, and segments are there; restore the newest one, or the whole directory, from a \
             backup",
        )),
        content => Ok(content),
    }
}

/// Makes durable what was recovered: what a dead process wrote may be in the system's cache only. A sync of it
/// proves nothing if that process met a failed one, after which the cache shows bytes that no later sync saves; so
/// what was not known to be synced is written once more.
fn make_durable<'a>(segments: impl Iterator<Item = &'a Arc<Segment>>) -> Result<()> {
    for segment in segments.filter(|segment| !segment.is_durable()) {
        let (synced, end) = (segment.synced(), segment.end());
        if synced < end {
            segment.file.write(segment.contents()?.bytes(), synced..end, Via::Cache)?;
            segment.file.sync()?;
            segment.set_synced(end);
        }
        if segment.is_sealed() {
            segment.mark_durable();
        }
    }
    Ok(())
}

/// Writes a seal over the torn bytes. Until it is synced, they are judged as before; only then may
/// those behind it go, which take part in that judgement.
fn seal_torn(torn: &Segment) -> Result<()> {
    let (start, body) = (torn.end(), torn.seal().encode_body());
    let mut bytes = Vec::with_capacity(SEAL_LEN);
    Encoder::new(torn.id.get())
        .append(&Record::seal(torn.max_lsn(), &body), &mut bytes)
        .expect("a seal is a valid record");
    let image = torn.share_image().expect("only a durable segment is without");
    // SAFETY: nobody reads beyond the end of a segment, and recovery is over.
    unsafe { image.fill(start, bytes.len(), |out| out.copy_from_slice(&bytes)) };
    let end = start + bytes.len();
    torn.set_end(end);
    torn.file.write(torn.contents()?.bytes(), start..end, Via::Cache)?;
    torn.file.sync()?;
    torn.file.trim(end)?;
    torn.set_written(torn.end());
    torn.mark_sealed();
    Ok(())
}
