//! When to snapshot, and who does it; opening and closing.

use crossbeam_channel::{Receiver, Sender};
use kv_core::{
    Acknowledge, Action, Background, DirLock, Env, Error, FsExt, Health, Leadership, Lsn, OpenOptions,
    Pending, RecoveryReport, Result,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::identity::{self, Content, IDENTITY, SNAPSHOT};
use crate::snapshot::{self, Loaded};
use crate::table::{Position, Table};

/// What callers and the worker share.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    env: Env,
    pub(crate) options: OpenOptions,
    /// The policy's answer, asked once.
    acknowledge: Acknowledge,
    pub(crate) table: Table,
    pub(crate) health: Health,
    leadership: Leadership,
    /// The position of the last snapshot.
    durable: Mutex<Position>,
    durable_lsn: AtomicU64,
    times: Mutex<Times>,
    /// Whether `times.since_snapshot_began` is set.
    changed_since_snapshot_began: AtomicBool,
    /// An LSN from which on the ceiling is to be raised.
    raise_at: AtomicU64,
    lsn_floor: Lsn,
    pub(crate) counters: Counters,
    pub(crate) recovery: RecoveryReport,
    wake: (Sender<()>, Receiver<()>),
    stopping: AtomicBool,
    lock: Mutex<Option<Box<dyn DirLock>>>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) snapshots: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) disk_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Times {
    /// When the oldest change that is not durable came.
    oldest: Option<Duration>,
    /// When the first change came after the last snapshot began.
    since_snapshot_began: Option<Duration>,
    last_snapshot: Duration,
}

impl Store {
    pub(crate) fn open(dir: &Path, env: &Env, options: OpenOptions) -> Result<Self> {
        options.limits.validate()?;
        let start = env.clock.monotonic();
        // Looked at before it is locked: a lock may leave a file, and a foreign directory is none of ours.
        check_content(dir, env, &options)?;
        env.fs.create_dir_durably(dir)?;
        let lock = env.fs.lock_dir_exclusive(dir)?;
        let (loaded, ceiling) = match check_content(dir, env, &options)? {
            Content::Store => {
                let ceiling = identity::load(&*env.fs, dir)?;
                (snapshot::load(&*env.fs, dir)?, ceiling)
            }
            _ => (create(dir, env)?, Lsn::ZERO),
        };
        // Every LSN up to the ceiling may have been given out before a crash.
        let lsn_floor = ceiling.max(loaded.lsn);
        let ceiling = identity::ceiling_above(lsn_floor);
        identity::store(&*env.fs, dir, ceiling)?;
        let now = env.clock.monotonic();
        let recovery = {
            let mut report = RecoveryReport::default();
            (report.records, report.bytes, report.files) = (loaded.records, loaded.bytes, 1);
            report.last_lsn = loaded.lsn;
            report.duration = now.saturating_sub(start);
            report
        };
        let counters = Counters::default();
        counters.disk_bytes.store(loaded.bytes, Ordering::Relaxed);
        Ok(Store {
            dir: dir.to_path_buf(),
            env: env.clone(),
            acknowledge: options.persistence.acknowledge(),
            options,
            table: Table::new(loaded.entries, loaded.lsn, lsn_floor),
            health: Health::default(),
            leadership: Leadership::default(),
            durable: Mutex::new(Position { lsn: loaded.lsn, ..Position::default() }),
            durable_lsn: AtomicU64::new(loaded.lsn.get()),
            times: Mutex::new(Times { last_snapshot: now, ..Times::default() }),
            changed_since_snapshot_began: AtomicBool::new(false),
            raise_at: AtomicU64::new(identity::raise_at(ceiling)),
            lsn_floor,
            counters,
            recovery,
            wake: crossbeam_channel::bounded(1),
            stopping: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        })
    }

