//! The files of an open store, written by the leader of a dump.
//!
//! A generation begins in this order: its snapshot and its empty log are written and synced, their
//! names are synced, `CONTROL` is replaced, the files of the generation before are removed. A crash
//! before the replacement leaves the old generation whole.

use super::control::{self, Control, End};
use super::defect::{Broken, Defect};
use super::format::{CONTROL, snapshot_name, wal_name};
use super::snapshot::{self, Head};
use super::tree::Tree;
use super::wal;
use kv_core::fs::{Dir, DirExt, File, FileExt, OpenMode};
use kv_core::parts::{Reserve, StoreLock};
use kv_core::{Error, Lsn, Op, Result, Scale};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// LSNs that a generation reserves, so that none is used twice after a crash.
const RESERVED_LSNS: u64 = 1 << 32;
/// Bytes of the reserve beyond a snapshot: for `CONTROL`, an empty log, and begun blocks.
const RESERVE_SLACK: u64 = 12 << 10;
/// How often the removal of a file is tried again.
const REMOVALS_MAX: u32 = 8;

/// Numbers for the statistics, which never wait for the leader.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dumps: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) disk_bytes: AtomicU64,
    pub(crate) leftover_files: AtomicU64,
    pub(crate) generations: AtomicU64,
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// The state that a generation begins with.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) tree: Arc<Tree>,
    pub(crate) last_lsn: u64,
    pub(crate) next_lsn: u64,
    pub(crate) snapshot_len: u64,
    pub(crate) durable_lsn: Lsn,
}

/// A file that could not be removed.
#[derive(Debug)]
struct Leftover {
    name: String,
    len: u64,
    tries: u32,
}

#[derive(Debug)]
pub(crate) struct Files {
    dir: Arc<dyn Dir>,
    lock: StoreLock,
    reserve: Reserve,
    broken: Broken,
    scale: Scale,
    counters: Arc<Counters>,
    control: Control,
    wal: Option<Box<dyn File>>,
    wal_len: u64,
    /// The checksum so far.
    chain: u64,
    /// A sync up to this LSN has no mark yet.
    mark_due: Option<u64>,
    snapshot_len: u64,
    /// The reserve has room for a snapshot of this length.
    secured_len: u64,
    leftovers: Vec<Leftover>,
    /// Only a defect unlocks before it closes.
    is_unlocked: bool,
    /// Handles that only a defect keeps.
    leaked: Vec<Box<dyn File>>,
}

