use super::{Health, NextAsk, PoisonOnPanic, Wake, WakeAllOnDrop, Wakers};
use crate::{Action, Clock, Decision, Lsn, Result};
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, Ordering};

/// The work that a background thread does for an engine: it dumps when the policy, or a task, asks.
///
/// [`Pacing::serve`] calls these functions with no lock held, all from one thread.
pub trait Dumper {
    /// The newest durable change.
    fn durable_lsn(&self) -> Lsn;

    /// The policy's answer for the visible changes at the time `now`; as a rule
    /// [`Progress::decide`](super::Progress::decide).
    fn decide(&self, now: Duration) -> Decision;

    /// Returns once the changes up to `lsn`, which are visible, are durable.
    ///
    /// # Errors
    /// The failure of the dump, which poisoned the engine.
    fn make_durable(&self, lsn: Lsn) -> Result<()>;

    /// Dumps all visible changes. `action` is [`Action::Write`] or [`Action::WriteAndSync`].
    ///
    /// # Errors
    /// As for [`make_durable`](Self::make_durable).
    fn dump(&self, action: Action) -> Result<()>;

    /// The thread is about to sleep until it is woken: the store may give back memory that it keeps
    /// for the next changes.
    fn before_rest(&self);
}

/// When an engine dumps in the background: the loop of its thread, and how callers wake it.
///
/// The thread asks the policy when a change or a task wakes it, when the time of the last answer
/// has passed, and after each dump. Between these it sleeps. A writer asks the policy after its
/// change, and [passes the answer on](Self::after_change): it wakes the thread only for a dump, or
/// where the thread would ask too late.
///
/// ```
/// use kv_core::parts::{Dumper, Health, Pacing, Position, Progress, Threads};
/// use kv_core::{Action, Clock, Decision, Lsn, MaxLogSize, Result, SystemClock};
/// use std::path::Path;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
///
/// /// An engine that counts changes of 10 bytes.
/// #[derive(Debug)]
/// struct Store {
///     visible: AtomicU64,
///     progress: Progress,
///     pacing: Pacing,
///     health: Health,
///     clock: SystemClock,
/// }
///
/// const POLICY: MaxLogSize = MaxLogSize::new(30);
///
/// impl Store {
///     fn end(&self) -> Position {
///         let changes = self.visible.load(Ordering::SeqCst);
///         Position { lsn: Lsn::new(changes), changes, bytes: 10 * changes }
///     }
///
///     fn change(&self) {
///         self.visible.fetch_add(1, Ordering::SeqCst);
///         self.progress.changed(&self.clock);
///         let now = self.progress.recent_time(self.end(), &self.clock);
///         self.pacing.after_change(now, self.progress.decide(&POLICY, self.end(), now));
///     }
/// }
///
/// impl Dumper for Store {
///     fn durable_lsn(&self) -> Lsn {
///         self.progress.durable_lsn()
///     }
///     fn decide(&self, now: Duration) -> Decision {
///         self.progress.decide(&POLICY, self.end(), now)
///     }
///     fn make_durable(&self, _lsn: Lsn) -> Result<()> {
///         self.dump(Action::WriteAndSync)
///     }
///     fn dump(&self, _action: Action) -> Result<()> {
///         self.progress.begin_sync();
///         let end = self.end();
///         // Here an engine writes and syncs its changes up to `end`.
///         self.progress.synced(end, self.clock.monotonic());
///         Ok(())
///     }
///     fn before_rest(&self) {}
/// }
///
/// let clock = SystemClock::new();
/// let store = Arc::new(Store {
///     visible: AtomicU64::new(0),
///     progress: Progress::new(Lsn::ZERO, clock.monotonic()),
///     pacing: Pacing::default(),
///     health: Health::default(),
///     clock,
/// });
/// let mut threads = Threads::of(Path::new("/data/store"));
/// let of_thread = Arc::clone(&store);
/// threads.start("example dumps", move || {
///     let store = &*of_thread;
///     store.pacing.serve(store, &store.clock, &store.health, Path::new("/data/store"));
/// })?;
/// (0..3).for_each(|_| store.change());
/// while store.durable_lsn() < Lsn::new(3) {
///     std::thread::yield_now();
/// }
/// store.pacing.stop();
/// threads.join();
/// # Ok::<(), kv_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Pacing {
    wake: Wake,
    /// When the thread asks the policy again by itself.
    next_ask: NextAsk,
    /// The tasks that wait for an LSN. The thread makes the highest of their LSNs durable even if
    /// the policy holds.
    tasks: Wakers,
    is_stopping: AtomicBool,
}

