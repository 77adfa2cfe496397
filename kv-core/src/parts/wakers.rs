use super::Health;
use crate::{Lsn, Result};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(all(test, loom))]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(all(test, loom)))]
use std::sync::{Mutex, MutexGuard};

/// The tasks that wait for an LSN to become durable: the counterpart of a condition variable for
/// [`Engine::poll_durable`](crate::Engine::poll_durable). A part that engines share.
///
/// A poll looks at the state, registers its waker, and looks again ([`poll`](Self::poll)). The
/// engine changes the state and *then* wakes. Registering and waking take one lock, so no wake-up
/// is lost: a waker that registers before the engine wakes is woken, and one that registers later
/// sees the new state at its second look.
///
/// A task has one entry, however often it polls and however many LSNs it waits for: the entry keeps
/// the lowest of them, and the task registers for the rest when it polls again. A dropped future
/// leaves its entry until the next wake of its LSN.
///
/// ```
/// use kv_core::{Lsn, parts::Wakers};
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::task::{Context, Poll, Waker};
///
/// let (wakers, durable) = (Wakers::default(), AtomicU64::new(6));
/// let lsn = Lsn::new(7);
/// let check = || (durable.load(Ordering::Acquire) >= lsn.get()).then_some("durable");
/// let mut task = Context::from_waker(Waker::noop());
/// assert_eq!(wakers.poll(lsn, &mut task, check), Poll::Pending);
/// durable.store(7, Ordering::Release); // a sync
/// wakers.wake_up_to(lsn);
/// assert_eq!(wakers.poll(lsn, &mut task, check), Poll::Ready("durable"));
/// ```
#[derive(Default)]
pub struct Wakers {
    waiting: Mutex<HashMap<Task, Waiting>>,
    /// The highest LSN that a task asked a thread for.
    wanted: AtomicU64,
}

/// The two addresses that make up a waker: equal for wakers that wake the same task. The waker is
/// kept beside them, so no other task gets these addresses meanwhile.
type Task = (usize, usize);

struct Waiting {
    lsn: Lsn,
    waker: Waker,
}

impl fmt::Debug for Wakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakers").field("waiting", &self.lock().len()).finish()
    }
}

impl Wakers {
    /// Returns the answer of `check`, or registers the task for `lsn` and returns `Pending`. A
    /// caller that gets `Pending` then makes sure that something leads to a wake.
    pub fn poll<T>(&self, lsn: Lsn, task: &mut Context<'_>, check: impl Fn() -> Option<T>) -> Poll<T> {
        if let Some(answer) = check() {
            return Poll::Ready(answer);
        }
        self.register(lsn, task.waker());
        // The engine may have changed the state, and have woken, between the first look and the
        // registration.
        check().map_or(Poll::Pending, Poll::Ready)
    }

