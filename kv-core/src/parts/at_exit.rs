//! A store in a `static` is never dropped: `main` returns, and the process ends. So an engine asks
//! to be called before that.

use super::PerProcess;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

/// An engine that makes its changes durable when the process ends in an orderly way. A part that
/// engines share.
pub trait AtExit: Send + Sync {
    /// Makes every visible change durable. The call comes from the thread that ends the process,
    /// while other threads go on; nothing happens after it. It must do nothing in a forked child.
    fn at_exit(&self);
}

type Stores = Vec<Weak<dyn AtExit>>;

/// The stores of this process. No store is called while the lock is held.
fn stores() -> MutexGuard<'static, Stores> {
    static STORES: PerProcess<Mutex<Stores>> = PerProcess::new();
    STORES.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has [`AtExit::at_exit`] called when `main` returns or the process calls [`std::process::exit`],
/// if the store is still there. A process that is killed, or aborts, makes no such call.
pub fn call_at_exit(store: Weak<dyn AtExit>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(register);
    let mut stores = stores();
    stores.retain(|store| store.strong_count() > 0);
    stores.push(store);
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "the standard library has no call for this")]
fn register() {
    // SAFETY: the function has the type that the system calls, takes nothing, and does not unwind.
    // Registering it fails only for want of memory; then nothing is called.
    let _ = unsafe { libc::atexit(call_all) };
}

#[cfg(not(unix))]
fn register() {}

#[cfg(unix)]
extern "C" fn call_all() {
    let stores: Vec<Arc<dyn AtExit>> = stores().iter().filter_map(Weak::upgrade).collect();
    for store in stores {
        let _ = catch_unwind(AssertUnwindSafe(|| store.at_exit()));
        // Its threads go on, so it is not dropped here.
        std::mem::forget(store);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl AtExit for Counter {
        fn at_exit(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_store_is_called_even_if_another_thread_is_opening_one() {
        let store = Arc::new(Counter::default());
        let weak: Weak<Counter> = Arc::downgrade(&store);
        call_at_exit(weak);
        let opening = stores();
        thread::scope(|scope| {
            scope.spawn(|| call_all());
            thread::sleep(Duration::from_millis(20));
            drop(opening);
        });
        assert_eq!(store.0.load(Ordering::SeqCst), 1);
    }
}
