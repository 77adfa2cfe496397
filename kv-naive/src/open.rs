//! Opening: recovery of the snapshot, or creation of a store.

use kv_core::fs::{Dir, DirExt, FsExt, LockKind};
use kv_core::parts::{Health, Reserve, StoreLock};
use kv_core::{Env, Error, Lsn, Op, OpenOptions, RecoveryReport, Result};
use std::path::Path;
use std::sync::Arc;

use crate::directory::{self, BACKUP_MARK, Content};
use crate::files::{Files, Place};
use crate::identity::{self, IDENTITY};
use crate::past::{self, Kept, Leftovers, List};
use crate::snapshot::{self, Loaded, SNAPSHOT, parse_kept_name};
use crate::snapshotter::{Needs, Snapshotter};
use crate::store::Store;
use crate::table::{Entry, Table};

/// Opens the store in `dir`, and creates it if there is none and the options allow it.
pub(crate) fn open(dir: &Path, env: &Env, options: &OpenOptions) -> Result<Store> {
    options.limits.validate()?;
    let start = env.clock.monotonic();
    // Before the lock, which may leave a file: never in a foreign directory, nor where no store
    // shall be created. Behind the lock the directory is judged again.
    refuse_other_directories(dir, &env.fs.list_if_exists(dir)?.unwrap_or_default(), options)?;
    if !options.read_only {
        env.fs.create_dir_durably(dir)?;
    }
    let dir = env.fs.open_dir(dir).map_err(|error| Error::io(Op::Open, dir, error))?;
    let kind = if options.read_only { LockKind::Shared } else { LockKind::Exclusive };
    let lock = StoreLock::new(dir.path(), dir.lock_or_refuse(kind)?);
    let reserve = if options.read_only { Reserve::none } else { Reserve::open }(Arc::clone(&dir));

    let mut table = Table::new(env.background);
    let found = recover(&*dir, options, &mut table)?;
    if found.is_none() && options.read_only {
        refuse_other_directories(dir.path(), &[], options)?;
    }
    let (loaded, ceiling) = found.unwrap_or_else(|| {
        let store_id = env.draw_store_id(dir.path());
        (Loaded { store_id, ..Loaded::default() }, Lsn::ZERO)
    });
    let (kept, leftovers, points_bytes) = find_past(&*dir, loaded, env.clock.unix_time_ms())?;
    if !options.read_only {
        remove_rubbish(&*dir, loaded.lsn)?;
    }
    let place = Place {
        dir,
        lock,
        reserve,
        store_id: loaded.store_id,
        clock: Arc::clone(&env.clock),
        retention: Arc::clone(&options.retention),
    };
    let files = Files::new(place, kept, leftovers, points_bytes);
    if found.is_none() {
        files.create_snapshot(&table)?;
    }

    // Every LSN up to the ceiling may have been given out before a crash.
    let lsn_floor = ceiling.max(loaded.lsn);
    table.start(loaded.lsn, lsn_floor);
    // The name of a snapshot is known to be durable only if an identity was written after it, as by
    // an orderly close. Otherwise the sync of the directory may have failed, and a later one proves
    // nothing: the snapshot is written again. A reader cannot do that. A full disk has no room for
    // it, and must not keep the store closed: then the name counts as durable.
    let is_durable = ceiling == loaded.lsn;
    if !is_durable && !options.read_only {
        match files.rewrite_snapshot(&table) {
            Err(error) if error.is_refusal() => {}
            written => written?,
        }
    }
    if !options.read_only {
        files.expire()?;
    }
    let durable_lsn = if is_durable || !options.read_only { loaded.lsn } else { Lsn::ZERO };

    let mut recovery = RecoveryReport::default();
    recovery.last_lsn = loaded.lsn;
    recovery.duration = env.clock.monotonic().saturating_sub(start);
    if found.is_some() {
        (recovery.records, recovery.bytes, recovery.files) = (loaded.records, loaded.bytes, 1);
    }

    let health = Arc::new(if options.read_only { Health::read_only() } else { Health::default() });
    let table = Arc::new(table);
    let needs = Needs {
        table: Arc::clone(&table),
        health: Arc::clone(&health),
        clock: Arc::clone(&env.clock),
        policy: Arc::clone(&options.persistence),
    };
    let snapshotter = Snapshotter::new(needs, files, durable_lsn, lsn_floor);
    if !options.read_only {
        snapshotter.begin()?;
    }
    Ok(Store::new(table, health, snapshotter, recovery, env, options))
}