    /// As [`Engine::poll_durable`](crate::Engine::poll_durable) of an LSN that was given out, for
    /// an engine with a thread that makes changes durable. When the answer is `Pending`, the caller
    /// wakes that thread, which then finds the LSN in [`wanted`](Self::wanted).
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
        let answer = self.poll(lsn, task, || {
            if durable_lsn() >= lsn {
                return Some(Ok(()));
            }
            // Asked as the thread asks before it ends.
            if health.is_poisoned() {
                return Some(Err(health.poisoned()));
            }
            health.check_readable().err().map(Err)
        });
        if answer.is_pending() {
            self.wanted.fetch_max(lsn.get(), Ordering::Relaxed);
            // Pairs with the fence in `NextAsk::asking`. Either the caller's wake-up comes after
            // the thread's last one, or the thread, which took that one before it asks, sees the
            // LSN.
            fence(Ordering::SeqCst);
        }
        answer
    }

    /// The highest LSN that a task waits for, or once waited for. The thread loads it
    /// after [`NextAsk::asking`](super::NextAsk::asking): a later task wakes the thread once more.
    pub fn wanted(&self) -> Lsn {
        Lsn::new(self.wanted.load(Ordering::Relaxed))
    }

    /// Wakes all tasks when the answer is dropped: for a thread that serves them no more once it
    /// ends. They see the engine poisoned or closed, or wait for `close`.
    pub fn wake_all_on_drop(&self) -> WakeAllOnDrop<'_> {
        WakeAllOnDrop(self)
    }

    /// Wakes the tasks that wait for `lsn` or an LSN below. Call it without a lock: a waker runs
    /// foreign code.
    pub fn wake_up_to(&self, lsn: Lsn) {
        self.wake_if(|waiting| waiting.lsn <= lsn);
    }

    /// Wakes all tasks: the engine is poisoned or closed. Call it without a lock, as
    /// [`wake_up_to`](Self::wake_up_to).
    pub fn wake_all(&self) {
        self.wake_if(|_| true);
    }

    fn register(&self, lsn: Lsn, waker: &Waker) {
        let task = (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr());
        // Cloned, and dropped when it is not needed, outside the lock: both run foreign code.
        let waker = waker.clone();
        let mut waiting = self.lock();
        match waiting.entry(task) {
            Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                entry.lsn = entry.lsn.min(lsn);
            }
            Entry::Vacant(entry) => {
                entry.insert(Waiting { lsn, waker });
            }
        }
    }

    fn wake_if(&self, is_due: impl Fn(&Waiting) -> bool) {
        let due: Vec<Waiting> = {
            let mut waiting = self.lock();
            let due = waiting.extract_if(|_, waiting| is_due(waiting)).map(|(_, waiting)| waiting).collect();
            if waiting.is_empty() {
                // The memory of a crowd that is gone.
                waiting.shrink_to(CAPACITY_KEPT);
            }
            due
        };
        for waiting in due {
            // A waker that panics is the fault of its task, and must not keep the others asleep or
            // end the engine's thread.
            let _ = catch_unwind(AssertUnwindSafe(|| waiting.waker.wake()));
        }
    }

    /// Guards the entries. No other lock is taken while it is held.
    fn lock(&self) -> MutexGuard<'_, HashMap<Task, Waiting>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Wakes all tasks when it is dropped. See [`Wakers::wake_all_on_drop`].
#[derive(Debug)]
pub struct WakeAllOnDrop<'a>(&'a Wakers);

impl Drop for WakeAllOnDrop<'_> {
    fn drop(&mut self) {
        self.0.wake_all();
    }
}

