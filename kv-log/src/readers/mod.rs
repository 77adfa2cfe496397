//! Who reads, and what must stay meanwhile: everything for the moment of a look-up ([`epoch`]), the image that holds a value
//! for as long as a visitor looks at it ([`hold`]).

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

/// As many as there ever were threads at a time.
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
    // In the last moments of a thread there is nobody any more who would give it back: it stays taken.
    let _ = GIVES_BACK.try_with(|_| ());
    reader
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;
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
}