impl Files {
    /// Those of a store whose root is `control`, before this opening begins a generation.
    pub(crate) fn new(
        dir: Arc<dyn Dir>,
        lock: StoreLock,
        reserve: Reserve,
        control: Control,
        scale: Scale,
        broken: Broken,
    ) -> Self {
        Files {
            dir,
            lock,
            reserve,
            broken,
            scale,
            counters: Arc::default(),
            control,
            wal: None,
            wal_len: 0,
            chain: 0,
            mark_due: None,
            snapshot_len: 0,
            secured_len: 0,
            leftovers: Vec::new(),
            is_unlocked: false,
            leaked: Vec::new(),
        }
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Notes the files as recovery found them.
    pub(crate) fn found(&mut self, snapshot_len: u64, wal_len: u64) {
        (self.snapshot_len, self.wal_len) = (snapshot_len, wal_len);
        self.secured_len = snapshot_len.max(wal_len);
        self.count_disk_bytes();
    }

    /// A defect: goes on with the log of the generation that recovery read, and calls its bytes
    /// durable.
    pub(crate) fn resume(&mut self, log: &wal::Scanned, next_lsn: u64, sync: bool) -> Result<()> {
        let path = self.dir.path_of(&wal_name(self.control.generation));
        let opened = self.dir.open(&wal_name(self.control.generation), OpenMode::ReadWrite);
        let file = opened.map_err(|error| Error::io(Op::Open, &path, error))?;
        file.set_len(log.end).map_err(|error| Error::io(Op::Truncate, &path, error))?;
        if sync {
            file.sync_all().map_err(|error| Error::sync(&path, error))?;
        }
        (self.wal, self.wal_len, self.chain) = (Some(file), log.end, log.chain);
        let ceiling = next_lsn.saturating_add(RESERVED_LSNS);
        self.control = Control { ceiling, end: None, ..self.control };
        self.replace_control(&self.control)
    }

    /// Holds space for a snapshot of this length. Only a snapshot that grows needs it.
    pub(crate) fn secure(&mut self, snapshot_len: u64) -> Result<()> {
        if self.broken.is(Defect::NoReserve) {
            return Ok(());
        }
        let wanted = if self.broken.is(Defect::ReserveGrowsWithUse) {
            self.reserve.len() + (16 << 10)
        } else {
            snapshot_len + RESERVE_SLACK
        };
        let is_held = self.reserve.hold(wanted);
        if !is_held && snapshot_len > self.secured_len {
            let full = ErrorKind::StorageFull.into();
            return Err(Error::io(Op::Reserve, &self.dir.path_of(Reserve::FILE), full));
        }
        self.secured_len = snapshot_len;
        Ok(())
    }

    /// Appends records to the log, behind the mark of the last sync.
    pub(crate) fn append(&mut self, mut records: Vec<u8>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let (_, seed) = wal::header(self.control.store_id, self.control.generation);
        let (mut bytes, mut chain) = (Vec::new(), self.chain);
        if let Some(lsn) = self.mark_due {
            (bytes, chain) = wal::mark(self.wal_len, lsn, chain, seed);
        }
        chain = wal::seal(&mut records, chain, self.broken);
        bytes.append(&mut records);
        if self.broken.is(Defect::MarkBeforeSync) {
            let (mark, sum) = wal::mark(self.wal_len + bytes.len() as u64, 0, chain, seed);
            bytes.extend(mark);
            chain = sum;
        }
        let path = self.dir.path_of(&wal_name(self.control.generation));
        self.wal()?.write_all_at(&bytes, self.wal_len).map_err(|error| Error::io(Op::Write, &path, error))?;
        (self.chain, self.mark_due) = (chain, None);
        if self.broken.is(Defect::MarkFollowsWrite) {
            self.mark_due = Some(0);
        }
        self.wal_len += bytes.len() as u64;
        add(&self.counters.dumps, 1);
        add(&self.counters.bytes_written, bytes.len() as u64);
        self.count_disk_bytes();
        Ok(())
    }

    /// Makes the log durable, whose last change is `lsn`.
    pub(crate) fn sync(&mut self, lsn: u64) -> Result<()> {
        self.check_lock()?;
        let path = self.dir.path_of(&wal_name(self.control.generation));
        let mut synced = self.wal()?.sync_data();
        if synced.is_err() && self.broken.is(Defect::FailedSyncRetried) {
            synced = self.wal()?.sync_data();
        }
        add(&self.counters.syncs, 1);
        if !self.broken.is(Defect::SyncErrorIgnored) {
            synced.map_err(|error| Error::sync(&path, error))?;
        }
        self.mark_due = Some(lsn);
        Ok(())
    }

    fn check_lock(&self) -> Result<()> {
        let is_early = self.broken.is(Defect::CloseUnlocksFirst) && self.is_unlocked;
        let ignores = self.broken.is(Defect::LostLockIgnored) || is_early;
        if ignores { Ok(()) } else { self.lock.check() }
    }

    fn wal(&self) -> Result<&dyn File> {
        self.wal.as_deref().ok_or(Error::Closed)
    }

    /// Whether the log has grown beyond a multiple of the data.
    pub(crate) fn is_log_long(&self) -> bool {
        let log_len_min = if self.scale == Scale::Tiny { 4 << 10 } else { 1 << 20 };
        self.wal_len > log_len_min + 2 * self.snapshot_len && !self.broken.is(Defect::LogNeverShrinks)
    }

    /// Makes `pinned` durable as the beginning of the next generation.
    pub(crate) fn begin_generation(&mut self, pinned: &Pinned) -> Result<()> {
        self.check_lock()?;
        let mut ceiling = pinned.next_lsn.saturating_sub(1);
        if !self.broken.is(Defect::NoLsnReserved) {
            ceiling = ceiling.saturating_add(RESERVED_LSNS);
        }
        let generation = self.control.generation + 1;
        let next = Control { generation, ceiling, end: None, ..self.control };
        let head = Head { last_lsn: pinned.last_lsn, durable_lsn: pinned.durable_lsn.get() };
        let content = snapshot::encode(&next, head, &pinned.tree, self.broken);
        let len = content.len() as u64;
        let wal = self.reserve.lend(len + RESERVE_SLACK, 0, || {
            self.write_generation(&next, &content).inspect_err(|error| {
                if matches!(error, Error::DiskFull { .. }) && !self.broken.is(Defect::UnfinishedFilesStay) {
                    self.remove_unfinished(generation);
                }
            })
        })?;
        let old = self.control;
        self.control = next;
        if let Some(old_wal) = self.wal.replace(wal).filter(|_| self.broken.is(Defect::HandlesLeak)) {
            self.leaked.push(old_wal);
        }
        let (old_snapshot_len, old_wal_len) = (self.snapshot_len, self.wal_len);
        (self.snapshot_len, self.wal_len) = (len, wal::HEADER_LEN);
        self.chain = wal::header(next.store_id, generation).1;
        self.mark_due = Some(pinned.last_lsn);
        if old.generation > 0 {
            self.retry_leftovers();
            self.remove_old(&old, old_snapshot_len, old_wal_len);
        }
        add(&self.counters.dumps, 1);
        add(&self.counters.generations, 1);
        add(&self.counters.bytes_written, len + wal::HEADER_LEN + control::LEN);
        self.count_disk_bytes();
        if !self.broken.is(Defect::NoReserve) {
            let _ = self.secure(pinned.snapshot_len);
        }
        Ok(())
    }

    fn remove_old(&mut self, old: &Control, snapshot_len: u64, wal_len: u64) {
        if !self.broken.is(Defect::OldSnapshotsStay) {
            self.discard(snapshot_name(old.generation), snapshot_len);
        }
        if !self.broken.is(Defect::OldLogsStay) {
            self.discard(wal_name(old.generation), wal_len);
        }
    }

    /// Writes the files of the generation `next`, and switches to it; returns its log.
    fn write_generation(&self, next: &Control, snapshot: &[u8]) -> Result<Box<dyn File>> {
        let broken = self.broken;
        let name = snapshot_name(next.generation);
        let temporary = format!("{name}.tmp");
        if broken.is(Defect::OldRemovedFirst) {
            let _ = self.dir.remove_file(&wal_name(self.control.generation));
        }
        if broken.is(Defect::ControlBeforeSnapshot) {
            self.replace_control(next)?;
        }
        let file = self.create(&temporary, snapshot, !broken.is(Defect::SnapshotNotSynced))?;
        drop(file);
        let renamed = self.dir.rename(&temporary, &name);
        renamed.map_err(|error| Error::Io {
            op: Op::Rename,
            path: self.dir.path_of(&temporary),
            source: Arc::new(error),
        })?;
        let (header, _) = wal::header(next.store_id, next.generation);
        let wal = self.create(&wal_name(next.generation), &header, !broken.is(Defect::LogHeaderNotSynced))?;
        if !broken.is(Defect::NamesNotSynced) {
            self.sync_dir()?;
        }
        if !broken.is(Defect::ControlBeforeSnapshot) {
            self.replace_control(next)?;
        }
        Ok(wal)
    }

    fn create(&self, name: &str, content: &[u8], sync: bool) -> Result<Box<dyn File>> {
        let path = self.dir.path_of(name);
        let file = self
            .dir
            .open(name, OpenMode::CreateOrTruncate)
            .map_err(|error| Error::io(Op::Create, &path, error))?;
        file.write_all_at(content, 0).map_err(|error| Error::io(Op::Write, &path, error))?;
        if sync {
            file.sync_all().map_err(|error| Error::sync(&path, error))?;
            add(&self.counters.syncs, 1);
        }
        Ok(file)
    }

    fn sync_dir(&self) -> Result<()> {
        add(&self.counters.syncs, 1);
        self.dir.sync_durably()
    }

    fn replace_control(&self, control: &Control) -> Result<()> {
        let content = control.encode();
        if self.broken.is(Defect::ControlInPlace) {
            return self.create(CONTROL, &content, true).and_then(|_| self.sync_dir());
        }
        if self.broken.is(Defect::ControlRenameNotSynced) {
            let temporary = format!("{CONTROL}.tmp");
            self.create(&temporary, &content, true)?;
            let renamed = self.dir.rename(&temporary, CONTROL);
            return renamed.map_err(|error| Error::sync(self.dir.path(), error));
        }
        add(&self.counters.syncs, 2);
        self.dir.write_file_atomically(CONTROL, &content)
    }

    /// Writes the root of a store that has no files yet.
    pub(crate) fn create_store(&self) -> Result<()> {
        self.dir.write_file_atomically(CONTROL, &self.control.encode())
    }

    fn remove_unfinished(&self, generation: u64) {
        let snapshot = snapshot_name(generation);
        for name in [format!("{snapshot}.tmp"), snapshot, wal_name(generation)] {
            let _ = self.dir.remove_file(&name);
        }
    }

    /// Removes a file that the store does not need any more, now or later.
    pub(crate) fn discard(&mut self, name: String, len: u64) {
        let is_gone = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
        if self.dir.remove_file(&name).is_err_and(|error| !is_gone(&error)) {
            self.leftovers.push(Leftover { name, len, tries: 1 });
        }
        self.count_disk_bytes();
    }

    pub(crate) fn retry_leftovers(&mut self) {
        let tries_max = match self.broken {
            broken if broken.is(Defect::LeftoversForgotten) => 0,
            broken if broken.is(Defect::RemovalTriedForever) => u32::MAX,
            _ => REMOVALS_MAX,
        };
        for leftover in std::mem::take(&mut self.leftovers) {
            let is_left = leftover.tries >= tries_max || self.dir.remove_file(&leftover.name).is_err();
            if is_left {
                self.leftovers.push(Leftover { tries: leftover.tries + 1, ..leftover });
            }
        }
    }

    fn count_disk_bytes(&self) {
        let left: u64 = self.leftovers.iter().map(|leftover| leftover.len).sum();
        let snapshot_len =
            if self.broken.is(Defect::DiskBytesWithoutSnapshot) { 0 } else { self.snapshot_len };
        self.counters.disk_bytes.store(snapshot_len + self.wal_len + left, Ordering::Relaxed);
        self.counters.leftover_files.store(self.leftovers.len() as u64, Ordering::Relaxed);
    }

    /// Leaves the proof of where the log ends. All changes are durable.
    pub(crate) fn close(&mut self, next_lsn: u64) -> Result<()> {
        self.check_lock()?;
        let end = Some(End { len: self.wal_len, chain: self.chain });
        let ceiling = next_lsn.saturating_sub(1);
        self.control = Control { ceiling, end, ..self.control };
        if self.broken.is(Defect::CloseLeavesNoProof) {
            self.control.end = None;
        }
        self.reserve.lend(RESERVE_SLACK, 0, || self.replace_control(&self.control))
    }

    pub(crate) fn release_lock(&mut self) {
        self.is_unlocked = true;
        self.lock.release();
    }

    pub(crate) fn dir(&self) -> &dyn Dir {
        &*self.dir
    }
}
