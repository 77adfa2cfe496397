use kv_wal_format::{Record, RecordInfo, SMALL_HEADER_LEN, parse_trusted, peek};
use memmap2::{MmapMut, MmapRaw};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::memory::{CACHE_LINE, Tie, prefetch};

/// Memory from the system that holds a segment's bytes, shared by one writer and many readers.
///
/// The writer fills it from front to back, each byte once. Readers look only at bytes that were
/// published to them, through a lock or an Acquire load. The callers keep this rule, which the
/// `unsafe` methods state.
#[derive(Debug)]
pub(crate) struct Image {
    map: MmapRaw,
    /// Whether all pages are in memory, also those without a record.
    is_populated: AtomicBool,
    /// The object in shared memory that holds the bytes. `None`: they die with the process.
    tie: Option<Tie>,
}

impl Image {
    /// Zeroed memory of at least `len` bytes, rounded up to whole pages, which are filled soon.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let image = Self::sparse(len)?;
        image.allow_huge_pages();
        Ok(image)
    }

    /// As [`new`](Self::new), but only the touched pages take memory.
    pub(crate) fn sparse(len: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon(len.max(1))?;
        // Advice only. Otherwise the first byte may take a huge page.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::NoHugePage);
        Ok(Image { map: MmapRaw::from(map), is_populated: AtomicBool::new(false), tie: None })
    }

    /// The mapping of an object in shared memory, whose memory is reserved.
    pub(crate) fn shared(map: MmapRaw, tie: Tie) -> Self {
        Image { map, is_populated: AtomicBool::new(true), tie: Some(tie) }
    }

    /// Whether the bytes outlive the process.
    pub(crate) fn is_shared(&self) -> bool {
        self.tie.is_some()
    }

    /// Keeps the object of a shared image for reuse. Returns any other image.
    pub(super) fn keep_object(mut self) -> Option<Self> {
        match self.tie.take() {
            Some(tie) => {
                tie.keep(self.map);
                None
            }
            None => Some(self),
        }
    }

    /// Populates all pages now, so that a writer does not wait for the kernel to clear them. If the
    /// system cannot, the kernel populates them one by one.
    pub(crate) fn populate(&self) {
        self.mark_populated();
        self.allow_huge_pages();
        #[cfg(target_os = "linux")]
        let _ = self.map.advise(memmap2::Advice::PopulateWrite);
    }

    fn allow_huge_pages(&self) {
        #[cfg(target_os = "linux")]
        if self.capacity() >= HUGE_PAGE_BYTES {
            // Advice only: a system without huge pages goes on with small ones.
            let _ = self.map.advise(memmap2::Advice::HugePage);
        }
    }

    /// Notes that all pages are in memory.
    pub(super) fn mark_populated(&self) {
        self.is_populated.store(true, Ordering::Relaxed);
    }

    /// Bytes in memory, if the first `used` bytes were written.
    pub(crate) fn resident_bytes(&self, used: usize) -> usize {
        let is_populated = self.is_populated.load(Ordering::Relaxed);
        if is_populated { self.capacity() } else { used.next_multiple_of(PAGE_BYTES).min(self.capacity()) }
    }

    /// Gives the whole pages behind the first `keep` bytes back to the system. They are zero at the
    /// next use. If the system cannot, they stay.
    ///
    /// # Safety
    /// No other thread reads or writes these bytes meanwhile, and none of them was published.
    pub(crate) unsafe fn release_behind(&self, keep: usize) {
        #[cfg(target_os = "linux")]
        {
            self.is_populated.store(false, Ordering::Relaxed);
            let from = keep.next_multiple_of(PAGE_BYTES_MAX);
            if let Some(len) = self.capacity().checked_sub(from).filter(|len| *len > 0) {
                // SAFETY: this is private memory without a file. The caller promises that no thread
                // relies on the bytes in this range.
                let _ =
                    unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, len) };
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = keep;
    }

    /// The address of the byte at `offset`, for a prefetch, not for a read.
    #[inline]
    pub(crate) fn address(&self, offset: usize) -> *const u8 {
        self.map.as_ptr().wrapping_add(offset)
    }

    /// Prefetches the memory of the next `len` bytes at `offset`, so that the writer does not wait
    /// for it under a lock.
    #[inline]
    pub(crate) fn prefetch(&self, offset: usize, len: usize) {
        (offset..=offset + len).step_by(CACHE_LINE).for_each(|offset| prefetch(self.address(offset)));
    }

    /// Bytes that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.map.len()
    }

    /// Lets `fill` write the `len` bytes at `offset`.
    ///
    /// # Safety
    /// No other thread reads or writes these bytes until `fill` has returned and they were
    /// published.
    ///
    /// # Panics
    /// When the range is not inside the image.
    #[inline]
    pub(crate) unsafe fn fill<R>(&self, offset: usize, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.capacity()), "a write past the image");
        // SAFETY: the range lies inside the mapping, which lives as long as `self`. The caller
        // keeps other threads away from it.
        let bytes = unsafe { &mut *ptr::slice_from_raw_parts_mut(self.map.as_mut_ptr().add(offset), len) };
        fill(bytes)
    }

    /// The `len` bytes at `offset`; `None` when they are not inside the image.
    ///
    /// # Safety
    /// These bytes are written and published to the caller, and never change again.
    #[inline]
    pub(crate) unsafe fn published(&self, offset: usize, len: usize) -> Option<&[u8]> {
        let end = offset.checked_add(len)?;
        if end > self.capacity() {
            return None;
        }
        // SAFETY: the range lies inside the mapping, which lives as long as `self`. The caller
        // promises that no thread writes it.
        Some(unsafe { &*ptr::slice_from_raw_parts(self.map.as_ptr().add(offset), len) })
    }

    /// The value of the record at `offset`, if that is one of `key`, and the record's length in
    /// bytes.
    ///
    /// # Safety
    /// As for [`record_at`](Self::record_at).
    ///
    /// # Panics
    /// When no record is here: the index is wrong, and going on would return other keys' values.
    #[inline]
    pub(crate) unsafe fn value_of(&self, key: &[u8], offset: usize) -> Option<(&[u8], usize)> {
        // SAFETY: the caller's promise.
        let info = unsafe { self.info_at(offset) }.expect("the index points at a published record");
        if info.key_len != key.len() {
            return None;
        }
        // The place of the value follows from the length of the wanted key, so the cache misses of
        // the header and the value overlap. SAFETY: as above.
        let body = unsafe { self.published(offset + info.header_len, key.len() + info.value_len) }?;
        let (found, value) = body.split_at_checked(key.len())?;
        (found == key).then_some((value, info.encoded_len()))
    }

    /// Kind and lengths of the record at `offset`; `None` when the bytes there are none.
    ///
    /// # Safety
    /// As for [`record_at`](Self::record_at).
    #[inline]
    pub(crate) unsafe fn info_at(&self, offset: usize) -> Option<RecordInfo> {
        // SAFETY: the caller's promise. No record is shorter.
        unsafe { self.published(offset, SMALL_HEADER_LEN) }.and_then(peek)
    }

    /// The record at `offset` in a segment with this base LSN; `None` when the bytes there are
    /// none.
    ///
    /// # Safety
    /// All bytes from `offset` to the end of that record are as [`published`](Self::published)
    /// demands.
    #[inline]
    pub(crate) unsafe fn record_at(&self, base_lsn: u64, offset: usize) -> Option<Record<'_>> {
        // SAFETY: the caller's promise.
        let len = unsafe { self.info_at(offset) }?.encoded_len();
        // SAFETY: as above.
        parse_trusted(base_lsn, unsafe { self.published(offset, len) }?)
    }
}

