//! Hazard pointers: the values that visitors look at.
//!
//! While a reader is pinned, no memory at all is freed. So no reader is pinned while a caller's
//! code runs. The reader first sets hazard pointers to the memory that its values lie in, and then
//! unpins.
//!
//! # Invariants
//!
//! 1. A reader sets a hazard pointer while it is pinned, after it has found the memory as others
//!    do.
//! 2. Memory is unlinked first. Then every reader that was pinned at that time unpins. Only then
//!    the collector looks for hazard pointers to it. No reader can set a new one by then, and the
//!    collector sees each one that was set, because its reader unpinned after it.
//! 3. A hazard pointer stays set until its reader has finished. The collector looks for it again
//!    later.
//!
//! Source: Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects", 2004, without
//! its fence: the epoch replaces it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::Ordering;

use super::epoch::Guard;
use super::reader::{Hazards, all};

pub(crate) use super::reader::HAZARDS_MAX;

/// Whether a hazard pointer protects the memory at `address`, which is unlinked: see invariant 2.
pub(crate) fn is_protected(address: *const ()) -> bool {
    all().any(|reader| {
        let hazards = &reader.hazards;
        // Both Acquire loads pair with the Release stores in `Hold::keep` and `Hold::drop`: once
        // the hazard pointer is cleared or points elsewhere, its reader's accesses happened before.
        let used = hazards.used.load(Ordering::Acquire);
        let mut used = hazards.addresses.iter().enumerate().filter(|(at, _)| used & 1 << at != 0);
        used.any(|(_, protected)| ptr::eq(protected.load(Ordering::Acquire), address))
    })
}

/// Keeps values where they are while it lives.
pub(crate) struct Hold {
    hazards: &'static Hazards,
    /// The bits of its own hazard pointers.
    own: Cell<u32>,
    /// Copies of values that could not be protected in place.
    copies: Cell<Option<Box<Copied>>>,
    /// Only its thread may change these hazard pointers.
    not_send: PhantomData<*const ()>,
}

/// One copy, and the earlier ones.
struct Copied {
    value: Box<[u8]>,
    _before: Option<Box<Copied>>,
}

impl Guard {
    /// An empty hold, for values that are found while the guard lives.
    #[inline]
    pub(crate) fn hold(&self) -> Hold {
        Hold {
            hazards: &self.reader.hazards,
            own: Cell::new(0),
            copies: Cell::new(None),
            not_send: PhantomData,
        }
    }
}

impl Hold {
    /// Keeps `value` beyond the pin of the caller. With `memory`, the address of the memory that
    /// the value lies in, the value stays in place if a hazard pointer is free. Otherwise it is
    /// copied.
    ///
    /// # Safety
    /// The caller is pinned and has found the value since. With `memory`, the value lies in memory
    /// that is freed only after [`is_protected`] denied this address, and its bytes never change.
    #[inline]
    pub(crate) unsafe fn keep<'h>(&'h self, value: &[u8], memory: Option<*const ()>) -> &'h [u8] {
        let used = self.hazards.used.load(Ordering::Relaxed);
        let free = (!used).trailing_zeros();
        let (Some(memory), Some(hazard)) = (memory, self.hazards.addresses.get(free as usize)) else {
            return self.copied(value);
        };
        hazard.store(memory.cast_mut(), Ordering::Release);
        self.hazards.used.store(used | 1 << free, Ordering::Release);
        self.own.set(self.own.get() | 1 << free);
        // SAFETY: the caller is pinned, so the hazard pointer is set in time, and the memory is not
        // freed before `self`, which outlives 'h, is dropped. The caller promises that the bytes
        // never change.
        unsafe { &*ptr::from_ref(value) }
    }

    #[cold]
    fn copied<'h>(&'h self, value: &[u8]) -> &'h [u8] {
        let copy = Box::new(Copied { value: value.into(), _before: self.copies.take() });
        let kept = ptr::from_ref(&*copy.value);
        self.copies.set(Some(copy));
        // SAFETY: the box stays in place and unchanged until `self`, which outlives 'h, is dropped.
        unsafe { &*kept }
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        // A hold without hazard pointers may outlive a transient reader, whose hazard pointers may
        // belong to another thread by now.
        if self.own.get() != 0 {
            let used = self.hazards.used.load(Ordering::Relaxed);
            self.hazards.used.store(used & !self.own.get(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reclaim::pin;

    fn keep<'h>(hold: &'h Hold, memory: &[u8; 3]) -> &'h [u8] {
        // SAFETY: the memory outlives every hold in these tests, and never changes.
        unsafe { hold.keep(memory, Some(address_of(memory))) }
    }

    fn address_of(memory: &[u8; 3]) -> *const () {
        memory.as_ptr().cast()
    }

    fn are_protected<const N: usize>(memories: [&[u8; 3]; N]) -> [bool; N] {
        memories.map(|memory| is_protected(address_of(memory)))
    }

    #[test]
    fn memory_is_protected_while_a_hold_lives() {
        let (one, other) = (Box::new([7; 3]), Box::new([8; 3]));
        let hold = pin().hold();
        assert_eq!(are_protected([&one, &other]), [false, false]);
        assert_eq!(keep(&hold, &one), [7; 3]);
        assert_eq!(are_protected([&one, &other]), [true, false]);
        // The last of several holds decides, in any order.
        let later = pin().hold();
        assert_eq!([keep(&later, &other), keep(&later, &one)], [[8; 3], [7; 3]]);
        drop(hold);
        assert_eq!(are_protected([&one, &other]), [true, true]);
        let last = pin().hold();
        assert_eq!(keep(&last, &one), [7; 3]);
        drop(later);
        assert_eq!(are_protected([&one, &other]), [true, false]);
        drop(last);
        assert_eq!(are_protected([&one, &other]), [false, false]);
    }

    #[test]
    fn a_value_without_a_free_hazard_pointer_is_copied() {
        let memory = Box::new([7; 3]);
        let in_place = |value: &[u8]| ptr::eq(value.as_ptr(), memory.as_ptr());
        let (hold, nested) = (pin().hold(), pin().hold());
        assert!(in_place(keep(&hold, &memory)));
        let values: Vec<&[u8]> = (0..=HAZARDS_MAX).map(|_| keep(&nested, &memory)).collect();
        let (protected, copied) = values.split_at(HAZARDS_MAX - 1);
        assert!(protected.iter().all(|value| in_place(value)));
        assert!(copied.len() == 2 && copied.iter().all(|value| !in_place(value) && *value == [7; 3]));
        drop(nested);
        assert!(in_place(keep(&hold, &memory)));
        // SAFETY: without an address, the value is copied.
        assert!(!in_place(unsafe { hold.keep(&*memory, None) }));
        drop(hold);
        assert!(!is_protected(address_of(&memory)));
    }
}