/// The sleep of the thread between two questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleep {
    Not,
    UntilWoken,
    AtMost(Duration),
}

/// Sleep after a dump that made nothing durable, if the policy then asks for another dump at once.
const REST: Duration = Duration::from_millis(1);

impl Pacing {
    /// The loop of the thread. It ends once the engine is [stopped](Self::stop) or poisoned; a
    /// panic poisons it. Then all tasks that wait are woken. `dir` is the store's, for errors.
    pub fn serve(&self, dumper: &impl Dumper, clock: &dyn Clock, health: &Health, dir: &Path) {
        let _watch = self.watch(health, dir);
        while !self.is_stopping() && !health.is_poisoned() {
            // The failure of a dump poisoned the engine.
            let Ok(sleep) = self.step(dumper, clock) else { return };
            match sleep {
                Sleep::Not => {}
                Sleep::UntilWoken => drop(self.wake.wait(None)),
                Sleep::AtMost(pause) => drop(self.wake.wait(Some(pause))),
            }
        }
    }

    /// Asks the policy, and dumps if it says so. Returns the sleep that follows.
    fn step(&self, dumper: &impl Dumper, clock: &dyn Clock) -> Result<Sleep> {
        self.next_ask.asking();
        let durable = dumper.durable_lsn();
        self.tasks.wake_up_to(durable);
        let wanted = self.tasks.wanted();
        if wanted > durable {
            self.next_ask.at_work();
            dumper.make_durable(wanted)?;
            return Ok(Sleep::Not);
        }
        let mut now = clock.monotonic();
        let mut decision = dumper.decide(now);
        if decision.action != Action::Hold {
            self.next_ask.at_work();
            dumper.dump(decision.action)?;
            if dumper.durable_lsn() > durable {
                return Ok(Sleep::Not);
            }
            // A writer during the dump did not wake the thread: it expects this question.
            self.next_ask.asking();
            now = clock.monotonic();
            decision = dumper.decide(now);
        }
        let pause = match decision.action {
            Action::Hold => decision.ask_again_in,
            Action::Write | Action::WriteAndSync => Some(REST),
        };
        if pause.is_none() {
            dumper.before_rest();
        }
        self.next_ask.asleep_until(pause.map(|pause| now.saturating_add(pause)));
        Ok(pause.map_or(Sleep::UntilWoken, Sleep::AtMost))
    }

