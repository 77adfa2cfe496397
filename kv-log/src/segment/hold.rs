//! What visitors look at. While a reader is pinned, nothing at all comes free, so nobody is pinned while a caller's code
//! runs: the reader notes the images that it goes on looking at, and unpins.
//!
//! # Invariants
//!
//! 1. A note is made while its reader is pinned, and has found the image as others do.
//! 2. Whoever frees an image asks for notes of it after it was taken away, and after everybody who was pinned then has gone
//!    on. From then on nobody can note it any more; and a note that was made is seen, since its reader unpinned after it.
//! 3. A note stays where it is until its reader has done with the image. A noted image is asked about again later.
//!
//! These are the hazard pointers of Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects", 2004, without
//! their fence: the epoch stands in for it.

use crossbeam_utils::CachePadded;
use std::borrow::Cow;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::{Found, Image};

/// Notes of one reader at a time.
pub(crate) const NOTES_MAX: usize = 16;

/// Readers at a time. Those beyond copy what they look at.
const SEATS: usize = 64;

/// Places for notes, shared by all readers.
#[derive(Debug)]
pub(super) struct Seats(Box<[CachePadded<Seat>]>);

#[derive(Debug, Default)]
struct Seat {
    taken: AtomicBool,
    /// Images that must stay; else null.
    notes: [AtomicPtr<Image>; NOTES_MAX],
}

thread_local! {
    /// Where this thread looks for a free seat first: seldom where another one does.
    static FIRST: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % SEATS
    };
}

impl Default for Seats {
    fn default() -> Self {
        Seats((0..SEATS).map(|_| CachePadded::default()).collect())
    }
}

impl Seats {
    /// A hold on nothing yet.
    #[inline]
    pub(super) fn hold(&self) -> Hold<'_> {
        let first = FIRST.with(|first| *first);
        let (before, from) = self.0.split_at(first);
        let seat = from.iter().chain(before).find(|seat| seat.take());
        Hold { seat: seat.map(|seat| &**seat), notes: Cell::new(0) }
    }

    /// Whether somebody holds `image`, which nobody can find any more: see invariant 2.
    pub(super) fn is_held(&self, image: *const Image) -> bool {
        // Acquire: who finds it let go comes after who looked at it.
        let mut notes = self.0.iter().flat_map(|seat| &seat.notes);
        notes.any(|note| ptr::eq(note.load(Ordering::Acquire), image))
    }
}

impl Seat {
    #[inline]
    fn take(&self) -> bool {
        !self.taken.load(Ordering::Relaxed)
            && self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

/// Keeps values where they are while it lives.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    /// `None` when all were taken.
    seat: Option<&'a Seat>,
    /// How many of its notes are in use.
    notes: Cell<usize>,
}

impl Hold<'_> {
    /// Makes the value of `found` stay when its finder is not pinned any more: where it is, if it can be held there, or else
    /// as a copy.
    #[inline]
    pub(crate) fn keep<'h>(&'h self, found: Found<'_>) -> Cow<'h, [u8]> {
        let (used, value) = (self.notes.get(), found.record().value);
        let note = self.seat.and_then(|seat| seat.notes.get(used));
        let (Found::Resident(resident), Some(note)) = (found, note) else { return copied(value) };
        note.store(ptr::from_ref(resident.image()).cast_mut(), Ordering::Release);
        self.notes.set(used + 1);
        // SAFETY: `found` lives, so its finder is pinned; as the note says, the image is not freed before `self` is dropped,
        // which outlives 'h; and what is published there never changes.
        Cow::Borrowed(unsafe { &*ptr::from_ref(value) })
    }
}

/// Seldom, and not in the way of the usual: the compiler finds it easier to keep that together.
#[cold]
#[inline(never)]
fn copied<'a>(value: &[u8]) -> Cow<'a, [u8]> {
    Cow::Owned(value.to_vec())
}

impl Drop for Hold<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            let used = seat.notes.iter().take(self.notes.get());
            used.for_each(|note| note.store(ptr::null_mut(), Ordering::Release));
            seat.taken.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Resident;
    use kv_wal_format::{Encoder, Record};

    /// With one record.
    fn image() -> Image {
        let image = Image::new(100).unwrap();
        // SAFETY: this thread is alone.
        unsafe { image.fill(0, 100, |out| Encoder::new(1).encode(&Record::put(1, b"key", &[7; 3]), out)) }
            .unwrap();
        image
    }

    fn keep<'h>(hold: &'h Hold<'_>, image: &Image) -> Cow<'h, [u8]> {
        // SAFETY: the image outlives every hold in these tests, and is not written any more.
        hold.keep(Found::Resident(unsafe { Resident::new(image, 0) }))
    }

    #[test]
    fn images_are_held_as_long_as_the_hold_lives() {
        let (seats, one, other) = (Seats::default(), image(), image());
        let hold = seats.hold();
        assert!(!seats.is_held(&raw const one));
        let value = keep(&hold, &one);
        assert!(matches!(value, Cow::Borrowed([7, 7, 7])));
        assert!(seats.is_held(&raw const one) && !seats.is_held(&raw const other));
        // As long as all their holds.
        let nested = seats.hold();
        let _values = (keep(&nested, &other), keep(&nested, &one));
        drop(value);
        drop(hold);
        assert!(seats.is_held(&raw const one) && seats.is_held(&raw const other));
        drop(nested);
        assert!(!seats.is_held(&raw const one) && !seats.is_held(&raw const other));
    }

    #[test]
    fn what_finds_no_place_is_copied() {
        let (seats, image) = (Seats::default(), image());
        let mut holds: Vec<Hold<'_>> = (0..SEATS).map(|_| seats.hold()).collect();
        assert!(holds.iter().all(|hold| matches!(keep(hold, &image), Cow::Borrowed(_))));
        assert!(matches!(keep(&seats.hold(), &image), Cow::Owned(copy) if copy == [7; 3]));
        holds.pop();
        let hold = seats.hold();
        let values: Vec<Cow<'_, [u8]>> = (0..=NOTES_MAX).map(|_| keep(&hold, &image)).collect();
        let (last, first) = values.split_last().unwrap();
        assert!(first.iter().all(|value| matches!(value, Cow::Borrowed(_))));
        assert!(matches!(last, Cow::Owned(copy) if copy == &[7; 3]));
        drop(values);
        drop(hold);
        drop(holds);
        assert!(!seats.is_held(&raw const image));
    }
}
