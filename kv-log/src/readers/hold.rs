//! What visitors look at. While a reader is pinned, nothing at all comes free, so nobody is pinned while a caller's code
//! runs: the reader notes the images that it goes on looking at, and unpins.
//!
//! # Invariants
//!
//! 1. A note is made while its reader is pinned, and has found the image as others do.
//! 2. An image is taken away first. Then every reader who was pinned at that time goes on. Only then the
//!    one who frees it asks for notes of it. By now nobody can note it any more, and a note that was made
//!    is seen, since its reader unpinned after it.
//! 3. A note stays where it is until its reader has done with the image. A noted image is asked about again later.
//!
//! These are the hazard pointers of Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects", 2004, without
//! their fence: the epoch stands in for it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::{ALL, Guard};
use crate::segment::{Found, Image};

/// Values that a thread keeps without copying them, all its visitors together.
pub(crate) const NOTES_MAX: usize = u32::BITS as usize;

/// What a reader looks at.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Which ones are in use, by bits.
    used: AtomicU32,
    /// Images that must stay, of notes that are in use.
    images: [AtomicPtr<Image>; NOTES_MAX],
}

impl Notes {
    /// Leaves no note free: whatever is kept is copied. None was in use.
    pub(super) fn take_all(&self) {
        for image in &self.images {
            image.store(ptr::null_mut(), Ordering::Relaxed);
        }
        // Release: `is_held` does not take images of earlier notes for held ones.
        self.used.store(u32::MAX, Ordering::Release);
    }

    pub(super) fn give_all_back(&self) {
        self.used.store(0, Ordering::Release);
    }
}

/// Whether somebody holds `image`, which nobody can find any more: see invariant 2.
pub(crate) fn is_held(image: *const Image) -> bool {
    let all = ALL.lock();
    all.iter().any(|reader| {
        let notes = &reader.notes;
        // Acquire, both: whoever finds no note, or a note of another image in its place, comes after the
        // reader who looked at this one.
        let used = notes.used.load(Ordering::Acquire);
        let mut used = notes.images.iter().enumerate().filter(|(at, _)| used & 1 << at != 0);
        used.any(|(_, noted)| ptr::eq(noted.load(Ordering::Acquire), image))
    })
}

/// Keeps values where they are while it lives.
pub(crate) struct Hold {
    notes: &'static Notes,
    /// Its own of them, by bits.
    own: Cell<u32>,
    /// Of values that could not be held where they are.
    copies: Cell<Option<Box<Copied>>>,
    /// Only its thread may change these notes.
    not_send: PhantomData<*const ()>,
}

/// One copy, and those made before it.
struct Copied {
    value: Box<[u8]>,
    _before: Option<Box<Copied>>,
}

impl Guard {
    /// A hold on nothing yet, for what is found while this lives.
    #[inline]
    pub(crate) fn hold(&self) -> Hold {
        Hold { notes: &self.reader.notes, own: Cell::new(0), copies: Cell::new(None), not_send: PhantomData }
    }
}

impl Hold {
    /// Makes the value of `found` stay when its finder is not pinned any more: where it is, if it can be held there, or else
    /// as a copy.
    #[inline]
    pub(crate) fn keep<'h>(&'h self, found: Found<'_>) -> &'h [u8] {
        let used = self.notes.used.load(Ordering::Relaxed);
        let free = (!used).trailing_zeros();
        let (Some(image), Some(note)) = (found.image, self.notes.images.get(free as usize)) else {
            return self.copied(found.value);
        };
        note.store(ptr::from_ref(image).cast_mut(), Ordering::Release);
        self.notes.used.store(used | 1 << free, Ordering::Release);
        self.own.set(self.own.get() | 1 << free);
        // SAFETY: `found` lives, so its finder is pinned; as the note says, the image is not freed before `self` is dropped,
        // which outlives 'h; and what is published there never changes.
        unsafe { &*ptr::from_ref(found.value) }
    }

    #[cold]
    fn copied<'h>(&'h self, value: &[u8]) -> &'h [u8] {
        let copy = Box::new(Copied { value: value.into(), _before: self.copies.take() });
        let kept = ptr::from_ref(&*copy.value);
        self.copies.set(Some(copy));
        // SAFETY: what the box holds stays where it is until `self` is dropped, which outlives 'h, and nobody changes it.
        unsafe { &*kept }
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        // A hold without notes may outlive a transient reader, whose notes are those of another
        // thread by now.
        if self.own.get() != 0 {
            let used = self.notes.used.load(Ordering::Relaxed);
            self.notes.used.store(used & !self.own.get(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::pin;
    use kv_wal_format::{Encoder, RECORD_HEADER_LEN, Record};

    /// With one record.
    fn image() -> Image {
        let image = Image::new(100).unwrap();
        // SAFETY: this thread is alone.
        unsafe { image.fill(0, 100, |out| Encoder::new(1).encode(&Record::put(1, b"key", &[7; 3]), out)) }
            .unwrap();
        image
    }

    fn keep<'h>(hold: &'h Hold, image: &Image) -> &'h [u8] {
        // SAFETY: the image outlives every hold in these tests, and is not written any more.
        let value = unsafe { image.value_of(b"key", 0) }.unwrap();
        hold.keep(Found { value, image: Some(image) })
    }

    fn are_held<const N: usize>(images: [&Image; N]) -> [bool; N] {
        images.map(|image| is_held(image))
    }

    #[test]
    fn images_are_held_as_long_as_the_hold_lives() {
        let (one, other) = (image(), image());
        let hold = pin().hold();
        assert_eq!(are_held([&one, &other]), [false, false]);
        assert_eq!(keep(&hold, &one), [7; 3]);
        assert_eq!(are_held([&one, &other]), [true, false]);
        // As long as all of their holds, in whichever order these end.
        let later = pin().hold();
        assert_eq!([keep(&later, &other), keep(&later, &one)], [[7; 3]; 2]);
        drop(hold);
        assert_eq!(are_held([&one, &other]), [true, true]);
        let last = pin().hold();
        assert_eq!(keep(&last, &one), [7; 3]);
        drop(later);
        assert_eq!(are_held([&one, &other]), [true, false]);
        drop(last);
        assert_eq!(are_held([&one, &other]), [false, false]);
    }

    #[test]
    fn what_finds_no_place_is_copied() {
        let image = image();
        let in_place = |value: &[u8]| ptr::eq(value.as_ptr(), image.address(RECORD_HEADER_LEN + 3));
        let (hold, nested) = (pin().hold(), pin().hold());
        assert!(in_place(keep(&hold, &image)));
        let values: Vec<&[u8]> = (0..=NOTES_MAX).map(|_| keep(&nested, &image)).collect();
        let (in_notes, copied) = values.split_at(NOTES_MAX - 1);
        assert!(in_notes.iter().all(|value| in_place(value)));
        assert!(copied.len() == 2 && copied.iter().all(|value| !in_place(value) && *value == [7; 3]));
        drop(nested);
        assert!(in_place(keep(&hold, &image)));
        drop(hold);
        assert!(!is_held(&raw const image));
    }
}
