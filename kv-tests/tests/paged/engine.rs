//! The contract's methods.

use super::commit::Store;
use super::defect::Defect;
use kv_core::parts::{Life, Threads};
use kv_core::{
    Batch, Change, Checkpoint, Compact, CompactionReport, Engine, Error, Lsn, PointInTime, ProcessSafety,
    Result, ScanVisitor, Stats, Value,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// An open store and its thread.
#[derive(Debug)]
pub(crate) struct Paged {
    store: Arc<Store>,
    life: Life<Threads>,
}

impl Paged {
    pub(crate) fn start(store: Store) -> Result<Self> {
        let mut threads = Threads::of(&store.path);
        let store = Arc::new(store);
        if store.has_thread() {
            let of_thread = Arc::clone(&store);
            let started = threads.start("paged dumps", move || {
                let store = &*of_thread;
                store.pacing.serve(store, &*store.env.clock, &store.health, &store.path);
            });
            started.inspect_err(|_| store.release())?;
        }
        Ok(Paged { store, life: Life::new(threads) })
    }

    fn last(&self) -> u64 {
        let broken = self.store.broken;
        if broken.is(Defect::LastLsnBeforeVisible) || broken.is(Defect::LastLsnAfterVisible) {
            return self.store.scratch.published();
        }
        self.store.view().last_lsn
    }
}

impl Engine for Paged {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        self.store.health.check_writable()?;
        self.store.options.limits.check_key(key)?;
        self.store.options.limits.check_value(value)?;
        let change = Change::Put { key: key.to_vec(), value: value.to_vec() };
        Ok(self.store.change(&[&change], false)?.unwrap_or_else(|| self.last_lsn()))
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        self.store.health.check_writable()?;
        self.store.check_key(key)?;
        let lsn = self.store.change(&[&Change::Delete { key: key.to_vec() }], false)?;
        let tells = self.store.broken.is(Defect::AbsentDeleteAnswersLsn);
        Ok(lsn.or_else(|| tells.then(|| self.last_lsn())))
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        let broken = self.store.broken;
        self.store.health.check_writable()?;
        if broken.is(Defect::BadBatchAppliedInPart) {
            for change in batch.changes() {
                let single: Batch = std::iter::once(change.clone()).collect();
                self.store.check_batch(&single).inspect_err(|_| {
                    let _ = self.store.change(&batch.changes().iter().take(1).collect::<Vec<_>>(), true);
                })?;
            }
        }
        self.store.check_batch(batch)?;
        let changes = if broken.is(Defect::BatchDeleteMissesOwnPut) {
            batch.changes().iter().collect()
        } else if broken.is(Defect::FirstOfRepeatedKeysWins) {
            let is_first = |(at, change): &(usize, &Change)| {
                batch.changes().iter().take(*at).all(|before| before.key() != change.key())
            };
            batch.changes().iter().enumerate().filter(is_first).map(|(_, change)| change).collect()
        } else {
            batch.effective_changes()
        };
        let lsn = self.store.change(&changes, true)?;
        let zero = broken.is(Defect::EmptyBatchAnswersZero);
        Ok(lsn.unwrap_or_else(|| if zero { Lsn::ZERO } else { self.last_lsn() }))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.store.get(key)
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.store.read(key, visit)
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.store.health.check_readable()?;
        self.store.read_many(keys, visit)
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.store.scan(visit)
    }

    fn sync(&self) -> Result<Lsn> {
        let is_idle = || self.durable_lsn() >= self.last_lsn() && self.store.health.is_poisoned();
        if self.store.broken.is(Defect::IdleSyncIgnoresPoison) && is_idle() {
            return self.store.health.check_readable().map(|()| self.durable_lsn());
        }
        self.store.health.check_writable()?;
        let before = self.durable_lsn();
        self.store.make_all_durable()?;
        if self.store.broken.is(Defect::AsksWhenIdle) {
            let _ = self.store.decide(self.store.env.clock.monotonic());
        }
        let answers_old = self.store.broken.is(Defect::SyncAnswersOldLsn);
        Ok(if answers_old { before } else { self.durable_lsn() })
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        let broken = self.store.broken;
        let is_trusted = broken.is(Defect::WaitTrustsEmptyBuffer)
            && lsn <= self.last_lsn()
            && !self.store.health.is_poisoned()
            && self.store.progress.unflushed_bytes(self.store.position()) == 0;
        if is_trusted || (broken.is(Defect::FutureLsnIsDurable) && lsn > self.last_lsn()) {
            return self.store.health.check_readable();
        }
        self.store.health.check_wait(lsn, self.last_lsn())?;
        self.store.make_durable(lsn)
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Err(error) = self.store.health.check_wait(lsn, self.last_lsn()) {
            return Poll::Ready(Err(error));
        }
        if !self.store.has_thread() {
            return Poll::Ready(self.store.make_durable(lsn));
        }
        let store = &*self.store;
        store.pacing.poll_durable(lsn, cx, || store.progress.durable_lsn(), &store.health)
    }

    fn durable_lsn(&self) -> Lsn {
        self.store.scratch.shown_durable(self.store.progress.durable_lsn())
    }

    fn last_lsn(&self) -> Lsn {
        Lsn::new(self.last())
    }

    fn stats(&self) -> Stats {
        let (store, mut stats) = (&*self.store, Stats::default());
        if store.broken.is(Defect::StatsEmptyAfterClose) && store.health.check_readable().is_err() {
            return stats;
        }
        store.progress.fill(&mut stats, || store.position());
        if store.broken.is(Defect::StatsDurableIsLast) {
            stats.durable_lsn = stats.last_lsn;
        }
        if store.broken.is(Defect::ChangesCountRecovered) {
            stats.changes += store.recovery.records;
        }
        if store.is_process_safe && !store.options.read_only {
            stats.process_safety = ProcessSafety::Safe;
        }
        let view = store.view();
        (stats.keys, stats.live_bytes) = (view.keys, view.live_bytes);
        let counter = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        stats.dumps = counter(&store.counters.dumps);
        stats.syncs = counter(&store.counters.syncs);
        stats.bytes_written = counter(&store.counters.bytes_written);
        stats.disk_bytes = counter(&store.counters.disk_bytes);
        stats.leftover_files = counter(&store.counters.leftover_files);
        stats.compactions = counter(&store.counters.generations);
        stats.recovery = store.recovery.clone();
        stats
    }

    fn close(&self) -> Result<()> {
        self.store.health.check_process()?;
        let broken = self.store.broken;
        let is_again = self.store.health.check_readable().is_err();
        if is_again && broken.is(Defect::SecondCloseFails) {
            return Err(Error::Closed);
        }
        let answer = self.life.close(|threads| {
            if !broken.is(Defect::ThreadOutlivesClose) {
                self.store.pacing.stop();
                threads.join();
            }
            let answer = self.store.close();
            if !broken.is(Defect::CloseWakesNoTask) {
                self.store.pacing.wake_tasks();
            }
            answer
        });
        if is_again && broken.is(Defect::SecondCloseForgetsFailure) { Ok(()) } else { answer }
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        None
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        None
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        Some(self)
    }
}

impl Compact for Paged {
    fn compact(&self) -> Result<CompactionReport> {
        self.store.compact()
    }
}

impl Drop for Paged {
    fn drop(&mut self) {
        // In a forked child there is no thread, and the files are the parent's.
        if self.store.health.check_process().is_err() {
            self.life.forget();
            return;
        }
        if self.store.broken.is(Defect::DropLosesChanges) {
            self.store.pacing.stop();
            self.store.release();
        }
        let _ = self.close();
    }
}
