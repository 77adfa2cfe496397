//! Large arrays in mappings of their own. The system gets their memory back when they are dropped.
//! An allocator would keep it for the thread that allocated it.

use memmap2::{MmapOptions, MmapRaw};
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::slice;

/// A type for which zero bytes are valid, and which needs no drop.
///
/// # Safety
/// All bits zero is a value of the type.
pub(crate) unsafe trait Plain {}

// SAFETY: a number.
unsafe impl Plain for u8 {}

/// An array that can grow.
#[derive(Debug)]
pub(crate) struct Mapped<T> {
    /// `None` while there is no room for anything.
    map: Option<MmapRaw>,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Default for Mapped<T> {
    fn default() -> Self {
        Mapped { map: None, len: 0, of: PhantomData }
    }
}

impl<T: Plain> Mapped<T> {
    /// Empty, with room for `capacity` elements.
    pub(crate) fn with_capacity(capacity: usize) -> io::Result<Self> {
        Self::with_options(capacity, &mut MmapOptions::new())
    }

    /// `len` zeros, all in memory. It is faster than the page faults of a caller that fills them in
    /// no order: each page would get two, one for a read and one for a write.
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        Self::with_options(len, MmapOptions::new().populate()).map(|zeros| Mapped { len, ..zeros })
    }

    /// `len` zeros. A page takes memory once it is written to.
    pub(crate) fn sparse(len: usize) -> io::Result<Self> {
        Self::with_capacity(len).map(|zeros| Mapped { len, ..zeros })
    }

    fn with_options(capacity: usize, options: &mut MmapOptions) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0) };
        let bytes = capacity.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = if bytes == 0 { None } else { Some(MmapRaw::from(options.len(bytes).map_anon()?)) };
        Ok(Mapped { map, ..Self::default() })
    }

    /// Bytes that it takes.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.map.as_ref().map_or(0, MmapRaw::len)
    }

    fn capacity(&self) -> usize {
        self.allocated_bytes() / size_of::<T>()
    }

    /// Adds one at the end.
    ///
    /// # Errors
    /// The system has no memory for more.
    pub(crate) fn push(&mut self, element: T) -> io::Result<()>
    where
        T: Copy,
    {
        if self.len == self.capacity() {
            let mut larger = Self::with_capacity((2 * self.len).max(1024))?;
            larger.len = self.len;
            larger.copy_from_slice(self);
            *self = larger;
        }
        self.len += 1;
        if let Some(last) = self.last_mut() {
            *last = element;
        }
        Ok(())
    }
}

impl<T: Plain> Deref for Mapped<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        let Some(map) = &self.map else { return &[] };
        // SAFETY: a mapping begins at a page, so it is aligned for T, and it has room for `len`
        // elements (`zeroed`, `push`). Unwritten elements are zero, which is valid for T. Only
        // `self` knows the mapping.
        unsafe { slice::from_raw_parts(map.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Mapped<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let Some(map) = &self.map else { return &mut [] };
        // SAFETY: as above, and `self` is borrowed for change.
        unsafe { slice::from_raw_parts_mut(map.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: a number.
    unsafe impl Plain for u64 {}

    #[test]
    fn it_is_an_array_that_grows() {
        let mut array = Mapped::with_capacity(0).unwrap();
        assert_eq!((array.len(), array.allocated_bytes()), (0, 0));
        for number in 0..5000_u64 {
            array.push(number ^ 7).unwrap();
        }
        assert!(array.iter().copied().eq((0..5000).map(|number| number ^ 7)));
        array.sort_unstable();
        assert!(array.iter().copied().eq(0..5000));
        assert_eq!(*Mapped::<u64>::zeroed(3).unwrap(), [0; 3]);
        assert_eq!(*Mapped::<u8>::sparse(3).unwrap(), [0; 3]);
        assert!(Mapped::<u64>::zeroed(usize::MAX / 2).is_err());
    }
}
