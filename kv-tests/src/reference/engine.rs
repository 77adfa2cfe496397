//! The calls of the contract. An open store does all its I/O under the state's lock. No thread
//! holds the state's lock and the lock of `ticker` at the same time.

use super::Defect;
use super::state::{Shared, State, live_bytes};
use super::visits::Kind;
use kv_core::{
    Action, Background, Batch, Change, Checkpoint, Compact, Engine, Error, Lsn, PointInTime, Result,
    ScanVisitor, Stats, Value,
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The mutants' engine. See [the module](crate::reference).
#[derive(Debug)]
pub struct Reference {
    pub(super) shared: Arc<Shared>,
    ticker: Mutex<Option<JoinHandle<()>>>,
}

impl Reference {
    pub(super) fn new(shared: Shared) -> Self {
        Reference { shared: Arc::new(shared), ticker: Mutex::new(None) }
    }

    /// Starts the thread that dumps when the policy's time is over.
    pub(super) fn start_ticker(&self) {
        let shared = Arc::clone(&self.shared);
        *self.ticker.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(thread::spawn(move || shared.tick()));
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// The drop of some defects: does not dump, or does not sync.
    fn drop_carelessly(&self, loses: bool) {
        let mut state = self.state();
        if state.closed.is_none() {
            if !loses {
                let _ = self.shared.dump(&mut state, Action::Write);
            }
            self.shared.health.close();
            state.closed = Some(Ok(()));
            self.shared.place.lock.release();
            self.shared.changed.notify_all();
        }
    }

    /// A compaction that a caller asks for; only a defect offers it.
    pub(super) fn compact_now(&self) -> Result<()> {
        self.put(b"", b"")?;
        self.delete(b"")?;
        self.sync().map(drop)
    }

    /// The positions and keys that `read_many` visits.
    fn visited<'a>(&self, keys: &[&'a [u8]]) -> Vec<(usize, &'a [u8])> {
        let mut visited: Vec<(usize, &[u8])> = keys.iter().copied().enumerate().collect();
        match self.shared.place.defect {
            Some(Defect::ReadManySorts) => visited.sort_by_key(|(_, key)| *key),
            Some(Defect::ReadManyEndsAtGroup) => visited.truncate(4096),
            Some(Defect::ReadManyVisitsOnce) => {
                visited.retain(|(at, key)| keys.iter().position(|first| first == key) == Some(*at));
            }
            _ => {}
        }
        visited
    }

    /// With a defect, the statistics are wrong.
    fn distort(&self, now: &State, stats: &mut Stats) {
        match self.shared.place.defect {
            Some(Defect::KeysCountPuts) => stats.keys = now.changes,
            Some(Defect::StatsDurableIsLast) => stats.durable_lsn = stats.last_lsn,
            Some(Defect::StatsLastIsDurable) => stats.last_lsn = stats.durable_lsn,
            Some(Defect::LiveBytesOfValues) => {
                stats.live_bytes = now.content.map.values().map(|value| value.len() as u64).sum();
            }
            Some(Defect::PoisonedSeemsDurable) if self.shared.health.is_poisoned() => {
                stats.durable_lsn = stats.last_lsn;
            }
            Some(Defect::UnflushedUntilClose) => stats.unflushed_bytes += now.bytes_written,
            Some(Defect::DiskBytesWithoutSnapshot) => stats.disk_bytes -= now.dumped_len.min(now.len),
            Some(Defect::DiskBytesNeverShrink) => stats.disk_bytes += now.bytes_written,
            Some(Defect::CountsLeftovers) => stats.leftover_files = 1,
            Some(Defect::MemoryGrows) => stats.memory_bytes += 100 * now.changes,
            Some(Defect::BytesWrittenIsFileLen) => stats.bytes_written = now.len,
            _ => {}
        }
    }
}