/// The usual page, bytes.
const PAGE_BYTES: usize = 4096;

#[cfg(target_os = "linux")]
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// As large as the system's pages can be, huge ones aside.
#[cfg(target_os = "linux")]
const PAGE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_the_ends_are_guarded() {
        let image = Image::new(5000).unwrap();
        assert_eq!(image.capacity(), 5000);
        // SAFETY: this thread is alone.
        unsafe {
            image.fill(4990, 10, |bytes| bytes.copy_from_slice(b"0123456789"));
            assert_eq!(image.published(4992, 3), Some(b"234".as_slice()));
            assert_eq!(image.published(0, 2), Some(b"\0\0".as_slice()));
            assert_eq!(image.published(4991, 10), None);
            assert_eq!(image.published(usize::MAX, 2), None);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn released_memory_is_zero_when_it_is_used_again() {
        let image = Image::new(3 * PAGE_BYTES_MAX).unwrap();
        let end = image.capacity();
        // SAFETY: this thread is alone.
        unsafe {
            image.fill(0, end, |bytes| bytes.fill(7));
            image.release_behind(10);
            assert!(image.published(0, PAGE_BYTES_MAX).unwrap().iter().all(|byte| *byte == 7));
            assert!(
                image.published(PAGE_BYTES_MAX, 2 * PAGE_BYTES_MAX).unwrap().iter().all(|byte| *byte == 0)
            );
            image.fill(end - 4, 4, |bytes| bytes.copy_from_slice(b"last"));
            assert_eq!(image.published(end - 4, 4), Some(b"last".as_slice()));
            // No whole page is left to give back.
            image.release_behind(end);
            image.release_behind(end - 1);
            assert_eq!(image.published(end - 4, 4), Some(b"last".as_slice()));
        }
    }

    #[test]
    #[should_panic(expected = "past the image")]
    fn a_write_past_the_end_panics() {
        let image = Image::new(64).unwrap();
        // SAFETY: this thread is alone.
        unsafe { image.fill(60, 8, |_| ()) }
    }
}
