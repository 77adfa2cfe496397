use kv_core::Result;
use parking_lot::Mutex;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::{Fetched, Image, Location, SEGMENTS_MAX, Segment};
use crate::readers::{Guard, defer, is_held};

/// Slots through which locations find their segment.
///
/// Readers pin themselves, find a location in the index and look it up here: no lock,
/// no reference count. A retired segment keeps its slot, its image and its place in the table until
/// every reader that was pinned at the time has gone on: only then is the slot given to another
/// segment.
#[derive(Debug)]
pub(crate) struct SegmentTable {
    /// Each holds null, or a pointer from `Arc::into_raw`.
    slots: Box<[AtomicPtr<Segment>; SEGMENTS_MAX]>,
    free: Mutex<FreeSlots>,
    /// Image bytes that wait for readers who were pinned when they were taken away.
    retired_bytes: AtomicU64,
    held: Mutex<Held>,
    recycled: Recycled,
    fetches: AtomicU64,
}

/// What is out of the table and still in use: by a slow visitor, a scan, or a walk through all segments.
#[derive(Debug, Default)]
struct Held {
    /// With the size of the image. To look for that is to pin, and who pins may have to free others: not under a lock.
    segments: Vec<(Arc<Segment>, usize)>,
    images: Vec<Arc<Image>>,
}

/// Images of freed segments, for segments to come: the system has nothing to clear in them. What they hold is garbage.
#[derive(Debug)]
struct Recycled {
    /// Only images of this capacity are worth keeping: that of a head.
    capacity: usize,
    count_max: usize,
    images: Mutex<Vec<Image>>,
}

#[derive(Debug)]
struct FreeSlots {
    returned: Vec<u16>,
    /// Slots from this one on were never used.
    unused_from: usize,
}

impl SegmentTable {
    /// For heads of `capacity` bytes, of which at most `recycled_max` images are kept for use again.
    pub(crate) fn new(capacity: usize, recycled_max: usize) -> Self {
        let slots: Box<[AtomicPtr<Segment>]> =
            (0..SEGMENTS_MAX).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        let slots = slots.try_into().expect("that many were made");
        SegmentTable {
            slots,
            free: Mutex::new(FreeSlots { returned: Vec::new(), unused_from: 0 }),
            retired_bytes: AtomicU64::new(0),
            held: Mutex::default(),
            fetches: AtomicU64::new(0),
            recycled: Recycled { capacity, count_max: recycled_max, images: Mutex::default() },
        }
    }

    /// An image of at least `capacity` bytes, which hold anything. What is nearly as large as a head gets an image of the
    /// same size, so that it can be recycled.
    pub(crate) fn image(&self, capacity: usize) -> std::io::Result<Image> {
        let of_head = self.recycled.capacity;
        if capacity > of_head || capacity < of_head - of_head / 16 {
            return Image::new(capacity);
        }
        let recycled = self.recycled.images.lock().pop();
        recycled.map_or_else(|| Image::new(of_head), Ok)
    }

    /// Gives the memory that is kept for segments to come back to the system.
    pub(crate) fn trim(&self) {
        self.recycled.images.lock().clear();
    }

    /// Takes a slot for a segment that is about to be made, if more than `kept` are free.
    pub(crate) fn reserve_slot(&self, kept: usize) -> Option<u16> {
        let mut free = self.free.lock();
        if free.returned.len() + SEGMENTS_MAX - free.unused_from <= kept {
            return None;
        }
        if let Some(slot) = free.returned.pop() {
            return Some(slot);
        }
        let slot = u16::try_from(free.unused_from).ok()?;
        free.unused_from += 1;
        Some(slot)
    }

    /// Gives back a slot whose segment was never installed.
    pub(crate) fn return_slot(&self, slot: u16) {
        self.free.lock().returned.push(slot);
    }

    /// Makes `segment` reachable by its locations.
    pub(crate) fn install(&self, segment: &Arc<Segment>) {
        let pointer = Arc::into_raw(Arc::clone(segment)).cast_mut();
        let before = self.slot(segment.slot).swap(pointer, Ordering::AcqRel);
        assert!(before.is_null(), "two segments in one slot");
    }