impl Engine for Reference {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let mut limits = self.shared.options.limits;
        limits.value_len_max -= usize::from(self.shared.has(Defect::ValueLimitOffByOne));
        let checked = self.shared.check_key(key).and_then(|()| limits.check_value(value));
        if checked.is_err() && self.shared.has(Defect::CountsRefusedPuts) {
            self.state().changes += 1;
        }
        checked?;
        let change = Change::Put { key: key.to_vec(), value: value.to_vec() };
        Ok(self.shared.change(&[&change])?.unwrap_or_else(|| self.last_lsn()))
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        match self.shared.check_present_key(key) {
            Err(_) if self.shared.has(Defect::LongDeleteIsAbsent) => return Ok(None),
            checked => checked?,
        }
        self.shared.change(&[&Change::Delete { key: key.to_vec() }])
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        let mut limits = self.shared.options.limits;
        limits.batch_bytes_max -= usize::from(self.shared.has(Defect::BatchLimitOffByOne));
        let effective: Batch = if self.shared.has(Defect::BatchLimitOfEffective) {
            batch.effective_changes().into_iter().cloned().collect()
        } else {
            batch.clone()
        };
        let checked = limits.check_batch_with(&effective, self.shared.present_key_len_max);
        if self.shared.has(Defect::PartialBatch) && checked.is_err() {
            let first: Vec<&Change> = batch.changes().iter().take(1).collect();
            self.shared.change(&first)?;
        }
        checked?;
        if self.shared.has(Defect::FirstOfBatchWins) {
            let reversed: Batch = batch.changes().iter().rev().cloned().collect();
            let first: Vec<Change> = reversed.effective_changes().into_iter().cloned().collect();
            return Ok(self
                .shared
                .change(&first.iter().collect::<Vec<_>>())?
                .unwrap_or_else(|| self.last_lsn()));
        }
        let changes = if self.shared.has(Defect::IdlePairTakesLsn) {
            batch.changes().iter().collect()
        } else {
            batch.effective_changes()
        };
        let idle = || {
            if self.shared.has(Defect::IdleBatchReturnsZero) { Lsn::ZERO } else { self.last_lsn() }
        };
        Ok(self.shared.change(&changes)?.unwrap_or_else(idle))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.shared.check_readable()?;
        self.shared.check_present_key(key)?;
        if self.shared.has(Defect::StaleWhenBusy) {
            return Ok(self.shared.get_stale(key));
        }
        let hides = |value: &&Vec<u8>| !(value.is_empty() && self.shared.has(Defect::GetHidesEmpty));
        Ok(self.state().content.map.get(key).filter(hides).map(|value| Value::from(value.as_slice())))
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        // Visits a copy, so that the callback may call the engine.
        let value = self.get(key)?;
        let is_skipped = |value: &Value| value.is_empty() && self.shared.has(Defect::ReadSkipsEmpty);
        if let Some(value) = value.as_ref().filter(|value| !is_skipped(value)) {
            self.shared.visits.during(Kind::Read, key, || visit(value));
        }
        Ok(value.is_some())
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        if keys.is_empty() && self.shared.has(Defect::IdleCallsAfterClose) {
            return Ok(());
        }
        if self.shared.is_closed_but(Defect::ReadManyAfterClose) {
            (0..keys.len()).for_each(|position| visit(position, None));
            return Ok(());
        }
        self.shared.check_readable()?;
        if !self.shared.has(Defect::ReadManyChecksLate) {
            keys.iter().try_for_each(|key| self.shared.check_present_key(key))?;
        }
        for (position, key) in self.visited(keys) {
            let value = self.get(key)?;
            let hides = |value: &Value| value.is_empty() && self.shared.has(Defect::ReadManySkipsEmpty);
            let value = value.filter(|value| !hides(value));
            // The defect: the value of the key before stays in the loop's variable.
            let stale = self.shared.has(Defect::ReadManyKeepsLast) && value.is_none() && position > 0;
            let before = if stale { keys.get(position - 1) } else { None };
            let before = before.map(|key| self.get(key)).transpose()?.flatten();
            let value = value.or(before);
            self.shared.visits.during(Kind::ReadMany, key, || visit(position, value.as_deref()));
        }
        Ok(())
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.shared.check_readable()?;
        if let Some(answer) = self.shared.scan_carelessly(visit) {
            return answer;
        }
        let structure = self.shared.share_structure();
        let mut map = self.state().content.map.clone();
        if self.shared.has(Defect::ScanSkips) {
            map.pop_last();
        }
        for (key, value) in &map {
            if self.shared.is_closed_but(Defect::ScanEndsAtClose) {
                break;
            }
            let answer = self.shared.visits.during(Kind::Scan, key, || visit(key, value));
            if answer.is_break() && !self.shared.has(Defect::ScanDoesNotBreak) {
                if self.shared.has(Defect::BreakKeepsLock) {
                    std::mem::forget(structure);
                }
                break;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<Lsn> {
        self.shared.wait_before_sync();
        if self.shared.syncs_together() {
            return self.shared.sync_together();
        }
        let mut state = self.state();
        if self.shared.is_closed_but(Defect::SyncAfterClose) {
            return Ok(Lsn::new(state.durable));
        }
        self.shared.health.check_writable()?;
        let was_idle = state.pending.records == 0;
        let dumped = state.dumped;
        if !was_idle && !self.shared.trusts_buffer(&state, Defect::SyncTrustsBuffer) {
            self.shared.dump(&mut state, Action::WriteAndSync)?;
        }
        if self.shared.has(Defect::SyncIsNoDump) {
            state.dumped = dumped;
        }
        let is_idle = was_idle && self.shared.has(Defect::IdleSyncReturnsZero);
        Ok(if is_idle { Lsn::ZERO } else { Lsn::new(state.durable) })
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        if self.shared.is_closed_but(Defect::WaitAfterClose) && lsn <= self.durable_lsn() {
            return Ok(());
        }
        self.shared.health.check_readable()?;
        if lsn > self.last_lsn() && self.shared.has(Defect::WaitBeyondLastIsOk) {
            return self.sync().map(drop);
        }
        if lsn > self.last_lsn() {
            return Err(Error::InvalidArgument(format!("LSN {lsn} was not given out yet")));
        }
        let lazy = self.shared.has(Defect::WaitsForOthers) && self.state().pending.records < 2
            || self.shared.trusts_buffer(&self.state(), Defect::WaitTrustsBuffer);
        if lsn > self.durable_lsn() && !lazy { self.sync().map(drop) } else { Ok(()) }
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let shared = &*self.shared;
        if shared.is_closed_but(Defect::PollAfterClose) {
            return Poll::Ready(Ok(()));
        }
        shared.health.check_readable()?;
        let is_early = lsn > self.last_lsn() && shared.has(Defect::PollBeyondLastIsReady);
        if is_early || shared.trusts_buffer(&self.state(), Defect::PollTrustsBuffer) {
            return Poll::Ready(Ok(()));
        }
        if shared.place.env.background == Background::Inline || lsn > self.last_lsn() {
            return Poll::Ready(self.wait_durable(lsn));
        }
        let check = || {
            if self.durable_lsn() >= lsn || shared.has(Defect::FutureDoesNotWait) {
                return Some(Ok(()));
            }
            shared.health.check_writable().err().map(Err)
        };
        let answer = if shared.has(Defect::WakerForgotten) {
            check().map_or(Poll::Pending, Poll::Ready)
        } else {
            shared.tasks.poll(lsn, cx, check)
        };
        if answer.is_pending() && shared.has(Defect::KeepsEveryWaker) {
            std::mem::forget(cx.waker().clone());
        }
        if answer.is_pending() && !shared.has(Defect::FutureAsksForNothing) {
            let mut state = self.state();
            state.wanted = state.wanted.max(lsn.get());
            shared.changed.notify_one();
        }
        answer
    }

    fn durable_lsn(&self) -> Lsn {
        let state = self.state();
        let goes_back = state.is_syncing && self.shared.has(Defect::DurableGoesBack);
        Lsn::new(if goes_back { state.durable_before } else { state.durable })
    }

    fn last_lsn(&self) -> Lsn {
        Lsn::new(self.state().content.last)
    }

    fn stats(&self) -> Stats {
        self.shared.wait_before_stats();
        let now = self.state();
        let mut stats = Stats::default();
        stats.keys = now.content.map.len() as u64;
        stats.live_bytes = live_bytes(&now.content.map);
        stats.memory_bytes = stats.live_bytes + now.unwritten.len() as u64;
        stats.unflushed_bytes = now.unwritten.len() as u64;
        stats.disk_bytes = now.len;
        stats.past_bytes = now.content.past.bytes();
        stats.changes = now.changes;
        if !(now.closed.is_some() && self.shared.has(Defect::StatsForgetAtClose)) {
            stats.last_lsn = Lsn::new(now.content.last);
            stats.durable_lsn = Lsn::new(now.durable);
        }
        (stats.dumps, stats.syncs, stats.bytes_written) = (now.dumps, now.syncs, now.bytes_written);
        stats.recovery = self.shared.recovery.clone();
        self.distort(&now, &mut stats);
        stats
    }

    fn close(&self) -> Result<()> {
        let is_second = self.shared.is_closing.swap(true, Ordering::AcqRel);
        if is_second && self.shared.has(Defect::SecondCloseIsEarly) {
            return Ok(());
        }
        let mut state = self.state();
        match &state.closed {
            Some(_) if self.shared.has(Defect::CloseForgetsFailure) => return Ok(()),
            Some(answer) => return answer.clone(),
            None => {}
        }
        let is_reader = self.shared.options.read_only;
        let mut result = if is_reader { Ok(()) } else { self.shared.health.check_writable() };
        if self.shared.has(Defect::CloseGivesAwayEarly) {
            self.shared.place.lock.release();
        }
        let trusts = self.shared.trusts_buffer(&state, Defect::CloseTrustsBuffer);
        let (waited, is_covered) = self.shared.close_carelessly(state);
        state = waited;
        if result.is_ok()
            && !is_reader
            && !is_covered
            && !trusts
            && !self.shared.has(Defect::CloseDoesNotDump)
        {
            result = if self.shared.has(Defect::ManualCloseDoesNotSync) {
                self.shared.dump(&mut state, Action::Write)
            } else {
                self.shared.dump_for_good(&mut state)
            };
        }
        if result.is_ok() || !self.shared.has(Defect::FailedCloseStaysOpen) {
            self.shared.health.close();
        }
        state.closed = Some(result.clone());
        if self.shared.has(Defect::UnlocksLate) {
            let shared = Arc::clone(&self.shared);
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                shared.place.lock.release();
            });
        } else if result.is_ok() || !self.shared.has(Defect::FailedCloseKeepsLock) {
            self.shared.place.lock.release();
        }
        self.shared.changed.notify_all();
        drop(state);
        self.shared.tasks.wake_all();
        let ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The ticker itself may run this close: a waker that it wakes may drop the last handle.
        let ticker = ticker.filter(|_| !self.shared.has(Defect::LeaksStore));
        if let Some(ticker) = ticker.filter(|ticker| ticker.thread().id() != thread::current().id()) {
            // The ticker panics only after a bug that a caller has seen, too.
            let _ = ticker.join();
        }
        result
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        let writes = Defect::CHECKPOINTS.iter().any(|defect| self.shared.has(*defect));
        writes.then_some(self)
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        Some(self)
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        self.shared.compacts_carelessly().then_some(self)
    }
}

impl Checkpoint for Reference {
    fn checkpoint(&self) -> Result<Lsn> {
        self.shared.health.check_writable()?;
        if self.shared.has(Defect::CheckpointNotDurable) {
            return Ok(self.last_lsn());
        }
        let lsn = self.sync()?;
        self.shared.compact(&mut self.state())?;
        Ok(lsn)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let loses = self.shared.has(Defect::DropLosesWithThreads)
            && self.shared.place.env.background == Background::Threads;
        if loses || self.shared.has(Defect::DropDoesNotSync) {
            self.drop_carelessly(loses);
        }
        if self.shared.has(Defect::DropSkipsWhenBusy) && self.shared.state.try_lock().is_err() {
            self.shared.place.lock.release();
            return;
        }
        // A drop cannot report a failure.
        let _ = self.close();
    }
}
