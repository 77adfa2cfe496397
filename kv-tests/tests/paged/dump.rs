//! Dumps, under a leader: to the log, or by the next generation.

use super::commit::Store;
use super::defect::Defect;
use super::generation::{Files, Pinned};
use kv_core::parts::{Dumper, Position};
use kv_core::{Action, CompactionReport, Decision, Error, Lsn, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Store {
    /// Returns once the visible changes up to `lsn` are durable.
    pub(crate) fn make_durable(&self, lsn: Lsn) -> Result<()> {
        let dumps = self.scratch.dumps();
        let joins_any = self.broken.is(Defect::SyncJoinsAnyDump);
        if self.broken.is(Defect::NoGroupCommit) && self.progress.durable_lsn() < lsn {
            let dumped = self.dump(Action::WriteAndSync);
            let is_durable = self.progress.durable_lsn() >= lsn;
            return if is_durable && matches!(dumped, Err(Error::Closed)) { Ok(()) } else { dumped };
        }
        let is_done = || self.progress.durable_lsn() >= lsn || (joins_any && self.scratch.dumps() > dumps);
        self.leadership.lead_until(&self.health, is_done, || self.lead(|| self.work(Action::WriteAndSync)))
    }

    /// Dumps all visible changes.
    pub(crate) fn dump(&self, action: Action) -> Result<()> {
        self.lead_once(|| self.work(action))
    }

    /// Returns once the operating system has the change `lsn`. For the policy this is no dump.
    pub(crate) fn hand_over(&self, lsn: Lsn) -> Result<()> {
        let handed = self.lead_once(|| {
            let mut files = self.files();
            let files = files.as_mut().ok_or(Error::Closed)?;
            let (records, _, snapshot_len) = self.take_buffer();
            files.secure(snapshot_len)?;
            match files.append(records) {
                Err(Error::DiskFull { .. }) => self.next_generation(files),
                appended => appended,
            }
        });
        match handed {
            // A close that came in between made the change durable.
            Err(Error::Closed) if self.progress.durable_lsn() >= lsn => Ok(()),
            handed => handed,
        }
    }

    fn lead_once<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.leadership.take_unless(|| self.health.is_poisoned()) {
            Some(_leading) => self.lead(work),
            None => Err(self.health.poisoned()),
        }
    }

    /// The work of the leader. Its failure poisons before the next thread leads.
    fn lead<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _watch = self.health.poison_on_panic(&self.path);
        let done = work().map_err(|error| {
            if self.broken.is(Defect::FailureDoesNotPoison) { error } else { self.health.poison(error) }
        });
        self.scratch.dumped(done.is_ok());
        done
    }

    fn work(&self, action: Action) -> Result<()> {
        let broken = self.broken;
        let mut files = self.files();
        let files = files.as_mut().ok_or(Error::Closed)?;
        let is_sync = action == Action::WriteAndSync;
        if broken.is(Defect::WritesOncePerSync) && self.scratch.is_written_again(action) {
            self.progress.written(self.position(), self.env.clock.monotonic());
            return Ok(());
        }
        self.scratch.show_old_durable(broken.is(Defect::DurableLsnGoesBack));
        if is_sync {
            self.progress.begin_sync();
        }
        let (records, end, snapshot_len) = self.take_buffer();
        let is_empty = records.is_empty();
        files.secure(snapshot_len)?;
        if broken.is(Defect::SyncBeforeWrite) && is_sync {
            files.sync(end.lsn.get())?;
        }
        match files.append(records) {
            // A generation is as long as the data at most, and has the reserve for that.
            Err(Error::DiskFull { .. }) if !broken.is(Defect::FullLogPoisons) => {
                return self.next_generation(files);
            }
            appended => appended?,
        }
        let now = self.env.clock.monotonic();
        if !broken.is(Defect::WriteIsNoDump) || is_sync {
            self.progress.written(end, now);
        }
        if broken.is(Defect::DurableBeforeSync) || (broken.is(Defect::WriteIsDurable) && !is_sync) {
            self.progress.synced(end, now);
        }
        if is_sync {
            let skips =
                broken.is(Defect::SyncBeforeWrite) || (is_empty && broken.is(Defect::SyncTrustsEmptyBuffer));
            if !skips {
                files.sync(end.lsn.get())?;
            }
            self.progress.synced(end, self.env.clock.monotonic());
        }
        self.scratch.durable_moved(self.progress.durable_lsn());
        if broken.is(Defect::RemovalTriedForever) {
            files.retry_leftovers();
        }
        if files.is_log_long() { self.next_generation(files) } else { Ok(()) }
    }

    /// Takes the records that no file has; returns also where they end, and how long a snapshot
    /// would be there.
    fn take_buffer(&self) -> (Vec<u8>, Position, u64) {
        let mut commit = self.commit();
        let records = std::mem::take(&mut commit.buffer);
        if self.broken.is(Defect::PositionAfterBuffer) {
            drop(commit);
            std::thread::yield_now();
            commit = self.commit();
        }
        (records, commit.position, self.view().snapshot_len())
    }

    /// Makes all visible changes durable by a snapshot. Writers go on meanwhile.
    fn next_generation(&self, files: &mut Files) -> Result<()> {
        let broken = self.broken;
        self.progress.begin_sync();
        let (pinned, end) = {
            let mut commit = self.commit();
            let view = self.view();
            if !broken.is(Defect::SnapshotLosesLateChanges) {
                commit.buffer.clear();
            }
            let pinned = Pinned {
                tree: Arc::clone(&view.tree),
                last_lsn: view.last_lsn,
                next_lsn: commit.next_lsn,
                snapshot_len: view.snapshot_len(),
                durable_lsn: self.progress.durable_lsn(),
            };
            (pinned, commit.position)
        };
        files.secure(pinned.snapshot_len)?;
        files.begin_generation(&pinned)?;
        if broken.is(Defect::SnapshotLosesLateChanges) {
            self.commit().buffer.clear();
        }
        self.progress.synced(end, self.env.clock.monotonic());
        Ok(())
    }

    pub(crate) fn compact(&self) -> Result<CompactionReport> {
        if !self.broken.is(Defect::CompactsAfterClose) {
            self.health.check_writable()?;
        }
        let mut report = CompactionReport::default();
        if self.broken.is(Defect::CompactDoesNothing) {
            return Ok(report);
        }
        if self.broken.is(Defect::CompactLeavesThread) {
            std::thread::spawn(std::thread::park);
        }
        let disk_bytes = || self.counters.disk_bytes.load(Ordering::Relaxed);
        let before = disk_bytes();
        let done = self.lead_once(|| {
            let mut files = self.files();
            self.next_generation(files.as_mut().ok_or(Error::Closed)?)
        });
        if !(self.broken.is(Defect::CompactsAfterClose) && matches!(done, Err(Error::Closed))) {
            done?;
        }
        report.freed_bytes = before.saturating_sub(disk_bytes());
        report.leftover_files = self.counters.leftover_files.load(Ordering::Relaxed);
        (report.victims, report.outputs) = (1, 1);
        Ok(report)
    }

    /// Makes every change durable, leaves the proof of the log's end, and gives the directory back
    /// in any case. The thread has ended.
    pub(crate) fn close(&self) -> Result<()> {
        let broken = self.broken;
        let result = if self.options.read_only { Ok(()) } else { self.close_writable() };
        let keeps = broken.is(Defect::LockKeptAfterClose)
            || (broken.is(Defect::FailedCloseKeepsLock) && result.is_err());
        self.health.close();
        if let Some((tail, _)) = self.commit().tail.take().filter(|_| result.is_ok()) {
            tail.close();
        }
        if !keeps {
            self.release();
        }
        result
    }

    fn close_writable(&self) -> Result<()> {
        let broken = self.broken;
        self.health.check_writable()?;
        if broken.is(Defect::CloseUnlocksFirst)
            && let Some(files) = self.files().as_mut()
        {
            files.release_lock();
        }
        let (last, next_lsn) = {
            let commit = self.commit();
            if !broken.is(Defect::CloseTakesLateChanges) {
                self.health.close();
            }
            (commit.position.lsn, commit.next_lsn)
        };
        if broken.is(Defect::CloseTrustsEmptyBuffer) && self.progress.unflushed_bytes(self.position()) == 0 {
            self.progress.synced(self.position(), self.env.clock.monotonic());
        }
        self.make_durable(last)?;
        let next_lsn = if broken.is(Defect::CloseForgetsCeiling) { last.get() + 1 } else { next_lsn };
        self.lead_once(|| {
            let mut files = self.files();
            let files = files.as_mut().ok_or(Error::Closed)?;
            files.close(next_lsn)
        })
    }

    /// Closes all files once no thread writes to them, and gives the directory back.
    pub(crate) fn release(&self) {
        let _leading = self.leadership.take_unless(|| false);
        self.health.close();
        if let Some(mut files) = self.files().take() {
            files.release_lock();
        }
    }
}

impl Dumper for Store {
    fn durable_lsn(&self) -> Lsn {
        self.progress.durable_lsn()
    }

    fn decide(&self, now: Duration) -> Decision {
        Store::decide(self, now)
    }

    fn make_durable(&self, lsn: Lsn) -> Result<()> {
        Store::make_durable(self, lsn)
    }

    fn dump(&self, action: Action) -> Result<()> {
        Store::dump(self, action)
    }

    fn before_rest(&self) {}
}
