//! The state of an open store, and its opening and closing.

use kv_core::{
    Acknowledge, Dir, DirExt, Env, Error, FsExt, Health, Leadership, LockKind, Lsn, OpenOptions,
    RecoveryReport, Reserve, Result, StoreLock,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::directory::{self, Content, TEMPORARIES};
use crate::identity::{self, IDENTITY, Identity};
use crate::progress::Progress;
use crate::snapshot::{self, Loaded, SNAPSHOT};
use crate::table::{Entry, Table};
use crate::worker::Signal;

/// What callers and the worker share.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) env: Env,
    pub(crate) options: OpenOptions,
    /// In the header of each file.
    pub(crate) id: u32,
    /// The policy's answer, asked once.
    pub(crate) acknowledge: Acknowledge,
    pub(crate) table: Table,
    pub(crate) progress: Progress,
    pub(crate) health: Health,
    /// Who leads writes files; one at a time.
    pub(crate) leadership: Leadership,
    /// An LSN from which on the ceiling is to be raised.
    raise_at: AtomicU64,
    /// LSNs up to this one were given out before this opening.
    lsn_floor: Lsn,
    pub(crate) signal: Signal,
    pub(crate) counters: Counters,
    pub(crate) recovery: RecoveryReport,
    lock: StoreLock,
    /// For the next snapshot, and for identities.
    pub(crate) reserve: Reserve,
    /// Longest key that can be looked up, bytes: that of the limits, or of a key that was there
    /// before they were lowered.
    pub(crate) key_len_max: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) snapshots: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) snapshot_bytes: AtomicU64,
}

