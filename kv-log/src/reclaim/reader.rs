//! Readers: the state that each thread publishes about its reading.
//!
//! A thread takes a reader for its first look-up, and gives it back at its end. A thread-local
//! value that uses a store in its destructor may come after that. The thread then has a *transient*
//! reader for one look-up: the last guard gives it back. A [`Hold`](super::Hold) outlives its
//! guard, so a transient reader has no free hazard pointer, and its visitors look at copies.
//!
//! # Forked children
//! A child has copies of all readers of its parent, and only the thread that forked. That thread
//! keeps its reader. The readers of the other threads look pinned forever, so the child unpins all
//! readers when it [begins]: before it opens its first store, while none of its threads is pinned.
//! The list of readers has no lock, because a thread of the parent might hold it forever.
//!
//! [begins]: begin

use crossbeam_utils::CachePadded;
use kv_core::parts::PerProcess;
use std::cell::Cell;
use std::iter;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use super::barrier;

/// Hazard pointers of one thread, for all its visitors together.
pub(crate) const HAZARDS_MAX: usize = u32::BITS as usize;

/// A transient reader counts its guards from this number. So the first guard of an ordinary reader
/// needs no check for it.
pub(super) const TRANSIENT: usize = 1 << (usize::BITS - 1);

/// The state of one reading thread.
#[derive(Debug, Default)]
pub(super) struct ReaderState {
    /// Whether a thread has it.
    taken: AtomicBool,
    pub(super) pin: Pin,
    pub(super) hazards: Hazards,
    /// The next reader of the list.
    older: Link,
}

/// The pin of a reader.
#[derive(Debug, Default)]
pub(super) struct Pin {
    /// The epoch to which the reader is pinned. 0 while it is not pinned.
    pub(super) epoch: AtomicUsize,
    /// The number of its guards, counted from [`TRANSIENT`] for a transient reader. Only the
    /// reader's thread uses it.
    pub(super) guards: AtomicUsize,
}

/// The hazard pointers of a reader.
#[derive(Debug, Default)]
pub(super) struct Hazards {
    /// One bit for each hazard pointer that is set.
    pub(super) used: AtomicU32,
    /// The protected addresses, for the bits in `used`.
    pub(super) addresses: [AtomicPtr<()>; HAZARDS_MAX],
}

impl Hazards {
    /// Marks all as set, without an address. None was set.
    fn use_all(&self) {
        for address in &self.addresses {
            address.store(ptr::null_mut(), Ordering::Relaxed);
        }
        // Release pairs with the Acquire in `is_protected`, which then sees the null addresses.
        self.used.store(u32::MAX, Ordering::Release);
    }

    fn clear_all(&self) {
        // Release pairs with the Acquire in `is_protected`.
        self.used.store(0, Ordering::Release);
    }
}

/// Leads to a reader of the list, which is leaked; null at the end.
type Link = AtomicPtr<CachePadded<ReaderState>>;

/// The list of all readers that ever existed: as many as the most threads at one time, threads in
/// their last moments included. It begins with the newest one.
static NEWEST: Link = AtomicPtr::new(ptr::null_mut());

/// All readers that threads have added before.
pub(super) fn all() -> impl Iterator<Item = &'static CachePadded<ReaderState>> {
    let follow = |link: &Link| {
        // Acquire pairs with the Release in `add`, and makes the reader visible.
        // SAFETY: it is null or a leaked reader.
        unsafe { link.load(Ordering::Acquire).as_ref() }
    };
    iter::successors(follow(&NEWEST), move |reader| follow(&reader.older))
}

/// Adds a reader, which the caller has.
fn add() -> &'static CachePadded<ReaderState> {
    let reader: &'static CachePadded<ReaderState> = Box::leak(Box::default());
    reader.taken.store(true, Ordering::Relaxed);
    let mut newest = NEWEST.load(Ordering::Relaxed);
    loop {
        reader.older.store(newest, Ordering::Relaxed);
        let added = ptr::from_ref(reader).cast_mut();
        // Release pairs with the Acquire in `all`. A compare-exchange continues the release
        // sequences of earlier ones, so the older readers are visible, too.
        match NEWEST.compare_exchange_weak(newest, added, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return reader,
            Err(other) => newest = other,
        }
    }
}

/// Makes this process ready for readers, unless it is. A thread that opens a store calls it first,
/// while no thread of this process is pinned.
pub(crate) fn begin() {
    static BEGUN: PerProcess<OnceLock<()>> = PerProcess::new();
    BEGUN.get().get_or_init(|| {
        barrier::prepare();
        for reader in all() {
            reader.pin.epoch.store(0, Ordering::Relaxed);
            reader.hazards.clear_all();
        }
    });
}

thread_local! {
    /// This thread's reader. It has no destructor, so an access is one load.
    static READER: Cell<Option<&'static ReaderState>> = const { Cell::new(None) };
    /// Gives the reader back at the end of the thread.
    static GIVES_BACK: GivesBack = const { GivesBack };
}

struct GivesBack;

impl Drop for GivesBack {
    fn drop(&mut self) {
        if let Some(reader) = READER.take() {
            // Release pairs with the Acquire in `take`: the next thread sees this one's stores.
            reader.taken.store(false, Ordering::Release);
        }
    }
}

/// This thread's reader.
#[inline]
pub(super) fn current() -> &'static ReaderState {
    READER.get().unwrap_or_else(take)
}

/// Takes a reader for a thread that has none.
#[cold]
fn take() -> &'static ReaderState {
    begin();
    let is_free = |reader: &&CachePadded<ReaderState>| !reader.taken.swap(true, Ordering::Acquire);
    let reader = all().find(is_free).unwrap_or_else(add);
    READER.set(Some(reader));
    // While a thread drops its thread-local values, `GIVES_BACK` may be gone already.
    if GIVES_BACK.try_with(|_| ()).is_err() {
        reader.pin.guards.store(TRANSIENT, Ordering::Relaxed);
        reader.hazards.use_all();
    }
    reader
}

/// Gives back a transient reader whose last guard is gone.
#[cold]
pub(super) fn give_back_transient(reader: &ReaderState) {
    READER.set(None);
    reader.pin.guards.store(0, Ordering::Relaxed);
    // Release pairs with the Acquire in `epoch::take_free`: the reader's accesses happened before.
    reader.pin.epoch.store(0, Ordering::Release);
    reader.hazards.clear_all();
    // Release pairs with the Acquire in `take`: the next thread sees the stores above.
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
        assert!(all().count() < threads, "every thread took a new one");
    }

    /// Uses a store when its thread ends.
    struct UsesStore(Arc<LogEngine>);

    impl Drop for UsesStore {
        fn drop(&mut self) {
            let (store, mut seen) = (&self.0, 0);
            store.put(b"key", b"value").unwrap();
            assert_eq!(store.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
            let found = store.read(b"key", &mut |value| {
                // The visitor's value stays, although the thread reads others meanwhile.
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
                // The first use decides whether the value is dropped after `GIVES_BACK`, or before.
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
        assert!(all().count() < threads / 4, "threads keep readers forever: {}", all().count());
    }
}
