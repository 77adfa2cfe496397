//! The calls of the contract. An open store does all its I/O under the state's lock. No thread
//! holds the state's lock and the lock of `ticker` at the same time.

use super::Defect;
use super::state::{Shared, State, live_bytes};
use kv_core::{
    Action, Background, Batch, Change, Checkpoint, Compact, Engine, Error, Lsn, PointInTime, Result,
    ScanVisitor, Stats, Value,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The mutants' engine. See [the module](crate::reference).
#[derive(Debug)]
pub struct Reference {
    shared: Arc<Shared>,
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Engine for Reference {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        self.shared.check_key(key)?;
        self.shared.options.limits.check_value(value)?;
        let change = Change::Put { key: key.to_vec(), value: value.to_vec() };
        Ok(self.shared.change(&[&change])?.unwrap_or_default())
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        self.shared.check_present_key(key)?;
        self.shared.change(&[&Change::Delete { key: key.to_vec() }])
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        let checked = self.shared.options.limits.check_batch_with(batch, self.shared.present_key_len_max);
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
        Ok(self.shared.change(&batch.effective_changes())?.unwrap_or_else(|| self.last_lsn()))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.shared.check_readable()?;
        self.shared.check_present_key(key)?;
        if self.shared.has(Defect::StaleWhenBusy) {
            return Ok(self.shared.get_stale(key));
        }
        Ok(self.state().content.map.get(key).map(|value| Value::from(value.as_slice())))
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        // Visits a copy, so that the callback may call the engine.
        let value = self.get(key)?;
        if let Some(value) = &value {
            visit(value);
        }
        Ok(value.is_some())
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        keys.iter().try_for_each(|key| self.shared.check_present_key(key))?;
        for (position, key) in keys.iter().enumerate() {
            let value = self.get(key)?;
            // The defect: the value of the key before stays in the loop's variable.
            let stale = self.shared.has(Defect::ReadManyKeepsLast) && value.is_none() && position > 0;
            let before = if stale { keys.get(position - 1) } else { None };
            let before = before.map(|key| self.get(key)).transpose()?.flatten();
            visit(position, value.or(before).as_deref());
        }
        Ok(())
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.shared.check_readable()?;
        let mut map = self.state().content.map.clone();
        if self.shared.has(Defect::ScanSkips) {
            map.pop_last();
        }
        for (key, value) in &map {
            if visit(key, value).is_break() && !self.shared.has(Defect::ScanDoesNotBreak) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<Lsn> {
        let mut state = self.state();
        self.shared.health.check_writable()?;
        let dumped = state.dumped;
        if state.pending.records > 0 && !self.shared.trusts_buffer(&state, Defect::SyncTrustsBuffer) {
            self.shared.dump(&mut state, Action::WriteAndSync)?;
        }
        if self.shared.has(Defect::SyncIsNoDump) {
            state.dumped = dumped;
        }
        Ok(Lsn::new(state.durable))
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.shared.health.check_readable()?;
        if lsn > self.last_lsn() {
            return Err(Error::InvalidArgument(format!("LSN {lsn} was not given out yet")));
        }
        let lazy = self.shared.has(Defect::WaitsForOthers) && self.state().pending.records < 2
            || self.shared.trusts_buffer(&self.state(), Defect::WaitTrustsBuffer);
        if lsn > self.durable_lsn() && !lazy { self.sync().map(drop) } else { Ok(()) }
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let shared = &*self.shared;
        shared.health.check_readable()?;
        if shared.trusts_buffer(&self.state(), Defect::PollTrustsBuffer) {
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
        if answer.is_pending() && !shared.has(Defect::FutureAsksForNothing) {
            let mut state = self.state();
            state.wanted = state.wanted.max(lsn.get());
            shared.changed.notify_one();
        }
        answer
    }

    fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.state().durable)
    }

    fn last_lsn(&self) -> Lsn {
        Lsn::new(self.state().content.last)
    }

    fn stats(&self) -> Stats {
        let now = self.state();
        let mut stats = Stats::default();
        stats.keys = now.content.map.len() as u64;
        stats.live_bytes = live_bytes(&now.content.map);
        stats.memory_bytes = stats.live_bytes + now.unwritten.len() as u64;
        stats.unflushed_bytes = now.unwritten.len() as u64;
        stats.disk_bytes = now.len;
        stats.changes = now.changes;
        stats.last_lsn = Lsn::new(now.content.last);
        stats.durable_lsn = Lsn::new(now.durable);
        stats
    }

    fn close(&self) -> Result<()> {
        let mut state = self.state();
        match &state.closed {
            Some(_) if self.shared.has(Defect::CloseForgetsFailure) => return Ok(()),
            Some(answer) => return answer.clone(),
            None => {}
        }
        let is_reader = self.shared.options.read_only;
        let mut result = if is_reader { Ok(()) } else { self.shared.health.check_writable() };
        let trusts = self.shared.trusts_buffer(&state, Defect::CloseTrustsBuffer);
        if result.is_ok() && !is_reader && !self.shared.has(Defect::CloseDoesNotDump) && !trusts {
            result = self.shared.dump_for_good(&mut state);
        }
        self.shared.health.close();
        state.closed = Some(result.clone());
        if self.shared.has(Defect::UnlocksLate) {
            let shared = Arc::clone(&self.shared);
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                shared.place.lock.release();
            });
        } else {
            self.shared.place.lock.release();
        }
        self.shared.changed.notify_all();
        drop(state);
        self.shared.tasks.wake_all();
        let ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The ticker itself may run this close: a waker that it wakes may drop the last handle.
        if let Some(ticker) = ticker.filter(|ticker| ticker.thread().id() != thread::current().id()) {
            // The ticker panics only after a bug that a caller has seen, too.
            let _ = ticker.join();
        }
        result
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        None
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        None
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        None
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // A drop cannot report a failure.
        let _ = self.close();
    }
}
