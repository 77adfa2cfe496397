//! When memory that was taken away may be freed: once everybody who could have found it before has gone on.
//!
//! Readers pin themselves to an epoch, a number that only grows. What nobody finds any more is [deferred](defer); [`collect`]
//! ends the epoch in which it was, and frees it when nobody is pinned to that epoch or an older one. (Fraser, "Practical
//! lock-freedom", 2004; here with one grace period, as in McKenney and Slingwine's read-copy update, 1998.)
//!
//! # Invariants
//!
//! 1. What is deferred was taken away before, so that nobody who is pinned later finds it.
//! 2. Who reads the number after `collect` raised it sees everything that was taken away before.
//! 3. Who reads it before is pinned to an epoch that ends. Either `collect` sees that it is pinned; or its
//!    first look comes after the barrier in `collect`, and so sees everything that was taken away before.
//!
//! For 3, there has to be a barrier between a reader's saying that it is pinned and its first look. Readers are many and
//! collections few, so `collect` has the system put one into all running threads (`membarrier`); readers only keep the compiler
//! from exchanging the two. Where the system cannot do that, readers have a barrier of their own.

use parking_lot::Mutex;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence, fence};

use super::{ALL, Reader, current, give_back_transient};

/// The epoch that readers pin themselves to now.
static EPOCH: AtomicUsize = AtomicUsize::new(1);

/// Whether readers need a barrier of their own. Settled before there is any reader.
static READERS_FENCE: AtomicBool = AtomicBool::new(true);

/// What waits to be freed, in the order in which it came.
static DEFERRED: Mutex<Vec<Deferred>> = Mutex::new(Vec::new());

struct Deferred {
    /// The last epoch in which somebody may have found it; `None` while that goes on.
    epoch: Option<usize>,
    free: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What a reader tells of its being pinned.
#[derive(Debug, Default)]
pub(super) struct Pin {
    /// 0 while it is not.
    epoch: AtomicUsize,
    /// How many guards it has, counted from [`TRANSIENT`] when it is transient. Only the reader
    /// itself asks.
    guards: AtomicUsize,
}

/// What the guards of a transient reader are counted from: so an ordinary reader does not have to
/// ask which one it is, but for the second and later guards at a time.
const TRANSIENT: usize = 1 << (usize::BITS - 1);

impl Pin {
    /// Its thread gives the reader back with the last guard. There is none yet.
    pub(super) fn begin_transient(&self) {
        self.guards.store(TRANSIENT, Ordering::Relaxed);
    }

    /// Its last guard is gone.
    pub(super) fn end_transient(&self) {
        self.guards.store(0, Ordering::Relaxed);
        // Release: what it looked at came before.
        self.epoch.store(0, Ordering::Release);
    }

    #[cold]
    fn announce_transient(&self) {
        self.announce();
    }

    /// Says that the reader is pinned from now on.
    #[inline]
    fn announce(&self) {
        // Acquire: see invariant 2. Release: what an earlier guard of this thread looked at came before.
        self.epoch.store(EPOCH.load(Ordering::Acquire), Ordering::Release);
        if READERS_FENCE.load(Ordering::Relaxed) {
            fence(Ordering::SeqCst);
        } else {
            compiler_fence(Ordering::SeqCst);
        }
    }
}

/// Keeps what its thread finds from being freed.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(super) reader: &'static Reader,
    /// It speaks for its thread.
    not_send: PhantomData<*const ()>,
}

/// Pins this thread until the guard is dropped. Short: nothing at all is freed meanwhile.
#[inline]
pub(crate) fn pin() -> Guard {
    let reader = current();
    let guards = reader.pin.guards.load(Ordering::Relaxed);
    reader.pin.guards.store(guards + 1, Ordering::Relaxed);
    if guards == 0 {
        reader.pin.announce();
    } else if guards == TRANSIENT {
        reader.pin.announce_transient();
    }
    Guard { reader, not_send: PhantomData }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        let guards = self.reader.pin.guards.load(Ordering::Relaxed) - 1;
        self.reader.pin.guards.store(guards, Ordering::Relaxed);
        if guards == 0 {
            // Release: what it looked at came before.
            self.reader.pin.epoch.store(0, Ordering::Release);
        } else if guards == TRANSIENT {
            give_back_transient(self.reader);
        }
    }
}

/// Has `free` called by a later [`collect`], once every reader who is pinned now has gone on. What it
/// frees was taken away: see invariant 1.
pub(crate) fn defer(free: impl FnOnce() + Send + 'static) {
    DEFERRED.lock().push(Deferred { epoch: None, free: Box::new(free) });
}

/// Frees what nobody can look at any more. What remains is for another time. A caller who is pinned itself frees nothing.
pub(crate) fn collect() {
    // Not with the lock held: what is freed may take locks, and take its time.
    for deferred in take_free() {
        (deferred.free)();
    }
}

/// Takes out what may be freed.
fn take_free() -> Vec<Deferred> {
    let mut deferred = DEFERRED.lock();
    if deferred.is_empty() {
        return Vec::new();
    }
    // Release: see invariant 2; what is in the list was taken away before it came there.
    let ended = EPOCH.fetch_add(1, Ordering::AcqRel);
    if !barrier() {
        return Vec::new();
    }
    for one in deferred.iter_mut().filter(|one| one.epoch.is_none()) {
        one.epoch = Some(ended);
    }
    // Acquire: what is freed now comes after whatever its readers did.
    let pinned = ALL
        .lock()
        .iter()
        .map(|reader| reader.pin.epoch.load(Ordering::Acquire))
        .filter(|epoch| *epoch != 0)
        .min();
    let is_free =
        |one: &mut Deferred| one.epoch.is_some_and(|epoch| pinned.is_none_or(|pinned| pinned > epoch));
    deferred.extract_if(.., is_free).collect()
}