    pub(crate) fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.durable_lsn.load(Ordering::Acquire))
    }

    /// Whether a change may be made now; sees to it that there is an LSN for it.
    #[inline]
    pub(crate) fn before_change(&self) -> Result<()> {
        self.health.check_writable()?;
        if self.table.last_lsn().get() >= self.raise_at.load(Ordering::Relaxed) {
            self.raise_ceiling()?;
        }
        Ok(())
    }

    #[cold]
    fn raise_ceiling(&self) -> Result<()> {
        let Some(_leading) = self.leadership.take_unless(|| self.health.is_poisoned()) else {
            return Err(self.health.poisoned());
        };
        let ceiling = identity::ceiling_above(self.table.last_lsn());
        identity::store(&*self.env.fs, &self.dir, ceiling).map_err(|error| self.health.poison(error))?;
        self.raise_at.store(identity::raise_at(ceiling), Ordering::Relaxed);
        Ok(())
    }

    /// What follows a change: the caller waits for a snapshot, or makes it, or wakes the worker.
    #[inline]
    pub(crate) fn after_change(&self, lsn: Lsn) -> Result<()> {
        let first = !self.changed_since_snapshot_began.load(Ordering::Acquire) && self.note_first_change();
        if self.acknowledge == Acknowledge::WhenDurable {
            return self.make_durable(lsn);
        }
        let (action, ask_again_in) = self.decide();
        match (self.env.background, action) {
            (Background::Inline, Action::Hold) => Ok(()),
            (Background::Inline, _) => self.make_durable(lsn),
            (Background::Threads, action) => {
                if action != Action::Hold || (first && ask_again_in.is_some()) {
                    let _ = self.wake.0.try_send(());
                }
                Ok(())
            }
        }
    }

    fn note_first_change(&self) -> bool {
        let now = self.env.clock.monotonic();
        let mut times = self.times.lock();
        if times.since_snapshot_began.is_some() {
            return false;
        }
        times.since_snapshot_began = Some(now);
        times.oldest.get_or_insert(now);
        self.changed_since_snapshot_began.store(true, Ordering::Release);
        true
    }

    /// The policy's answer, and when to ask again.
    fn decide(&self) -> (Action, Option<Duration>) {
        let (position, durable) = (self.table.position(), *self.durable.lock());
        let records = position.changes.saturating_sub(durable.changes);
        if records == 0 {
            return (Action::Hold, None);
        }
        let now = self.env.clock.monotonic();
        let pending = {
            let times = self.times.lock();
            Pending {
                bytes: position.bytes.saturating_sub(durable.bytes),
                records,
                oldest_age: times.oldest.map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest)),
                since_last_dump: now.saturating_sub(times.last_snapshot),
            }
        };
        let decision = self.options.persistence.decide(&pending);
        (decision.action, decision.ask_again_in)
    }

    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.table.position().bytes.saturating_sub(self.durable.lock().bytes)
    }

    /// Returns once everything up to `lsn` is in a snapshot.
    pub(crate) fn make_durable(&self, lsn: Lsn) -> Result<()> {
        let done = || self.durable_lsn() >= lsn;
        loop {
            match self.leadership.take_unless(|| done() || self.health.is_poisoned()) {
                Some(_leading) => self.snapshot().map_err(|error| self.health.poison(error))?,
                None if done() => return Ok(()),
                None => return Err(self.health.poisoned()),
            }
        }
    }

    /// What the leader does.
    fn snapshot(&self) -> Result<()> {
        {
            let mut times = self.times.lock();
            times.since_snapshot_began = None;
            self.changed_since_snapshot_began.store(false, Ordering::Release);
        }
        let position = self.table.begin_snapshot();
        let bytes = snapshot::write(&*self.env.fs, &self.dir, &self.table, position)?;
        self.counters.snapshots.fetch_add(1, Ordering::Relaxed);
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        self.counters.disk_bytes.store(bytes, Ordering::Relaxed);
        *self.durable.lock() = position;
        self.durable_lsn.store(position.lsn.get(), Ordering::Release);
        let mut times = self.times.lock();
        times.last_snapshot = self.env.clock.monotonic();
        times.oldest = times.since_snapshot_began;
        Ok(())
    }

    /// Starts the worker, unless the store is in inline mode.
    pub(crate) fn start_worker(self: &Arc<Self>) -> Result<Option<JoinHandle<()>>> {
        if self.env.background == Background::Inline {
            return Ok(None);
        }
        let store = Arc::clone(self);
        let work = move || {
            if catch_unwind(AssertUnwindSafe(|| store.work())).is_err() {
                let cause = io::Error::other("the background thread panicked");
                let _ = store.health.poison(Error::io("work in the background on", &store.dir, cause));
            }
        };
        thread::Builder::new()
            .name("kv-naive snapshot".to_owned())
            .spawn(work)
            .map(Some)
            .map_err(|error| Error::io("start a thread for", &self.dir, error))
    }

    /// The worker: snapshots when the policy says so. A failure poisons the store where it happens.
    fn work(&self) {
        while !self.stopping.load(Ordering::Acquire) && !self.health.is_poisoned() {
            match self.decide() {
                (Action::Hold, None) => drop(self.wake.1.recv()),
                (Action::Hold, Some(pause)) => drop(self.wake.1.recv_timeout(pause)),
                _ => drop(self.make_durable(self.table.last_lsn())),
            }
        }
    }

    pub(crate) fn stop_worker(&self, worker: Option<JoinHandle<()>>) {
        self.stopping.store(true, Ordering::Release);
        let _ = self.wake.0.try_send(());
        if let Some(worker) = worker {
            // A panic was turned into poison where it happened.
            let _ = worker.join();
        }
    }

    /// Makes everything durable, notes that no LSN is missing, and lets the directory go whatever happens.
    pub(crate) fn close(&self) -> Result<()> {
        let result = self.close_files();
        self.health.close();
        *self.lock.lock() = None;
        result
    }

    fn close_files(&self) -> Result<()> {
        self.health.check_writable()?;
        self.make_durable(self.table.last_lsn())?;
        // Changes that slipped in are made durable below; none comes after this.
        self.health.close();
        let last_lsn = self.table.close();
        self.make_durable(last_lsn)?;
        identity::store(&*self.env.fs, &self.dir, self.lsn_floor.max(last_lsn))
    }
}