    /// For any other thread of the engine: until the answer is dropped, a panic poisons the engine,
    /// and at its end all tasks that wait are woken.
    pub fn watch<'a>(&'a self, health: &'a Health, dir: &'a Path) -> ThreadWatch<'a> {
        ThreadWatch { _poisons: health.poison_on_panic(dir), _wakes: self.tasks.wake_all_on_drop() }
    }

    /// For a writer, with no lock held: passes on the policy's answer of the time `now`, which it
    /// asked for after its change.
    #[inline]
    pub fn after_change(&self, now: Duration, decision: Decision) {
        match decision {
            Decision { action: Action::Hold, ask_again_in: None } => {}
            Decision { action: Action::Hold, ask_again_in: Some(pause) } => {
                if !self.next_ask.asks_by(now.saturating_add(pause)) {
                    self.wake.wake();
                }
            }
            Decision { action: Action::Write | Action::WriteAndSync, .. } => self.wake.wake(),
        }
    }

    /// As [`Engine::poll_durable`](crate::Engine::poll_durable) of an LSN that was given out.
    /// `durable_lsn` returns the newest durable change. The thread makes `lsn` durable even if the
    /// policy holds.
    ///
    /// # Errors
    /// [`Error::Poisoned`](crate::Error::Poisoned), [`Error::Closed`](crate::Error::Closed).
    pub fn poll_durable(
        &self,
        lsn: Lsn,
        task: &mut Context<'_>,
        durable_lsn: impl Fn() -> Lsn,
        health: &Health,
    ) -> Poll<Result<()>> {
        let answer = self.tasks.poll_durable(lsn, task, durable_lsn, health);
        if answer.is_pending() {
            self.wake.wake();
        }
        answer
    }

    /// Wakes all tasks that wait, once the store is closed. Call it without a lock: a waker runs
    /// foreign code.
    pub fn wake_tasks(&self) {
        self.tasks.wake_all();
    }

    /// Makes [`serve`](Self::serve) return.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.wake.wake();
    }

    /// Whether the threads of the engine are to end. They see everything that came before
    /// [`stop`](Self::stop).
    pub fn is_stopping(&self) -> bool {
        // Acquire pairs with the Release in `stop`.
        self.is_stopping.load(Ordering::Acquire)
    }
}

