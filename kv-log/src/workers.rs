//! The background workers: one thread flushes the log when the policy says so, one makes spares,
//! and one compacts.
//!
//! In inline mode there are no threads. The caller does the same work after its change.

use kv_core::{Action, Background, Error, Result};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::compaction::Extent;
use crate::reclaim::collect;
use crate::store::Store;

/// The threads of an open store.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads, unless the store is in inline mode.
    pub(crate) fn start(store: &Arc<Store>) -> Result<Self> {
        if store.context.env.background == Background::Inline || store.context.options.read_only {
            return Ok(Workers::default());
        }
        let mut workers = Workers::default();
        for (name, work) in [
            ("kv-log flush", flush_loop as Work),
            ("kv-log spares", spares_loop),
            ("kv-log compact", compact_loop),
        ] {
            let of_thread = Arc::clone(store);
            let thread = thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || run(&of_thread, work))
                .map_err(|error| Error::io("start a thread for", store.context.path(), error));
            match thread {
                Ok(thread) => workers.threads.push(thread),
                Err(error) => {
                    workers.stop(store);
                    return Err(error);
                }
            }
        }
        Ok(workers)
    }

    /// Ends the threads, and waits for them.
    pub(crate) fn stop(&mut self, store: &Store) {
        store.context.signals.stop();
        for thread in self.threads.drain(..) {
            // A worker that wakes a task may drop the last handle of the store, and then calls this
            // function itself.
            if thread.thread().id() == thread::current().id() {
                continue;
            }
            // A panic of the worker has poisoned the store.
            let _ = thread.join();
        }
    }
}

/// The work of a worker until the store closes.
type Work = fn(&Store);

/// Runs a worker. A panic poisons the store.
fn run(store: &Store, work: Work) {
    // Dropped last: a task that a panic wakes sees the poison.
    let _wakes = store.context.signals.tasks.wake_all_on_drop();
    let _poison = store.context.health.poison_on_panic(store.context.path());
    work(store);
}

/// Ends when the store stops or is poisoned. A failed flush poisons it.
fn flush_loop(store: &Store) {
    let signals = &store.context.signals;
    while !signals.stopping() && !store.context.health.is_poisoned() {
        signals.next_ask.asking();
        let durable = store.progress.durable_lsn();
        signals.tasks.wake_up_to(durable);
        let wanted = signals.tasks.wanted();
        if wanted > durable {
            signals.next_ask.at_work();
            if store.flusher.make_durable(wanted).is_err() {
                return;
            }
            collect();
            continue;
        }
        let now = store.context.env.clock.monotonic();
        let (action, mut ask_again_in) = store.flusher.decide(store.log.end.position(), now);
        if action != Action::Hold {
            signals.next_ask.at_work();
            if store.flusher.flush(action).is_err() {
                return;
            }
            // Frees index tables that were replaced meanwhile.
            collect();
            if action == Action::WriteAndSync {
                continue;
            }
            // The changes are still pending. Without a pause, a policy that answers `Write` again
            // would spin.
            ask_again_in = Some(ask_again_in.unwrap_or(MINIMAL_PAUSE));
        }
        if ask_again_in.is_none() {
            store.release_idle_memory();
        }
        signals.next_ask.asleep_until(ask_again_in.map(|pause| now.saturating_add(pause)));
        signals.flush.wait(ask_again_in);
    }
}

/// The pause between two dumps without a sync.
const MINIMAL_PAUSE: Duration = Duration::from_millis(1);

/// The pause between two attempts to free memory that readers may still use.
const RETIRED_PAUSE: Duration = Duration::from_millis(100);

/// After this time without a change, the store gives back the memory of spares.
const IDLE_PAUSE: Duration = Duration::from_millis(100);

/// A thread of its own: the syncs of a flush would keep writers waiting for a spare.
fn spares_loop(store: &Store) {
    let (signals, spares) = (&store.context.signals, &store.log.spares);
    let mut newest = store.log.end.last_lsn();
    loop {
        let look_again = spares.are_in_memory().then_some(IDLE_PAUSE);
        let is_due = signals.spares.wait(look_again);
        if signals.stopping() || is_due && spares.make(&store.log.end).is_err() {
            return;
        }
        let before = std::mem::replace(&mut newest, store.log.end.last_lsn());
        if !is_due && newest == before {
            spares.release_memory();
        }
    }
}

fn compact_loop(store: &Store) {
    let signals = &store.context.signals;
    loop {
        // Readers do not tell when they have finished, so retired memory is checked again.
        let look_again = (store.segments.retired_bytes() > 0).then_some(RETIRED_PAUSE);
        let is_due = signals.compact.wait(look_again);
        if signals.stopping() {
            return;
        }
        // An unreadable victim is tried again after the next sealed segment. The readers of its
        // records get the error.
        if is_due && store.compactor.compact(Extent::All).is_err() && store.context.health.is_poisoned() {
            return;
        }
        collect();
        store.segments.release_held();
        store.release_idle_memory();
    }
}
