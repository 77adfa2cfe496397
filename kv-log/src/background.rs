//! Background work: one thread dumps the log when the policy says so, one makes spare heads, one compacts.
//!
//! In inline mode there are no threads: the same work is done by the caller, after its change.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use kv_core::{Acknowledge, Action, Background, Error, Lsn, NextAsk, Result, Wakers};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::compaction::Extent;
use crate::head::Position;
use crate::readers::collect;
use crate::store::Store;

/// How callers wake the workers.
#[derive(Debug)]
pub(crate) struct Signals {
    flush: Wake,
    spares: Wake,
    compact: Wake,
    /// When the flush thread will ask the policy again by itself.
    next_ask: NextAsk,
    /// The tasks that wait for a sync. The flush thread syncs up to what they want, whatever the
    /// policy says.
    tasks: Wakers,
    stopping: AtomicBool,
}

/// Wakes one worker; any number of calls before it looks are one.
#[derive(Debug)]
struct Wake {
    sender: Sender<()>,
    receiver: Receiver<()>,
}

impl Wake {
    fn new() -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        Wake { sender, receiver }
    }

    fn wake(&self) {
        match self.sender.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => unreachable!("the receiver lives in the same value"),
        }
    }

    /// Waits until woken, or for `timeout`; returns whether it was woken.
    fn wait(&self, timeout: Option<Duration>) -> bool {
        let woken = match timeout {
            Some(timeout) => self.receiver.recv_timeout(timeout),
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        debug_assert_ne!(woken, Err(RecvTimeoutError::Disconnected), "the sender lives in the same value");
        woken.is_ok()
    }

    /// Whether it was woken since it last waited.
    fn take(&self) -> bool {
        self.receiver.try_recv().is_ok()
    }
}