/// Watches a thread of an engine. See [`Pacing::watch`].
#[derive(Debug)]
#[must_use = "it watches until it is dropped"]
pub struct ThreadWatch<'a> {
    // Dropped in this order: a task that is woken after a panic sees the engine poisoned.
    _poisons: PoisonOnPanic<'a>,
    _wakes: WakeAllOnDrop<'a>,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Error, ManualClock};
    use std::sync::atomic::{AtomicU32, AtomicU64};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::task::{Wake as WakeTask, Waker};
    use std::thread;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// An engine whose policy gives one answer while anything is pending, and another after a dump.
    #[derive(Debug)]
    struct Fake {
        visible: AtomicU64,
        durable: AtomicU64,
        answer: Mutex<Decision>,
        after_dump: Option<Decision>,
        calls: Mutex<Vec<&'static str>>,
        fails: bool,
    }

    impl Fake {
        fn new(answer: Decision) -> Self {
            let (visible, durable, calls) = (AtomicU64::new(1), AtomicU64::new(0), Mutex::default());
            Fake { visible, durable, answer: Mutex::new(answer), after_dump: None, calls, fails: false }
        }

        fn call(&self, name: &'static str) -> Result<()> {
            self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(name);
            if self.fails { Err(Error::Unsupported("on purpose")) } else { Ok(()) }
        }

        fn calls(&self) -> Vec<&'static str> {
            self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    impl Dumper for Fake {
        fn durable_lsn(&self) -> Lsn {
            Lsn::new(self.durable.load(Ordering::SeqCst))
        }
        fn decide(&self, _now: Duration) -> Decision {
            if self.visible.load(Ordering::SeqCst) == self.durable.load(Ordering::SeqCst) {
                return Decision::now(Action::Hold);
            }
            *self.answer.lock().unwrap_or_else(PoisonError::into_inner)
        }
        fn make_durable(&self, lsn: Lsn) -> Result<()> {
            self.call("make_durable")?;
            self.durable.store(lsn.get(), Ordering::SeqCst);
            Ok(())
        }
        fn dump(&self, action: Action) -> Result<()> {
            self.call(if action == Action::Write { "write" } else { "sync" })?;
            if action == Action::WriteAndSync {
                self.durable.store(self.visible.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            if let Some(answer) = self.after_dump {
                *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
            }
            Ok(())
        }
        fn before_rest(&self) {
            let _ = self.call("rest");
        }
    }

    const HOLD: Decision = Decision::now(Action::Hold);

    fn later(pause: Duration) -> Decision {
        Decision { action: Action::Hold, ask_again_in: Some(pause) }
    }

    fn want(pacing: &Pacing, fake: &Fake, lsn: u64) {
        let mut task = Context::from_waker(Waker::noop());
        let durable = || fake.durable_lsn();
        let answer = pacing.poll_durable(Lsn::new(lsn), &mut task, durable, &Health::default());
        assert!(answer.is_pending());
    }

    #[test]
    fn each_answer_leads_to_its_dump_and_its_sleep() {
        let write = Decision::now(Action::Write);
        let write_and_later = |pause| Decision { action: Action::Write, ask_again_in: Some(pause) };
        let table: [(Decision, &[&str], Sleep); 8] = [
            (HOLD, &["rest"], Sleep::UntilWoken),
            (later(MS(5)), &[], Sleep::AtMost(MS(5))),
            (Decision::now(Action::WriteAndSync), &["sync"], Sleep::Not),
            (Decision { action: Action::WriteAndSync, ..later(MS(5)) }, &["sync"], Sleep::Not),
            (write, &["write"], Sleep::AtMost(REST)),
            (write_and_later(MS(5)), &["write"], Sleep::AtMost(REST)),
            (write_and_later(MS(1) / 10), &["write"], Sleep::AtMost(REST)),
            (write_and_later(MS(0)), &["write"], Sleep::AtMost(REST)),
        ];
        for (answer, calls, sleep) in table {
            let (pacing, fake) = (Pacing::default(), Fake::new(answer));
            assert_eq!(pacing.step(&fake, &ManualClock::default()).unwrap(), sleep, "{answer:?}");
            assert_eq!(fake.calls(), calls, "{answer:?}");
        }
    }

    /// No writer wakes the thread while it dumps, so the answer of before the dump is too old.
    #[test]
    fn a_dump_that_makes_nothing_durable_leads_to_another_question() {
        let write = Decision { action: Action::Write, ask_again_in: Some(MS(900)) };
        let table: [(Decision, &[&str], Sleep); 4] = [
            (later(MS(5)), &["write"], Sleep::AtMost(MS(5))),
            (HOLD, &["write", "rest"], Sleep::UntilWoken),
            (write, &["write"], Sleep::AtMost(REST)),
            (Decision { action: Action::WriteAndSync, ..write }, &["write"], Sleep::AtMost(REST)),
        ];
        for (after_dump, calls, sleep) in table {
            let fake = Fake { after_dump: Some(after_dump), ..Fake::new(write) };
            let pacing = Pacing::default();
            assert_eq!(pacing.step(&fake, &ManualClock::default()).unwrap(), sleep, "{after_dump:?}");
            assert_eq!(fake.calls(), calls, "{after_dump:?}");
            let Sleep::AtMost(pause) = sleep else { continue };
            assert!(pacing.next_ask.asks_by(pause) && !pacing.next_ask.asks_by(pause / 2));
        }
    }

    #[test]
    fn a_task_gets_its_sync_even_if_the_policy_holds() {
        let (pacing, fake) = (Pacing::default(), Fake::new(later(MS(5))));
        want(&pacing, &fake, 1);
        assert!(pacing.wake.take(), "the thread is woken");
        assert_eq!(pacing.step(&fake, &ManualClock::default()).unwrap(), Sleep::Not);
        assert_eq!(pacing.step(&fake, &ManualClock::default()).unwrap(), Sleep::UntilWoken);
        assert_eq!(fake.calls(), ["make_durable", "rest"]);
    }

    #[test]
    fn a_writer_wakes_the_thread_for_a_dump_or_an_earlier_question() {
        let clock = ManualClock::default();
        let wakes = |sleep: Decision, decision| {
            let pacing = Pacing::default();
            pacing.step(&Fake::new(sleep), &clock).unwrap();
            pacing.after_change(MS(10), decision);
            pacing.wake.take()
        };
        assert!(!wakes(HOLD, HOLD) && !wakes(later(MS(30)), HOLD));
        assert!(wakes(HOLD, later(MS(20))), "the thread would not ask");
        assert!(!wakes(later(MS(30)), later(MS(20))), "it asks at the same time");
        assert!(wakes(later(MS(31)), later(MS(20))), "it would ask too late");
        for action in [Action::Write, Action::WriteAndSync] {
            assert!(wakes(later(MS(1)), Decision::now(action)));
        }
    }

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl WakeTask for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_thread_dumps_when_woken_and_ends_when_stopped() {
        let (pacing, fake, health) = (Pacing::default(), Fake::new(HOLD), Health::default());
        thread::scope(|scope| {
            let thread =
                scope.spawn(|| pacing.serve(&fake, &ManualClock::default(), &health, Path::new("d")));
            *fake.answer.lock().unwrap() = Decision::now(Action::WriteAndSync);
            for change in 2..200 {
                fake.visible.store(change, Ordering::SeqCst);
                pacing.after_change(MS(0), Decision::now(Action::WriteAndSync));
                while fake.durable_lsn().get() < change {
                    thread::yield_now();
                }
            }
            pacing.stop();
            thread.join().unwrap();
        });
        health.check_writable().unwrap();
    }

    #[test]
    fn a_failure_or_a_panic_ends_the_thread_and_wakes_the_tasks() {
        for panics in [false, true] {
            let (pacing, health) = (Pacing::default(), Health::default());
            let fake = Fake { fails: true, ..Fake::new(HOLD) };
            let counter = Arc::new(Counter::default());
            let waker = Waker::from(Arc::clone(&counter));
            let mut task = Context::from_waker(&waker);
            let durable = || fake.durable_lsn();
            assert!(pacing.poll_durable(Lsn::new(1), &mut task, durable, &health).is_pending());
            if panics {
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let _watch = pacing.watch(&health, Path::new("d"));
                    std::panic::resume_unwind(Box::new("on purpose"));
                }));
                assert!(ended.is_err() && health.is_poisoned());
            } else {
                pacing.serve(&fake, &ManualClock::default(), &health, Path::new("d"));
                assert_eq!(fake.calls(), ["make_durable"]);
            }
            assert_eq!(counter.0.load(Ordering::SeqCst), 1);
        }
    }
}

