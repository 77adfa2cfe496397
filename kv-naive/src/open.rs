//! Opening: recovery of the snapshot, or creation of a store.

use kv_core::fs::{Dir, DirExt, FsExt, LockKind};
use kv_core::parts::{Health, Reserve, StoreLock};
use kv_core::{Env, Error, Lsn, Op, OpenOptions, RecoveryReport, Result};
use std::path::Path;
use std::sync::Arc;

use crate::directory::{self, Content, TEMPORARIES};
use crate::files::Files;
use crate::identity::{self, IDENTITY};
use crate::snapshot::{self, Loaded, SNAPSHOT};
use crate::snapshotter::{Needs, Snapshotter};
use crate::store::Store;
use crate::table::{Entry, Table};

/// Opens the store in `dir`, and creates it if there is none and the options allow it.
pub(crate) fn open(dir: &Path, env: &Env, options: &OpenOptions) -> Result<Store> {
    options.limits.validate()?;
    let start = env.clock.monotonic();
    // Before the lock, which may leave a file: never in a foreign directory, nor where no store
    // shall be created. Behind the lock the directory is judged again.
    let content = directory::classify(&env.fs.list_if_exists(dir)?.unwrap_or_default());
    refuse_other_directories(dir, &content, options)?;
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
        refuse_other_directories(dir.path(), &Content::Empty, options)?;
    }
    let (loaded, ceiling) = found.unwrap_or_else(|| {
        let store_id = env.draw_store_id(dir.path());
        (Loaded { store_id, ..Loaded::default() }, Lsn::ZERO)
    });
    let files = Files::new(dir, lock, reserve, loaded.store_id, loaded.bytes);
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
        match files.replace_snapshot(&table, || ()) {
            Err(error) if error.is_refusal() => {}
            written => drop(written?),
        }
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

/// Refuses directories of other owners, and empty ones where no store is to be created.
fn refuse_other_directories(dir: &Path, content: &Content, options: &OpenOptions) -> Result<()> {
    let detail = match content {
        Content::Foreign(name) => directory::describe_foreign(name),
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
    let content = directory::classify(&names);
    refuse_other_directories(dir.path(), &content, options)?;
    let found = match content {
        Content::SnapshotMissing => {
            return Err(Error::corruption(&dir.path_of(SNAPSHOT), 0, "the snapshot is missing"));
        }
        Content::IdentityMissing => {
            if snapshot::read(dir, |_| true)?.lsn != Lsn::ZERO {
                return Err(Error::corruption(&dir.path_of(IDENTITY), 0, "the identity is missing"));
            }
            refuse_other_directories(dir.path(), &Content::Empty, options)?;
            None
        }
        Content::Store => {
            let identity = identity::read(dir)?;
            let loaded = snapshot::read(dir, |record| {
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
            Some((loaded, identity.lsn_ceiling))
        }
        Content::Empty | Content::Foreign(_) => None,
    };
    if options.read_only {
        return Ok(found);
    }
    // The store can be opened: temporary files that a crash left go. Their removal need not be
    // durable.
    for name in TEMPORARIES.into_iter().filter(|temporary| names.iter().any(|name| name == temporary)) {
        dir.remove_file(name).map_err(|error| Error::io(Op::Remove, &dir.path_of(name), error))?;
    }
    Ok(found)
}
