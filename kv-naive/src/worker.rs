//! The background thread: it takes snapshots when the policy says so.
//!
//! A writer asks the policy after its change. If the answer is a dump, it wakes the worker; if the answer is
//! a time, it wakes the worker unless that will ask by then. No wake-up is lost: the worker says
//! that it will never ask again, *then* asks the policy, and then says when it will; a writer makes its
//! change and *then* looks at that. All four are sequentially consistent, so the worker
//! finds the change or the writer wakes it.

use crossbeam_channel::{Receiver, Sender};
use kv_core::{Action, Background, Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::store::Store;

/// How the worker is woken and stopped.
#[derive(Debug)]
pub(crate) struct Signal {
    /// Holds one wake-up: any number before the worker looks are one.
    sender: Sender<()>,
    receiver: Receiver<()>,
    /// When the worker will ask the policy again by itself, nanoseconds of the monotonic clock.
    asks_again_ns: AtomicU64,
    stopping: AtomicBool,
}

/// The worker will not ask again unless it is woken.
const NEVER: u64 = u64::MAX;

fn to_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1)
}

impl Signal {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let (asks_again_ns, stopping) = (AtomicU64::new(NEVER), AtomicBool::new(false));
        Signal { sender, receiver, asks_again_ns, stopping }
    }

    /// Wakes the worker.
    pub(crate) fn wake(&self) {
        // A full channel holds a wake-up already.
        let _ = self.sender.try_send(());
    }

    /// The policy wants to be asked at `time`: wakes the worker unless it will by then.
    #[inline]
    pub(crate) fn ask_at(&self, time: Duration) {
        if to_ns(time) < self.asks_again_ns.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// The thread of an open store; none in inline mode.
#[derive(Debug)]
pub(crate) struct Worker {
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread. It shares the store, not the engine: so dropping the engine can stop it.
    pub(crate) fn start(store: &Arc<Store>) -> Result<Self> {
        if store.env.background == Background::Inline {
            return Ok(Worker { thread: None });
        }
        let of_thread = Arc::clone(store);
        let thread = thread::Builder::new()
            .name("kv-naive snapshot".to_owned())
            .spawn(move || {
                let _poison = of_thread.health.poison_on_panic(&of_thread.dir);
                of_thread.snapshot_when_due();
            })
            .map_err(|error| Error::io("start a thread for", &store.dir, error))?;
        Ok(Worker { thread: Some(thread) })
    }

    /// Ends the thread, and waits for it.
    pub(crate) fn stop(self, store: &Store) {
        store.signal.stopping.store(true, Ordering::Release);
        store.signal.wake();
        if let Some(thread) = self.thread {
            // A panic has poisoned the store.
            let _ = thread.join();
        }
    }
}

impl Store {
    /// A failed snapshot poisons the store where it fails; then nothing is left to do.
    fn snapshot_when_due(&self) {
        let signal = &self.signal;
        while !signal.stopping() && !self.health.is_poisoned() {
            signal.asks_again_ns.store(NEVER, Ordering::SeqCst);
            let now = self.env.clock.monotonic();
            match self.decide(now) {
                (Action::Write | Action::WriteAndSync, _) => {
                    // Whatever changes meanwhile, it will ask.
                    signal.asks_again_ns.store(0, Ordering::SeqCst);
                    let _ = self.make_durable(self.table.last_lsn());
                }
                (Action::Hold, Some(pause)) => {
                    signal.asks_again_ns.store(to_ns(now.saturating_add(pause)), Ordering::SeqCst);
                    let _ = signal.receiver.recv_timeout(pause);
                }
                (Action::Hold, None) => {
                    let _ = signal.receiver.recv();
                }
            }
        }
    }
}
