//! Epochs: memory that was unlinked may be freed once every reader that may have found it has
//! unpinned.
//!
//! A reader pins itself to the current epoch, a number that only grows. A thread unlinks memory,
//! and [defers](defer) its release. [`collect`] ends the epoch of the deferral, and frees the
//! memory when no reader is pinned to that epoch or an older one. (Fraser, "Practical
//! lock-freedom", 2004; here with one grace period, as in McKenney and Slingwine's read-copy
//! update, 1998.)
//!
//! # Invariants
//!
//! 1. Memory is unlinked before its release is deferred. So no reader that pins itself later finds
//!    it.
//! 2. A reader that loads the epoch after `collect` raised it sees every earlier unlinking.
//! 3. A reader that loads the epoch before that is pinned to an epoch that ends. Either `collect`
//!    sees that the reader is in the list and pinned. Or the reader's first look comes after the
//!    barrier in `collect`, and so it sees every earlier unlinking.
//!
//! Invariant 3 needs a barrier between a reader's announcement and its first look: see
//! [`barrier`].

use kv_core::parts::PerProcess;
use parking_lot::Mutex;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::barrier;
use super::reader::{Pin, ReaderState, TRANSIENT, all, current, give_back_transient};

/// The current epoch.
static EPOCH: AtomicUsize = AtomicUsize::new(1);

/// Deferred releases, in the order of their deferral. Those of a parent process free memory of
/// stores that the child must not use, so they stay where they are.
static DEFERRED: PerProcess<Mutex<Vec<Deferred>>> = PerProcess::new();

struct Deferred {
    /// The last epoch in which a reader may have found the memory. `None` until that epoch ends.
    epoch: Option<usize>,
    free: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Announces that the reader is pinned from now on.
#[inline]
fn announce(pin: &Pin) {
    // Acquire pairs with the Release in `take_free`: see invariant 2. Release pairs with the
    // Acquire there: the accesses under an earlier guard of this thread happened before.
    pin.epoch.store(EPOCH.load(Ordering::Acquire), Ordering::Release);
    barrier::of_reader();
}

#[cold]
fn announce_transient(pin: &Pin) {
    announce(pin);
}

/// Pins its thread: memory that the thread finds stays while the guard lives.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(super) reader: &'static ReaderState,
    /// The pin is the thread's, so a guard must not move to another thread.
    not_send: PhantomData<*const ()>,
}

/// Pins this thread until the guard is dropped. Keep it short: no memory at all is freed meanwhile.
#[inline]
pub(crate) fn pin() -> Guard {
    let reader = current();
    let guards = reader.pin.guards.load(Ordering::Relaxed);
    reader.pin.guards.store(guards + 1, Ordering::Relaxed);
    if guards == 0 {
        announce(&reader.pin);
    } else if guards == TRANSIENT {
        announce_transient(&reader.pin);
    }
    Guard { reader, not_send: PhantomData }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        let guards = self.reader.pin.guards.load(Ordering::Relaxed) - 1;
        self.reader.pin.guards.store(guards, Ordering::Relaxed);
        if guards == 0 {
            // Release pairs with the Acquire in `take_free`: the reader's accesses happened before.
            self.reader.pin.epoch.store(0, Ordering::Release);
        } else if guards == TRANSIENT {
            give_back_transient(self.reader);
        }
    }
}

/// Defers `free` until every reader that is pinned now has unpinned. A later [`collect`] calls it.
/// The memory that it frees is unlinked already: see invariant 1.
pub(crate) fn defer(free: impl FnOnce() + Send + 'static) {
    DEFERRED.get().lock().push(Deferred { epoch: None, free: Box::new(free) });
}

/// Frees the deferred memory that no reader can use any more. A later call frees the rest. If the
/// caller itself is pinned, only memory of earlier epochs is freed. The caller must not hold a lock
/// that a deferred release takes.
pub(crate) fn collect() {
    // The lock of the list is not held: a release may take locks, and may take long.
    for deferred in take_free() {
        (deferred.free)();
    }
}

/// Takes the releases that may run now out of the list.
fn take_free() -> Vec<Deferred> {
    let mut deferred = DEFERRED.get().lock();
    if deferred.is_empty() {
        return Vec::new();
    }
    // Release pairs with the Acquire in `announce`: see invariant 2. All memory in the list was
    // unlinked before it came there.
    let ended = EPOCH.fetch_add(1, Ordering::AcqRel);
    if !barrier::of_collector() {
        return Vec::new();
    }
    for one in deferred.iter_mut().filter(|one| one.epoch.is_none()) {
        one.epoch = Some(ended);
    }
    // Acquire pairs with the Release in `Guard::drop` and `announce`: the accesses of readers that
    // are not pinned any more happened before the releases.
    let pinned =
        all().map(|reader| reader.pin.epoch.load(Ordering::Acquire)).filter(|epoch| *epoch != 0).min();
    let is_free =
        |one: &mut Deferred| one.epoch.is_some_and(|epoch| pinned.is_none_or(|pinned| pinned > epoch));
    deferred.extract_if(.., is_free).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicPtr};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::{Duration, Instant};

    /// Whether the mark is freed soon. Threads of other tests are pinned as well, each for a
    /// moment.
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
    fn a_deferred_release_waits_for_all_guards_of_earlier_readers_and_for_no_others() {
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
            assert!(!freed.load(Ordering::Relaxed), "a reader is pinned with two guards");
        }
        to_reader.send(()).unwrap();
        done.recv().unwrap();
        for _ in 0..100 {
            collect();
            assert!(!freed.load(Ordering::Relaxed), "a reader is pinned with one guard left");
        }
        to_reader.send(()).unwrap();
        done.recv().unwrap();
        assert!(is_freed_soon(&freed), "a later reader cannot have found it");
        to_reader.send(()).unwrap();
        reader.join().unwrap();
    }

    #[test]
    fn a_release_deferred_while_a_reader_is_pinned_runs_later() {
        let guard = pin();
        let (first, second) = (defer_mark(), defer_mark());
        collect();
        assert!(!first.load(Ordering::Relaxed) && !second.load(Ordering::Relaxed));
        drop(guard);
        assert!(is_freed_soon(&first) && is_freed_soon(&second));
    }

    /// Readers look at a value that a writer replaces all the time, and never find a freed one.
    /// Before each look, a reader stores to memory outside its cache. Those stores delay the
    /// announcement of its pin: without the barrier, its looks would come earlier.
    #[test]
    fn no_reader_finds_freed_memory() {
        const DEAD: usize = 0;
        const STORES: usize = 48;
        // This test marks a replaced value dead instead of freeing it, and keeps it to the end.
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
        // No reader looks any more when `values` is dropped.
        let ends = readers.map(thread::JoinHandle::join);
        assert!(ends.iter().all(Result::is_ok), "a reader found freed memory");
    }
}