/// Creates an empty store.
fn create(dir: &Path, env: &Env) -> Result<Loaded> {
    let table = Table::new(HashMap::new(), Lsn::ZERO, Lsn::ZERO);
    snapshot::write(&*env.fs, dir, &table, table.begin_snapshot())?;
    identity::store(&*env.fs, dir, Lsn::ZERO)?;
    snapshot::load(&*env.fs, dir)
}

/// What the directory is, if it can be opened.
fn check_content(dir: &Path, env: &Env, options: &OpenOptions) -> Result<Content> {
    let not_a_store = |detail: String| Err(Error::NotAStore { path: dir.to_path_buf(), detail });
    let names = env.fs.list_if_exists(dir)?.unwrap_or_default();
    match identity::classify(&names) {
        Content::Empty if !options.create_if_missing => not_a_store(
            "there is no kv-naive store here; set create_if_missing, or correct the path".to_owned(),
        ),
        Content::Foreign(name) => not_a_store(format!(
            "it holds {name}, which is not a file of a kv-naive store; choose another directory"
        )),
        Content::SnapshotMissing => Err(Error::corruption(
            &dir.join(SNAPSHOT),
            0,
            "the snapshot is missing; restore it from a backup",
        )),
        Content::SnapshotOnly if snapshot::load(&*env.fs, dir)?.lsn != Lsn::ZERO => Err(Error::corruption(
            &dir.join(IDENTITY),
            0,
            "the identity file is missing; restore it from a backup",
        )),
        content => Ok(content),
    }
}