/// Refuses directories of other owners, empty ones where no store is to be created, and backups
/// that are not only to be read.
fn refuse_other_directories(dir: &Path, names: &[String], options: &OpenOptions) -> Result<()> {
    let detail = match directory::classify(names) {
        Content::Foreign(name) => directory::describe_foreign(&name),
        Content::Store if is_backup(names) && !options.read_only => {
            "it is a backup, which opens for reading only; restore it to another directory".to_owned()
        }
        Content::Empty if options.read_only => {
            "there is no kv-naive store here, and none is created to be read only; correct the path"
                .to_owned()
        }
        Content::Empty if !options.create_if_missing => {
            "there is no kv-naive store here, and none is created without create_if_missing; correct the path"
                .to_owned()
        }
        _ => return Ok(()),
    };
    Err(Error::NotAStore { path: dir.to_path_buf(), detail })
}

/// Loads the store in `dir` into `table`: its snapshot, and the LSN ceiling. `None`: there is none
/// yet.
fn recover(dir: &dyn Dir, options: &OpenOptions, table: &mut Table) -> Result<Option<(Loaded, Lsn)>> {
    let names = dir.names()?;
    refuse_other_directories(dir.path(), &names, options)?;
    let found = match directory::classify(&names) {
        Content::SnapshotMissing => {
            return Err(Error::corruption(&dir.path_of(SNAPSHOT), 0, "the snapshot is missing"));
        }
        Content::IdentityMissing => {
            if snapshot::read(dir, SNAPSHOT, |_| true)?.lsn != Lsn::ZERO {
                return Err(Error::corruption(&dir.path_of(IDENTITY), 0, "the identity is missing"));
            }
            refuse_other_directories(dir.path(), &[], options)?;
            None
        }
        Content::Store => {
            let identity = identity::read(dir)?;
            let loaded = snapshot::read(dir, SNAPSHOT, |record| {
                table.load(record.key, Entry { value: Arc::from(record.value), lsn: record.lsn })
            })?;
            if loaded.store_id != identity.store_id {
                let fault = "this snapshot is of another store than the identity";
                return Err(Error::corruption(&dir.path_of(SNAPSHOT), 0, fault));
            }
            if identity.lsn_ceiling < loaded.lsn {
                let fault = "the identity is older than the snapshot";
                return Err(Error::corruption(&dir.path_of(IDENTITY), 0, fault));
            }
            // The identity of a backup is newer than its snapshot for a moment.
            if identity::is_closed_above(loaded.lsn, identity.lsn_ceiling) && !is_backup(&names) {
                let fault = format!(
                    "this snapshot of LSN {} is older than the one of the last close, of LSN {}",
                    loaded.lsn, identity.lsn_ceiling
                );
                return Err(Error::corruption(&dir.path_of(SNAPSHOT), 0, fault));
            }
            Some((loaded, identity.lsn_ceiling))
        }
        Content::Empty | Content::Foreign(_) => None,
    };
    Ok(found)
}

/// The old snapshots and the points of a store whose snapshot was loaded, and the snapshots that
/// have expired. And the length of the points' file, bytes.
fn find_past(dir: &dyn Dir, loaded: Loaded, now_unix_ms: u64) -> Result<(Kept, Leftovers, u64)> {
    let names = dir.names()?;
    let read = past::read_points(dir, &names, loaded.store_id);
    // Damage to the file must not keep the newest state closed. Calls for points return it.
    let lacks_points = read.as_ref().is_err_and(|error| !error.is_refusal());
    let (list, points_bytes) = if lacks_points { (List::default(), 0) } else { read? };
    let (kept, expired) = past::find(dir, &names, loaded, list, is_backup(&names), now_unix_ms)?;
    Ok((Kept { lacks_points, ..kept }, Leftovers::new(expired), points_bytes))
}

/// Removes temporary files, and a second name of the snapshot of `lsn`, that a crash left: the
/// store can be opened. Their removal need not be durable.
fn remove_rubbish(dir: &dyn Dir, lsn: Lsn) -> Result<()> {
    let is_rubbish = |name: &&String| directory::is_temporary(name) || parse_kept_name(name) == Some(lsn);
    for name in dir.names()?.iter().filter(is_rubbish) {
        dir.remove_file(name).map_err(|error| Error::io(Op::Remove, &dir.path_of(name), error))?;
    }
    Ok(())
}

fn is_backup(names: &[String]) -> bool {
    names.iter().any(|name| name == BACKUP_MARK)
}