impl Counters {
    /// A file of `bytes` was replaced: itself and its directory were synced.
    pub(crate) fn file_replaced(&self, bytes: u64) {
        self.syncs.fetch_add(2, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Store {
    pub(crate) fn open(dir: &Path, env: &Env, options: OpenOptions) -> Result<Self> {
        options.limits.validate()?;
        let start = env.clock.monotonic();
        // Looked at before it is locked, because a lock may leave a file: not in somebody else's directory,
        // nor where nothing shall be created. The rest is judged behind the lock.
        let content = directory::classify(&env.fs.list_if_exists(dir)?.unwrap_or_default());
        refuse_other_directories(dir, &content, &options)?;
        if !options.read_only {
            env.fs.create_dir_durably(dir)?;
        }
        let dir = env.fs.open_dir(dir).map_err(|error| Error::io("open", dir, error))?;
        let kind = if options.read_only { LockKind::Shared } else { LockKind::Exclusive };
        let lock = StoreLock::new(dir.path(), dir.lock_or_refuse(kind)?);
        let reserve =
            if options.read_only { Reserve::none(Arc::clone(&dir)) } else { Reserve::open(Arc::clone(&dir)) };
        let mut table = Table::new(env.background);
        let counters = Counters::default();
        let found = recover(&*dir, &options, &mut table)?;
        let read_only = options.read_only;
        let key_len_max = table.longest_loaded_key().max(options.limits.key_len_max);
        let (loaded, ceiling) = match found {
            Some(found) => found,
            None if options.read_only => {
                refuse_other_directories(dir.path(), &Content::Empty, &options)?;
                unreachable!("an empty directory is refused");
            }
            None => (create(&*dir, env, &table, &counters)?, Lsn::ZERO),
        };
        // Every LSN up to the ceiling may have been given out before a crash.
        let lsn_floor = ceiling.max(loaded.lsn);
        table.start(loaded.lsn, lsn_floor);
        // Who cannot sync the directory only knows a snapshot to be durable that an identity was
        // written after.
        let is_durable = !options.read_only || ceiling == loaded.lsn;
        let durable_lsn = if is_durable { loaded.lsn } else { Lsn::ZERO };
        let now = env.clock.monotonic();
        let mut recovery = RecoveryReport::default();
        (recovery.last_lsn, recovery.duration) = (loaded.lsn, now.saturating_sub(start));
        if found.is_some() {
            (recovery.records, recovery.bytes, recovery.files) = (loaded.records, loaded.bytes, 1);
        }
        counters.snapshot_bytes.store(loaded.bytes, Ordering::Relaxed);
        let store = Store {
            dir,
            env: env.clone(),
            acknowledge: options.persistence.acknowledge(),
            options,
            id: loaded.store_id,
            table,
            progress: Progress::new(durable_lsn, now),
            health: if read_only { Health::read_only() } else { Health::default() },
            leadership: Leadership::default(),
            raise_at: AtomicU64::new(0),
            lsn_floor,
            signal: Signal::new(),
            counters,
            recovery,
            lock,
            reserve,
            key_len_max,
        };
        if !store.options.read_only {
            // The identity comes last: it completes a creation.
            store.write_ceiling(lsn_floor)?;
            store.hold_reserve();
        }
        Ok(store)
    }

    /// Whether a change may be made now; sees to it that there is an LSN for it.
    #[inline]
    pub(crate) fn before_change(&self) -> Result<()> {
        self.health.check_writable()?;
        if self.ceiling_is_near() { self.raise_ceiling() } else { Ok(()) }
    }

    /// Refuses to look up a key that is longer than any key here can be.
    #[inline]
    pub(crate) fn check_look_up(&self, key: &[u8]) -> Result<()> {
        self.options.limits.check_key_with(key, self.key_len_max)
    }

    /// Checks that the directory is still the store's.
    pub(crate) fn check_directory(&self) -> Result<()> {
        self.lock.check()
    }

    /// Holds space for a snapshot as large as the last one, beside that one, and for an identity.
    pub(crate) fn hold_reserve(&self) {
        self.reserve.hold(self.counters.snapshot_bytes.load(Ordering::Relaxed) + IDENTITY_ROOM);
    }

    #[inline]
    fn ceiling_is_near(&self) -> bool {
        self.table.last_lsn().get() >= self.raise_at.load(Ordering::Relaxed)
    }

    #[cold]
    fn raise_ceiling(&self) -> Result<()> {
        let done = || !self.ceiling_is_near() || self.health.is_poisoned();
        if let Some(_leading) = self.leadership.take_unless(done) {
            // A store that was closed meanwhile has its last ceiling.
            self.health.check_writable()?;
            self.write_ceiling(self.table.last_lsn()).map_err(|error| self.health.poison(error))?;
        }
        self.health.check_writable()
    }

    /// Reserves LSNs above `last`. By the leader, or before anybody else knows the store.
    fn write_ceiling(&self, last: Lsn) -> Result<()> {
        let ceiling = identity::ceiling_above(last);
        self.write_identity(ceiling)?;
        self.raise_at.store(identity::raise_at(ceiling).get(), Ordering::Relaxed);
        Ok(())
    }

    fn write_identity(&self, ceiling: Lsn) -> Result<()> {
        self.lock.check()?;
        identity::write(&self.reserve, Identity { store_id: self.id, lsn_ceiling: ceiling })?;
        self.counters.file_replaced(identity::FILE_LEN);
        Ok(())
    }

    /// Makes everything durable, gives unused LSNs back, and lets the directory go whatever happens. The
    /// worker has ended.
    pub(crate) fn close(&self) -> Result<()> {
        let result = if self.options.read_only { Ok(()) } else { self.close_files() };
        // If that gave up early, a caller may still be writing: the directory is its own until it
        // is done.
        let _leading = self.leadership.take_unless(|| false);
        self.health.close();
        self.table.close();
        self.lock.release();
        result
    }

    fn close_files(&self) -> Result<()> {
        self.health.check_writable()?;
        self.make_durable(self.table.last_lsn())?;
        // Changes that slipped in are made durable below; none comes after this.
        self.health.close();
        let last = self.table.close();
        self.make_durable(last)?;
        match self.leadership.take_unless(|| self.health.is_poisoned()) {
            Some(_leading) => match self.write_identity(self.lsn_floor.max(last)) {
                // Everything is durable; only the unused LSNs are not given back.
                Ok(()) | Err(Error::DiskFull { .. }) => Ok(()),
                Err(error) => Err(self.health.poison(error)),
            },
            None => Err(self.health.poisoned()),
        }
    }
}

/// Bytes of the reserve that are for identities only.
pub(crate) const IDENTITY_ROOM: u64 = 16 << 10;

/// Refuses directories of other owners, and empty ones where no store is to be created.
fn refuse_other_directories(dir: &Path, content: &Content, options: &OpenOptions) -> Result<()> {
    let detail = match content {
        Content::Foreign(name) => directory::describe_foreign(name),
        Content::Empty if options.read_only => {
            "there is no kv-naive store here, and none is created to be read only; correct the path"
                .to_owned()
        }
        Content::Empty if !options.create_if_missing => {
            "there is no kv-naive store here; set create_if_missing, or correct the path".to_owned()
        }
        _ => return Ok(()),
    };
    Err(Error::NotAStore { path: dir.to_path_buf(), detail })
}

/// Loads the store in `dir` into `table`: its snapshot, and the LSN ceiling. `None`: there is none yet.
fn recover(dir: &dyn Dir, options: &OpenOptions, table: &mut Table) -> Result<Option<(Loaded, Lsn)>> {
    let names = dir.names()?;
    let content = directory::classify(&names);
    refuse_other_directories(dir.path(), &content, options)?;
    let found = match content {
        Content::SnapshotMissing => {
            let detail = "the snapshot is missing; restore it from a backup";
            return Err(Error::corruption(&dir.path_of(SNAPSHOT), 0, detail));
        }
        Content::IdentityMissing => {
            if snapshot::read(dir, |_| true)?.lsn != Lsn::ZERO {
                let detail = "the identity file is missing; restore it from a backup";
                return Err(Error::corruption(&dir.path_of(IDENTITY), 0, detail));
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
                let detail = "this is the snapshot of another store; restore both files from one backup";
                return Err(Error::corruption(&dir.path_of(SNAPSHOT), 0, detail));
            }
            if identity.lsn_ceiling < loaded.lsn {
                let detail = "the identity is older than the snapshot; restore both files from one backup";
                return Err(Error::corruption(&dir.path_of(IDENTITY), 0, detail));
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
        dir.remove_file(name).map_err(|error| Error::io("remove", &dir.path_of(name), error))?;
    }
    Ok(found)
}

/// Creates the snapshot of an empty store; the identity follows.
fn create(dir: &dyn Dir, env: &Env, table: &Table, counters: &Counters) -> Result<Loaded> {
    let store_id = env.draw_store_id(dir.path());
    let bytes = snapshot::write(dir, store_id, table.begin_cut())?;
    counters.file_replaced(bytes);
    Ok(Loaded { store_id, bytes, ..Loaded::default() })
}
