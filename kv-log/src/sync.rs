//! The synchronisation primitives that models replace: the standard library's and `parking_lot`'s,
//! or under `--cfg shuttle` shuttle's, which runs a test in many orders of steps.

#[cfg(not(all(test, shuttle)))]
pub(crate) use {
    parking_lot::{Mutex, MutexGuard},
    std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(all(test, shuttle))]
pub(crate) use {
    model::{Mutex, MutexGuard},
    shuttle::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering},
};

/// Changes a number that one thread at a time changes, and that all threads may read.
#[inline]
pub(crate) fn change(number: &std::sync::atomic::AtomicU64, change: impl FnOnce(u64) -> u64) {
    use std::sync::atomic::Ordering::Relaxed;
    number.store(change(number.load(Relaxed)), Relaxed);
}

/// Waits a little for another thread. The wait grows from one call with the same `turns` to the
/// next.
pub(crate) fn back_off(turns: &mut u32) {
    *turns += 1;
    #[cfg(all(test, shuttle))]
    shuttle::thread::yield_now();
    #[cfg(not(all(test, shuttle)))]
    if *turns < 32 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// shuttle's mutex with the interface of `parking_lot`'s.
#[cfg(all(test, shuttle))]
mod model {
    pub(crate) use shuttle::sync::MutexGuard;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model that panics ends")
        }
    }
}
