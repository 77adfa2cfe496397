//! Who reads, and what must stay meanwhile: everything for the moment of a look-up ([`epoch`]), the image that holds a value
//! for as long as a visitor looks at it ([`hold`]).
//!
//! A thread takes a reader for its first look-up, and gives it back at its end. A thread-local
//! value that uses a store while it is dropped may come after that. The thread then has a
//! *transient* reader, for one look-up: the last guard gives it back. Holds outlive the guard, so a
//! transient reader has no notes to give, and its visitors look at copies.

mod epoch;
mod hold;

pub(crate) use epoch::{Guard, collect, defer, pin};
pub(crate) use hold::{Hold, NOTES_MAX, is_held};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// What one thread at a time tells of its reading.
#[derive(Debug, Default)]
struct Reader {
    /// Whether a thread has it.
    taken: AtomicBool,
    pin: epoch::Pin,
    notes: hold::Notes,
}

/// As many as there ever were threads at a time, look-ups of ending threads included.
static ALL: Mutex<Vec<&'static CachePadded<Reader>>> = Mutex::new(Vec::new());

thread_local! {
    /// This thread's. Without a destructor, so that to come here takes no more than a load.
    static READER: Cell<Option<&'static Reader>> = const { Cell::new(None) };
    /// Gives it back at the end of the thread.
    static GIVES_BACK: GivesBack = const { GivesBack };
}

struct GivesBack;

impl Drop for GivesBack {
    fn drop(&mut self) {
        if let Some(reader) = READER.take() {
            reader.taken.store(false, Ordering::Release);
        }
    }
}

/// This thread's.
#[inline]
fn current() -> &'static Reader {
    READER.get().unwrap_or_else(take)
}

/// For a thread that has none yet.
#[cold]
fn take() -> &'static Reader {
    epoch::prepare();
    let mut all = ALL.lock();
    let is_free = |reader: &&&CachePadded<Reader>| !reader.taken.swap(true, Ordering::Acquire);
    let reader = all.iter().find(is_free).copied().unwrap_or_else(|| {
        let reader: &'static CachePadded<Reader> = Box::leak(Box::default());
        reader.taken.store(true, Ordering::Relaxed);
        all.push(reader);
        reader
    });
    READER.set(Some(reader));
    // In the last moments of a thread, when its thread-local values are dropped, `GIVES_BACK` may
    // be gone.
    if GIVES_BACK.try_with(|_| ()).is_err() {
        reader.pin.begin_transient();
        reader.notes.take_all();
    }
    reader
}

/// Gives back a transient reader, whose last guard is gone.
#[cold]
fn give_back_transient(reader: &Reader) {
    READER.set(None);
    reader.pin.end_transient();
    reader.notes.give_all_back();
    // Release: pairs with the Acquire in `take`, and makes the reader's last steps visible to the
    // next thread that takes it.
    reader.taken.store(false, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogEngine, Options};
    use kv_core::Engine;
    use std::cell::RefCell;
    use std::ptr;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn threads_have_readers_of_their_own_and_leave_them_to_others() {
        let here = current();
        assert!(ptr::eq(here, current()));
        // Other tests' threads come and go as well.
        let threads = 500;
        for _ in 0..threads {
            let other = thread::spawn(current).join().unwrap();
            assert!(!ptr::eq(here, other));
        }
        assert!(ALL.lock().len() < threads, "every thread took a new one");
    }

    /// Uses a store when its thread ends.
    struct UsesStore(Arc<LogEngine>);

    impl Drop for UsesStore {
        fn drop(&mut self) {
            let (store, mut seen) = (&self.0, 0);
            store.put(b"key", b"value").unwrap();
            assert_eq!(store.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
            let found = store.read(b"key", &mut |value| {
                // A visitor keeps its value, whatever else the thread reads meanwhile.
                store.read_many(&[b"key", b"none"], &mut |_, _| seen += 1).unwrap();
                assert_eq!(value, b"value");
            });
            assert!(found.unwrap() && seen == 2);
        }
    }

    #[test]
    fn a_thread_in_its_last_moments_leaves_its_reader_to_others() {
        thread_local! {
            static LAST: RefCell<Option<UsesStore>> = const { RefCell::new(None) };
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(LogEngine::open(dir.path(), Options::default()).unwrap());
        let threads = 500;
        for number in 0..threads {
            let of_thread = Arc::clone(&store);
            let ends = thread::spawn(move || {
                // A value that is dropped later than the one that gives the reader back, or
                // earlier.
                if number % 4 == 0 {
                    of_thread.get(b"key").unwrap();
                }
                LAST.set(Some(UsesStore(Arc::clone(&of_thread))));
                if number % 2 == 0 {
                    of_thread.get(b"key").unwrap();
                }
            });
            ends.join().unwrap();
        }
        assert!(ALL.lock().len() < threads / 4, "threads keep readers for ever: {}", ALL.lock().len());
    }
}