impl Signals {
    pub(crate) fn new() -> Self {
        let (flush, spares, compact) = (Wake::new(), Wake::new(), Wake::new());
        Signals {
            flush,
            spares,
            compact,
            next_ask: NextAsk::default(),
            tasks: Wakers::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// The policy wants to be asked at `time`: wakes the flush thread unless it will by then.
    #[inline]
    fn ask_at(&self, time: Duration) {
        if !self.next_ask.asks_by(time) {
            self.flush.wake();
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// The threads of an open store.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads, unless the store is in inline mode.
    pub(crate) fn start(store: &Arc<Store>) -> Result<Self> {
        if store.env.background == Background::Inline || store.options.read_only {
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
                .map_err(|error| Error::io("start a thread for", store.dir.path(), error));
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
        store.signals.stopping.store(true, Ordering::Release);
        store.signals.flush.wake();
        store.signals.spares.wake();
        store.signals.compact.wake();
        for thread in self.threads.drain(..) {
            // A worker that wakes a task may drop the last handle of the store with it, and so come
            // here itself.
            if thread.thread().id() == thread::current().id() {
                continue;
            }
            // A panic was turned into poison where it happened.
            let _ = thread.join();
        }
    }
}

/// What a worker does until the store closes.
type Work = fn(&Store);

/// Runs a worker; a panic poisons the store instead of going unnoticed.
fn run(store: &Store, work: Work) {
    // Dropped last: a task that is woken by a panic sees the store poisoned.
    let _wakes = store.signals.tasks.wake_all_on_drop();
    let _poison = store.health.poison_on_panic(store.dir.path());
    work(store);
}

/// Failures poison the store where they happen; then the worker has nothing left to do.
fn flush_loop(store: &Store) {
    let signals = &store.signals;
    while !signals.stopping() && !store.health.is_poisoned() {
        signals.next_ask.asking();
        let durable = store.progress.durable_lsn();
        signals.tasks.wake_up_to(durable);
        let wanted = signals.tasks.wanted();
        if wanted > durable {
            signals.next_ask.at_work();
            if store.make_durable(wanted).is_err() {
                return;
            }
            collect();
            continue;
        }
        let now = store.env.clock.monotonic();
        let (action, mut ask_again_in) = store.decide(store.end.position(), now);
        if action != Action::Hold {
            signals.next_ask.at_work();
            if store.flush(action).is_err() {
                return;
            }
            // Tables of the index that were replaced meanwhile.
            collect();
            if action == Action::WriteAndSync {
                continue;
            }
            // The changes are still pending; a policy that says `Write` again would spin here.
            ask_again_in = Some(ask_again_in.unwrap_or(MINIMAL_PAUSE));
        }
        if ask_again_in.is_none() {
            store.release_idle_memory();
        }
        signals.next_ask.asleep_until(ask_again_in.map(|pause| now.saturating_add(pause)));
        signals.flush.wait(ask_again_in);
    }
}

/// Between two dumps without sync.
const MINIMAL_PAUSE: Duration = Duration::from_millis(1);

/// Between two looks at memory that waits for readers to go on.
const RETIRED_PAUSE: Duration = Duration::from_millis(100);

/// A store that nobody has written to for so long is idle, and gives back the memory of spares.
const IDLE_PAUSE: Duration = Duration::from_millis(100);

/// Apart from the flush, whose syncs would keep writers waiting for a spare.
fn spares_loop(store: &Store) {
    let mut newest = store.end.last_lsn();
    loop {
        let look_again = store.spares.are_in_memory().then_some(IDLE_PAUSE);
        let is_due = store.signals.spares.wait(look_again);
        if store.signals.stopping() || is_due && store.make_spares().is_err() {
            return;
        }
        let before = std::mem::replace(&mut newest, store.end.last_lsn());
        if !is_due && newest == before {
            store.spares.release_memory();
        }
    }
}

fn compact_loop(store: &Store) {
    loop {
        // Memory that waits for readers is looked at again, since nobody tells when they have gone on.
        let look_again = (store.segments.retired_bytes() > 0).then_some(RETIRED_PAUSE);
        let is_due = store.signals.compact.wait(look_again);
        if store.signals.stopping() {
            return;
        }
        // Where a victim could not be read, it is tried again when the next segment is full: whoever reads its records
        // is told.
        if is_due && store.compact(Extent::All).is_err() && store.health.is_poisoned() {
            return;
        }
        collect();
        store.segments.release_held();
        store.release_idle_memory();
    }
}

impl Store {
    /// As [`Engine::poll_durable`](kv_core::Engine::poll_durable), of an LSN that was given out.
    pub(crate) fn poll_durable(&self, lsn: Lsn, task: &mut Context<'_>) -> Poll<Result<()>> {
        // No thread would wake the task.
        if self.env.background == Background::Inline || self.options.read_only {
            return Poll::Ready(self.make_durable(lsn).and_then(|()| self.compact_if_due()));
        }
        let durable_lsn = || self.progress.durable_lsn();
        let answer = self.signals.tasks.poll_durable(lsn, task, durable_lsn, &self.health);
        if answer.is_pending() {
            self.signals.flush.wake();
        }
        answer
    }

    /// Has the tasks look again that wait for a sync. Once the store is closed, and with no lock
    /// held.
    pub(crate) fn wake_tasks(&self) {
        self.signals.tasks.wake_all();
    }

    /// The head is filling up, or a spare was taken: another one shall be made.
    pub(crate) fn spares_due(&self) {
        if self.env.background == Background::Threads {
            self.signals.spares.wake();
        }
    }

    /// Segments were sealed, or may have become worth compacting.
    pub(crate) fn compaction_due(&self) {
        self.signals.compact.wake();
    }

    /// Gives back what is kept for heads to come, if nobody writes.
    fn release_idle_memory(&self) {
        if self.progress.unflushed_bytes(self.end.position()) == 0 {
            // Whatever waits for readers who are gone by now is freed first, since it would be kept next.
            collect();
            self.segments.trim();
        }
    }

    /// What follows the change with which the log came to end at `end`, outside all locks: the caller waits, or work is
    /// passed on.
    #[inline]
    pub(crate) fn after_change(&self, end: Position) -> Result<()> {
        if self.acknowledge == Acknowledge::WhenDurable {
            self.make_durable(end.lsn)?;
        }
        match self.env.background {
            Background::Threads => {
                let now = self.progress.recent_time(end.lsn, &*self.env.clock);
                match self.decide(end, now) {
                    (Action::Hold, None) => {}
                    (Action::Hold, Some(pause)) => self.signals.ask_at(now.saturating_add(pause)),
                    (Action::Write | Action::WriteAndSync, _) => self.signals.flush.wake(),
                }
                Ok(())
            }
            Background::Inline => {
                self.flush_if_due()?;
                self.compact_if_due()
            }
        }
    }

    /// Compacts if that was asked for. For inline mode.
    pub(crate) fn compact_if_due(&self) -> Result<()> {
        // What cannot be read is no failure of the change, as in the background.
        if self.env.background == Background::Inline
            && self.signals.compact.take()
            && let Err(error) = self.compact(Extent::All)
            && self.health.is_poisoned()
        {
            return Err(error);
        }
        Ok(())
    }
}