/// Settles who needs a barrier.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| READERS_FENCE.store(!system::register(), Ordering::Relaxed));
}

/// A barrier in every reader, or for readers who have one of their own. `false` when the system refused it.
fn barrier() -> bool {
    prepare();
    fence(Ordering::SeqCst);
    READERS_FENCE.load(Ordering::Relaxed) || system::barrier()
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{MembarrierCommand, membarrier};

    /// Whether barriers can be had from the system.
    pub(super) fn register() -> bool {
        membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
    }

    pub(super) fn barrier() -> bool {
        membarrier(MembarrierCommand::PrivateExpedited).is_ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn barrier() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicPtr;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::{Duration, Instant};

    /// Whether it is freed now. Other tests' threads are pinned as well, each for a moment.
    fn is_freed_soon(freed: &AtomicBool) -> bool {
        (0..2000).any(|_| {
            collect();
            thread::sleep(Duration::from_millis(1));
            freed.load(Ordering::Relaxed)
        })
    }

    fn defer_mark() -> Arc<AtomicBool> {
        let freed = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&freed);
        defer(move || mark.store(true, Ordering::Relaxed));
        freed
    }

    #[test]
    fn what_is_deferred_waits_for_all_guards_of_who_was_pinned_and_for_nobody_else() {
        let (to_reader, commands) = channel::<()>();
        let (to_test, done) = channel();
        let reader = thread::spawn(move || {
            let first = pin();
            let second = pin();
            to_test.send(()).unwrap();
            commands.recv().unwrap();
            drop(first);
            to_test.send(()).unwrap();
            commands.recv().unwrap();
            drop(second);
            let _later = pin();
            to_test.send(()).unwrap();
            commands.recv().unwrap();
        });
        done.recv().unwrap();
        let freed = defer_mark();
        for _ in 0..100 {
            collect();
            assert!(!freed.load(Ordering::Relaxed), "somebody is pinned with two guards");
        }
        to_reader.send(()).unwrap();
        done.recv().unwrap();
        for _ in 0..100 {
            collect();
            assert!(!freed.load(Ordering::Relaxed), "somebody is pinned with one guard left");
        }
        to_reader.send(()).unwrap();
        done.recv().unwrap();
        assert!(is_freed_soon(&freed), "who was pinned later cannot have found it");
        to_reader.send(()).unwrap();
        reader.join().unwrap();
    }

    #[test]
    fn what_comes_while_somebody_is_pinned_is_freed_later() {
        let guard = pin();
        let (first, second) = (defer_mark(), defer_mark());
        collect();
        assert!(!first.load(Ordering::Relaxed) && !second.load(Ordering::Relaxed));
        drop(guard);
        assert!(is_freed_soon(&first) && is_freed_soon(&second));
    }

    /// Readers look at what a writer replaces all the time: nobody ever finds what was freed. Before each look, a reader stores
    /// to much memory that its processor does not have at hand: its being pinned becomes visible only after that, and its
    /// looks come earlier, but for the barrier.
    #[test]
    fn nobody_finds_what_was_freed() {
        const DEAD: usize = 0;
        const STORES: usize = 48;
        // What is replaced in this test is marked dead in place of being freed, and kept to the end.
        let mut values = vec![Arc::new(AtomicUsize::new(1))];
        let place = Arc::new(AtomicPtr::new(Arc::as_ptr(&values[0]).cast_mut()));
        let stop = Arc::new(AtomicBool::new(false));
        let look = |seed, place: &AtomicPtr<AtomicUsize>, stop: &AtomicBool| {
            let memory: Vec<AtomicUsize> = (0..4 << 20).map(|_| AtomicUsize::new(0)).collect();
            let mut rng = fastrand::Rng::with_seed(seed);
            while !stop.load(Ordering::Relaxed) {
                let far: [&AtomicUsize; STORES] = std::array::from_fn(|_| &memory[rng.usize(..memory.len())]);
                for far in far {
                    far.store(1, Ordering::Relaxed);
                }
                let guard = pin();
                // SAFETY: `values` keeps it.
                let found = unsafe { &*place.load(Ordering::Acquire) };
                for _ in 0..200 {
                    assert_ne!(found.load(Ordering::Relaxed), DEAD);
                }
                drop(guard);
            }
        };
        let readers = [1, 2].map(|seed| {
            let (place, stop) = (Arc::clone(&place), Arc::clone(&stop));
            thread::spawn(move || look(seed, &place, &stop))
        });
        let start = Instant::now();
        for round in 1.. {
            let (old, new) = (Arc::clone(&values[values.len() - 1]), Arc::new(AtomicUsize::new(round)));
            place.store(Arc::as_ptr(&new).cast_mut(), Ordering::Release);
            values.push(new);
            defer(move || old.store(DEAD, Ordering::Relaxed));
            collect();
            if start.elapsed() > Duration::from_secs(1) || readers.iter().any(thread::JoinHandle::is_finished)
            {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        // Nobody looks any more when `values` goes.
        let ends = readers.map(thread::JoinHandle::join);
        assert!(ends.iter().all(Result::is_ok), "a reader found what was freed");
    }
}