    /// The segment at `location`, which the caller found in the index while pinned by `guard`.
    ///
    /// # Panics
    /// When there is none: the index is wrong.
    #[inline]
    pub(crate) fn get<'g>(&self, location: Location, _guard: &'g Guard) -> &'g Segment {
        let pointer = self.slot(location.slot()).load(Ordering::Acquire);
        assert!(!pointer.is_null(), "the index points into a live segment");
        // SAFETY: a non-null pointer here is one `install` put, with a reference count of its own.
        // `retire` takes that back only after all guards that were alive then are gone, and a guard
        // pinned later finds no location of a retired segment in the index. So the segment outlives
        // 'g.
        unsafe { &*pointer }
    }

    /// As [`get`](Self::get), for longer than the caller is pinned.
    pub(crate) fn share(&self, location: Location, guard: &Guard) -> Arc<Segment> {
        let segment = ptr::from_ref(self.get(location, guard));
        // SAFETY: the pointer came from `Arc::into_raw`, and while the caller is pinned its count is at least one.
        unsafe {
            Arc::increment_strong_count(segment);
            Arc::from_raw(segment)
        }
    }

    /// The cold record at `offset` of `segment`.
    ///
    /// # Errors
    /// As for [`Segment::fetch`].
    #[cold]
    pub(crate) fn fetch(&self, segment: &Segment, offset: usize) -> Result<Fetched> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        segment.fetch(offset)
    }

    /// Records that were read from files.
    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// Takes a segment out, of which the index holds no location any more. It is freed once all
    /// readers pinned now have gone on.
    pub(crate) fn retire(self: &Arc<Self>, segment: &Segment) {
        let slot = segment.slot;
        self.defer(segment.memory_bytes() as u64, move |table| {
            table.remove(slot);
            table.return_slot(slot);
        });
    }

    /// Takes the image of a durable segment away, which is cold then; returns how many bytes that were. They are freed
    /// once all readers pinned now have gone on.
    pub(crate) fn evict(self: &Arc<Self>, segment: &Segment) -> u64 {
        debug_assert!(segment.is_durable() && segment.mirrors_file);
        // SAFETY: what is deferred happens once every reader who is pinned now has gone on.
        let Some(image) = (unsafe { segment.residence.take() }) else { return 0 };
        let bytes = image.capacity() as u64;
        self.defer(bytes, |table| table.recycle(image));
        bytes
    }

    /// Has `free` called once all readers pinned now have gone on; until then, so many bytes count as retired.
    fn defer(self: &Arc<Self>, bytes: u64, free: impl FnOnce(&Self) + Send + 'static) {
        self.retired_bytes.fetch_add(bytes, Ordering::Relaxed);
        let table = Arc::clone(self);
        defer(move || {
            free(&table);
            table.retired_bytes.fetch_sub(bytes, Ordering::Relaxed);
        });
    }

    /// Image bytes that wait for readers to go on, or for another segment.
    pub(crate) fn retired_bytes(&self) -> u64 {
        let recycled = self.recycled.images.lock().len() * self.recycled.capacity;
        self.bytes_in_use_by_readers() + recycled as u64
    }

    /// Image bytes that wait for readers to go on.
    pub(crate) fn bytes_in_use_by_readers(&self) -> u64 {
        let held = self.held.lock();
        let segments = held.segments.iter().map(|(_, bytes)| *bytes);
        let held: usize = segments.chain(held.images.iter().map(|image| image.capacity())).sum();
        self.retired_bytes.load(Ordering::Relaxed) + held as u64
    }

    /// Frees what was held, and is not any more.
    pub(crate) fn release_held(&self) {
        let (segments, images) = {
            let mut held = self.held.lock();
            let segments = held.segments.extract_if(.., |(segment, _)| Arc::strong_count(segment) == 1);
            let segments: Vec<Arc<Segment>> = segments.map(|(segment, _)| segment).collect();
            let images: Vec<Arc<Image>> = held.images.extract_if(.., |image| !Self::is_held(image)).collect();
            (segments, images)
        };
        for segment in segments {
            self.free(segment);
        }
        for image in images {
            self.recycle(image);
        }
    }

    fn remove(&self, slot: u16) {
        let pointer = self.slot(slot).swap(ptr::null_mut(), Ordering::AcqRel);
        if !pointer.is_null() {
            // SAFETY: the pointer came from `Arc::into_raw` in `install`; the swap makes this the
            // only place that takes it back, and `retire` (or `drop`) that nobody uses it.
            let segment = unsafe { Arc::from_raw(pointer) };
            self.free(segment);
        }
    }

    /// Frees a segment that no location leads to any more. While somebody holds it, and could find its image through it, it
    /// is set aside.
    fn free(&self, segment: Arc<Segment>) {
        match Arc::try_unwrap(segment) {
            Ok(segment) => {
                // SAFETY: nobody comes to this segment any more.
                if let Some(image) = unsafe { segment.residence.take() } {
                    self.recycle(image);
                }
            }
            Err(segment) => {
                let bytes = segment.memory_bytes();
                self.held.lock().segments.push((segment, bytes));
            }
        }
    }

    /// Keeps an image that nobody finds any more for a segment to come, or gives it back to the system. While somebody
    /// holds it, it is set aside.
    fn recycle(&self, image: Arc<Image>) {
        if Self::is_held(&image) {
            self.held.lock().images.push(image);
            return;
        }
        let image = Arc::into_inner(image).filter(|image| image.capacity() == self.recycled.capacity);
        if let Some(image) = image {
            let mut recycled = self.recycled.images.lock();
            if recycled.len() < self.recycled.count_max {
                recycled.push(image);
            }
        }
    }

    /// Whether an image that is out of the table is in use. Once it is not, it never will be again.
    fn is_held(image: &Arc<Image>) -> bool {
        Arc::strong_count(image) > 1 || is_held(Arc::as_ptr(image))
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "there is a slot for every u16")]
    fn slot(&self, slot: u16) -> &AtomicPtr<Segment> {
        &self.slots[usize::from(slot)]
    }
}

impl Drop for SegmentTable {
    fn drop(&mut self) {
        let used = self.free.get_mut().unused_from;
        for slot in (0..=u16::MAX).take(used) {
            self.remove(slot);
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_slots_are_kept_for_compaction() {
        let table = SegmentTable::new(1024, 0);
        let growth = std::iter::from_fn(|| table.reserve_slot(10)).count();
        assert_eq!(growth, SEGMENTS_MAX - 10);
        let last: Vec<u16> = std::iter::from_fn(|| table.reserve_slot(0)).collect();
        assert_eq!(last.len(), 10);
        table.return_slot(last[0]);
        assert!(table.reserve_slot(1).is_none() && table.reserve_slot(0).is_some());
    }
}
