//! The background workers: one thread flushes the log when the policy says so, one makes spares,
//! and one compacts.
//!
//! In inline mode there are no threads. The caller does the same work after its change.

use kv_core::parts::{Dumper, Threads};
use kv_core::{Action, Background, Decision, Lsn, Result};
use std::sync::Arc;
use std::time::Duration;

use crate::compaction::Extent;
use crate::reclaim::collect;
use crate::store::Store;

/// The work of a worker until the store closes. A panic poisons the store.
type Work = fn(&Store);

/// Starts the threads, if the store has workers.
pub(crate) fn start(store: &Arc<Store>) -> Result<Threads> {
    let mut threads = Threads::of(store.context.path());
    if store.warm_up.bytes_left() > 0 && store.context.env.background == Background::Threads {
        let of_thread = Arc::clone(store);
        // Without the thread, the segments stay cold.
        let _started = threads.start("kv-log warm-up", move || {
            let context = &of_thread.context;
            let _watch = context.signals.pacing.watch(&context.health, context.path());
            of_thread.warm_up.run(&of_thread.compactor);
        });
    }
    if !store.context.has_workers() {
        return Ok(threads);
    }
    for (name, work) in [
        ("kv-log flush", flush_loop as Work),
        ("kv-log spares", spares_loop),
        ("kv-log compact", compact_loop),
    ] {
        let of_thread = Arc::clone(store);
        if let Err(error) = threads.start(name, move || work(&of_thread)) {
            stop(store, &mut threads);
            return Err(error);
        }
    }
    Ok(threads)
}

/// Ends the threads, and waits for them.
pub(crate) fn stop(store: &Store, threads: &mut Threads) {
    store.context.signals.stop();
    threads.join();
}

fn flush_loop(store: &Store) {
    let context = &store.context;
    context.signals.pacing.serve(store, &*context.env.clock, &context.health, context.path());
}

/// The flush worker's side of the store.
impl Dumper for Store {
    fn durable_lsn(&self) -> Lsn {
        self.progress.durable_lsn()
    }

    fn decide(&self, now: Duration) -> Decision {
        self.flusher.decide(self.log.end.position(), now)
    }

    fn make_durable(&self, lsn: Lsn) -> Result<()> {
        self.flusher.make_durable(lsn)?;
        collect();
        Ok(())
    }

    fn dump(&self, action: Action) -> Result<()> {
        if action == Action::Write && self.log.slack.is_scarce() {
            self.flusher.flush_sealed()?;
        } else {
            self.flusher.flush(action)?;
        }
        // Frees index tables that were replaced meanwhile.
        collect();
        Ok(())
    }

    fn before_rest(&self) {
        self.release_idle_memory();
    }
}

/// The pause between two attempts to free memory that readers may still use.
const RETIRED_PAUSE: Duration = Duration::from_millis(100);

/// After this time without a change, the store gives back the memory of spares.
const IDLE_PAUSE: Duration = Duration::from_millis(100);

/// After this time without a change, the store is made small.
const TIDY_PAUSE: Duration = Duration::from_secs(1);

/// Spares have a thread of their own. On the flush worker, a writer that needs a spare would wait
/// for the syncs of a flush.
fn spares_loop(store: &Store) {
    let (context, spares) = (&store.context, &store.log.spares);
    let _watch = context.signals.pacing.watch(&context.health, context.path());
    let mut newest = store.log.end.last_lsn();
    loop {
        let look_again = spares.is_in_memory().then_some(IDLE_PAUSE);
        let is_due = context.signals.spares.wait(look_again);
        if context.signals.pacing.is_stopping() || is_due && spares.make(&store.log.end).is_err() {
            return;
        }
        let before = std::mem::replace(&mut newest, store.log.end.last_lsn());
        if !is_due && newest == before {
            spares.release_memory();
        }
        // Frees index tables that were replaced meanwhile, and what the spares gave up.
        collect();
    }
}

fn compact_loop(store: &Store) {
    let context = &store.context;
    let _watch = context.signals.pacing.watch(&context.health, context.path());
    // Whether the store was made small after the newest change that was seen. That change, and when
    // it was seen.
    let (mut is_tidy, mut newest) = (false, (store.log.end.last_lsn(), context.env.clock.monotonic()));
    // Whether that change was not written yet, so that the store stayed as it was.
    let mut waits_for_dump = false;
    loop {
        // Readers do not tell when they have finished, so retired memory is checked again.
        let may_come_free = store.bytes_in_use_by_readers() > 0;
        let look_again = if may_come_free { Some(RETIRED_PAUSE) } else { (!is_tidy).then_some(TIDY_PAUSE) };
        let is_due = context.signals.compact.wait(look_again);
        if context.signals.pacing.is_stopping() {
            return;
        }
        let (last, now) = (store.log.end.last_lsn(), context.env.clock.monotonic());
        if last != newest.0 || is_due && waits_for_dump {
            // Without a change, it is `tidy` that has sealed a segment.
            (is_tidy, waits_for_dump, newest) = (false, false, (last, now));
        } else if !is_due && !is_tidy && now.saturating_sub(newest.1) >= TIDY_PAUSE {
            waits_for_dump = !store.flusher.is_idle();
            // First, so that a change that comes meanwhile wakes this thread.
            context.signals.sleep_until_flush_above(if waits_for_dump { Lsn::ZERO } else { last });
            if store.tidy(last).is_err() && context.health.is_poisoned() {
                return;
            }
            is_tidy = store.log.end.last_lsn() == last;
        }
        // An unreadable victim is tried again after the next sealed segment. The readers of its
        // records get the error.
        if is_due && store.compactor.compact(Extent::Busy).is_err() && context.health.is_poisoned() {
            return;
        }
        if store.checkpointer.checkpoint_if_due(&store.compactor).is_err() {
            return;
        }
        collect();
        store.segments.release_limbo();
        store.release_idle_memory();
    }
}