/// Entries that the map keeps room for.
const CAPACITY_KEPT: usize = 1024;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Error;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn pending(wakers: &Wakers, lsn: u64, task: &Arc<Counter>) {
        let waker = Waker::from(Arc::clone(task));
        let answer = wakers.poll(Lsn::new(lsn), &mut Context::from_waker(&waker), || None::<()>);
        assert_eq!(answer, Poll::Pending);
    }

    fn woken(tasks: &[Arc<Counter>]) -> Vec<u32> {
        tasks.iter().map(|task| task.0.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn each_task_is_woken_once_when_its_lsn_is_reached() {
        let (wakers, tasks) = (Wakers::default(), [(); 3].map(|()| Arc::<Counter>::default()));
        for (lsn, task) in [10, 20, 30].into_iter().zip(&tasks) {
            pending(&wakers, lsn, task);
        }
        wakers.wake_up_to(Lsn::new(9));
        assert_eq!(woken(&tasks), [0, 0, 0]);
        wakers.wake_up_to(Lsn::new(20));
        wakers.wake_up_to(Lsn::new(20));
        assert_eq!(woken(&tasks), [1, 1, 0]);
        wakers.wake_all();
        assert_eq!(woken(&tasks), [1, 1, 1]);
    }

    #[test]
    fn a_task_that_polls_again_has_one_entry_with_its_lowest_lsn() {
        let (wakers, task) = (Wakers::default(), Arc::<Counter>::default());
        for lsn in [30, 20, 40] {
            (0..1000).for_each(|_| pending(&wakers, lsn, &task));
        }
        assert_eq!(wakers.lock().len(), 1);
        wakers.wake_up_to(Lsn::new(20));
        assert_eq!(woken(std::slice::from_ref(&task)), [1]);
        assert_eq!(wakers.lock().len(), 0);
        // The entry was the only other owner.
        assert_eq!(Arc::strong_count(&task), 1);
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }

    #[test]
    fn a_waker_that_panics_keeps_no_other_task_asleep() {
        let (wakers, tasks) = (Wakers::default(), [(); 8].map(|()| Arc::<Counter>::default()));
        for task in &tasks {
            pending(&wakers, 1, task);
            let panics = Waker::from(Arc::new(Panics));
            let answer = wakers.poll(Lsn::new(1), &mut Context::from_waker(&panics), || None::<()>);
            assert_eq!(answer, Poll::Pending);
        }
        wakers.wake_up_to(Lsn::new(1));
        assert_eq!(woken(&tasks), [1; 8]);
    }

    #[test]
    fn a_crowd_leaves_no_memory_behind() {
        let wakers = Wakers::default();
        let tasks: Vec<Arc<Counter>> = (0..10_000).map(|_| Arc::default()).collect();
        for task in &tasks {
            pending(&wakers, 1, task);
        }
        wakers.wake_up_to(Lsn::new(1));
        assert!(woken(&tasks).iter().all(|woken| *woken == 1));
        assert!(wakers.lock().capacity() < 10_000);
    }

    #[test]
    fn what_a_task_waits_for_is_wanted_and_a_failure_is_an_answer() {
        let (wakers, health) = (Wakers::default(), Health::default());
        let poll = |lsn, durable| {
            let mut task = Context::from_waker(Waker::noop());
            wakers.poll_durable(Lsn::new(lsn), &mut task, || Lsn::new(durable), &health)
        };
        assert!(matches!(poll(7, 7), Poll::Ready(Ok(()))) && wakers.wanted() == Lsn::ZERO);
        assert!(poll(9, 7).is_pending() && poll(8, 7).is_pending());
        assert_eq!(wakers.wanted(), Lsn::new(9));
        let _ = health.poison(Error::InvalidArgument("on purpose".to_owned()));
        assert!(matches!(poll(8, 7), Poll::Ready(Err(Error::Poisoned { .. }))));
        assert!(matches!(poll(7, 7), Poll::Ready(Ok(()))));
        health.close();
        assert!(matches!(poll(8, 7), Poll::Ready(Err(Error::Poisoned { .. }))));
    }

    #[test]
    fn a_thread_that_ends_wakes_all() {
        let (wakers, task) = (Wakers::default(), Arc::<Counter>::default());
        let thread = wakers.wake_all_on_drop();
        pending(&wakers, 1, &task);
        assert_eq!(woken(std::slice::from_ref(&task)), [0]);
        drop(thread);
        assert_eq!(woken(std::slice::from_ref(&task)), [1]);
    }

    #[test]
    fn what_came_between_the_look_and_the_registration_is_seen() {
        let (wakers, looks) = (Wakers::default(), AtomicU32::new(0));
        let check = || (looks.fetch_add(1, Ordering::Relaxed) == 1).then_some(7);
        let answer = wakers.poll(Lsn::new(1), &mut Context::from_waker(Waker::noop()), check);
        assert_eq!(answer, Poll::Ready(7));
    }
}

/// Every order of steps, and every value that the memory model lets a load see:
/// `RUSTFLAGS="--cfg loom" cargo test -p kv-core --release --lib model`.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use loom::thread;
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    #[test]
    fn the_task_sees_that_it_is_durable_or_it_is_woken() {
        loom::model(|| {
            let shared = Arc::new((Wakers::default(), AtomicU64::new(0)));
            let of_engine = Arc::clone(&shared);
            let engine = thread::spawn(move || {
                of_engine.1.store(1, Ordering::Relaxed);
                of_engine.0.wake_up_to(Lsn::new(1));
            });
            let woken = std::sync::Arc::new(Woken::default());
            let waker = Waker::from(std::sync::Arc::clone(&woken));
            let check = || (shared.1.load(Ordering::Relaxed) == 1).then_some(());
            let answer = shared.0.poll(Lsn::new(1), &mut Context::from_waker(&waker), check);
            engine.join().unwrap();
            assert!(answer.is_ready() || woken.0.load(Ordering::Acquire), "a lost wake-up");
        });
    }
}