/// Every order of steps, and every value that the memory model lets a load see:
/// `RUSTFLAGS="--cfg loom" cargo test -p kv-core --release --lib model`.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::ManualClock;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    #[derive(Debug)]
    struct Store {
        visible: AtomicU64,
        durable: AtomicU64,
        pacing: Pacing,
    }

    impl Dumper for Store {
        fn durable_lsn(&self) -> Lsn {
            Lsn::new(self.durable.load(Ordering::Relaxed))
        }
        fn decide(&self, _now: Duration) -> Decision {
            let is_pending = self.visible.load(Ordering::Relaxed) > self.durable.load(Ordering::Relaxed);
            Decision::now(if is_pending { Action::WriteAndSync } else { Action::Hold })
        }
        fn make_durable(&self, _lsn: Lsn) -> Result<()> {
            self.dump(Action::WriteAndSync)
        }
        fn dump(&self, _action: Action) -> Result<()> {
            let visible = self.visible.load(Ordering::Relaxed);
            self.durable.store(visible, Ordering::Relaxed);
            if visible == 1 {
                self.pacing.stop();
            }
            Ok(())
        }
        fn before_rest(&self) {}
    }

    /// The thread ends once the change is durable. After a lost wake-up it sleeps forever, which
    /// loom reports.
    #[test]
    fn a_change_is_dumped_whenever_it_comes() {
        loom::model(|| {
            let (visible, durable) = (AtomicU64::new(0), AtomicU64::new(0));
            let store = Arc::new(Store { visible, durable, pacing: Pacing::default() });
            let of_writer = Arc::clone(&store);
            let writer = thread::spawn(move || {
                of_writer.visible.store(1, Ordering::Relaxed);
                of_writer.pacing.after_change(Duration::ZERO, of_writer.decide(Duration::ZERO));
            });
            let (clock, health) = (ManualClock::default(), Health::default());
            store.pacing.serve(&*store, &clock, &health, Path::new("d"));
            writer.join().unwrap();
        });
    }
}
