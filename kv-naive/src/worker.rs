//! The background thread: it takes snapshots when the policy says so.
//!
//! A writer asks the policy after its change. If the answer is a dump, it wakes the worker; if the answer is
//! a time, it wakes the worker unless that will ask by then: see [`NextAsk`].

use crossbeam_channel::{Receiver, Sender};
use kv_core::{Action, Background, Error, Lsn, NextAsk, Result, Wakers};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::store::Store;

/// How the worker is woken and stopped.
#[derive(Debug)]
pub(crate) struct Signal {
    /// Holds one wake-up: any number before the worker looks are one.
    sender: Sender<()>,
    receiver: Receiver<()>,
    /// When the worker will ask the policy again by itself.
    next_ask: NextAsk,
    /// The tasks that wait for a snapshot. The worker takes the one that they want, whatever the
    /// policy says.
    tasks: Wakers,
    stopping: AtomicBool,
}

impl Signal {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        Signal {
            sender,
            receiver,
            next_ask: NextAsk::default(),
            tasks: Wakers::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Wakes the worker.
    pub(crate) fn wake(&self) {
        // A full channel holds a wake-up already.
        let _ = self.sender.try_send(());
    }

    /// The policy wants to be asked at `time`: wakes the worker unless it will by then.
    #[inline]
    pub(crate) fn ask_at(&self, time: Duration) {
        if !self.next_ask.asks_by(time) {
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
        if store.env.background == Background::Inline || store.options.read_only {
            return Ok(Worker { thread: None });
        }
        let of_thread = Arc::clone(store);
        let thread = thread::Builder::new()
            .name("kv-naive snapshot".to_owned())
            .spawn(move || {
                // Dropped last: a task that is woken by a panic sees the store poisoned.
                let _wakes = of_thread.signal.tasks.wake_all_on_drop();
                let _poison = of_thread.health.poison_on_panic(of_thread.dir.path());
                of_thread.snapshot_when_due();
            })
            .map_err(|error| Error::io("start a thread for", store.dir.path(), error))?;
        Ok(Worker { thread: Some(thread) })
    }

    /// Ends the thread, and waits for it.
    pub(crate) fn stop(&mut self, store: &Store) {
        store.signal.stopping.store(true, Ordering::Release);
        store.signal.wake();
        // A worker that wakes a task may drop the last handle of the store with it, and so come
        // here itself.
        if let Some(thread) =
            self.thread.take().filter(|thread| thread.thread().id() != thread::current().id())
        {
            // A panic has poisoned the store.
            let _ = thread.join();
        }
    }
}

impl Store {
    /// As [`Engine::poll_durable`](kv_core::Engine::poll_durable), of an LSN that was given out.
    pub(crate) fn poll_durable(&self, lsn: Lsn, task: &mut Context<'_>) -> Poll<Result<()>> {
        // No thread would wake the task.
        if self.env.background == Background::Inline || self.options.read_only {
            return Poll::Ready(self.make_durable(lsn));
        }
        let durable_lsn = || self.progress.durable_lsn();
        let answer = self.signal.tasks.poll_durable(lsn, task, durable_lsn, &self.health);
        if answer.is_pending() {
            self.signal.wake();
        }
        answer
    }

    /// Has the tasks look again that wait for a snapshot. Once the store is closed, and with no
    /// lock held.
    pub(crate) fn wake_tasks(&self) {
        self.signal.tasks.wake_all();
    }

    /// A failed snapshot poisons the store where it fails; then nothing is left to do.
    fn snapshot_when_due(&self) {
        let signal = &self.signal;
        while !signal.stopping() && !self.health.is_poisoned() {
            signal.next_ask.asking();
            let durable = self.progress.durable_lsn();
            signal.tasks.wake_up_to(durable);
            let now = self.env.clock.monotonic();
            match if signal.tasks.wanted() > durable {
                (Action::WriteAndSync, None)
            } else {
                self.decide(now)
            } {
                (Action::Write | Action::WriteAndSync, _) => {
                    signal.next_ask.at_work();
                    let _ = self.make_durable(self.table.last_lsn());
                }
                (Action::Hold, Some(pause)) => {
                    signal.next_ask.asleep_until(Some(now.saturating_add(pause)));
                    let _ = signal.receiver.recv_timeout(pause);
                }
                (Action::Hold, None) => {
                    let _ = signal.receiver.recv();
                }
            }
        }
    }
}
