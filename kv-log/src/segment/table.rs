use crossbeam_epoch::Guard;
use parking_lot::Mutex;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::{Image, Location, SEGMENTS_MAX, Segment};

/// Slots through which locations find their segment.
///
/// Readers pin an epoch (crossbeam-epoch), find a location in the index and look it up here: no lock,
/// no reference count. A retired segment keeps its slot, its image and its place in the table until
/// every reader that was pinned at the time has gone on: only then is the slot given to another
/// segment.
#[derive(Debug)]
pub(crate) struct SegmentTable {
    /// Each holds null, or a pointer from `Arc::into_raw`.
    slots: Box<[AtomicPtr<Segment>]>,
    free: Mutex<FreeSlots>,
    /// Image bytes of retired segments that are not freed yet.
    retired_bytes: AtomicU64,
    recycled: Recycled,
}

/// Images of freed segments, for segments to come: the system has nothing to clear in them. What they hold is garbage.
#[derive(Debug)]
struct Recycled {
    /// Only images of this capacity are worth keeping: that of a head.
    capacity: usize,
    images: Mutex<Vec<Image>>,
}

/// Images that are kept at most.
const RECYCLED_MAX: usize = 4;

#[derive(Debug)]
struct FreeSlots {
    returned: Vec<u16>,
    /// Slots from this one on were never used.
    unused_from: usize,
}

impl SegmentTable {
    /// For heads of `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        SegmentTable {
            slots: (0..SEGMENTS_MAX).map(|_| AtomicPtr::new(ptr::null_mut())).collect(),
            free: Mutex::new(FreeSlots { returned: Vec::new(), unused_from: 0 }),
            retired_bytes: AtomicU64::new(0),
            recycled: Recycled { capacity, images: Mutex::default() },
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

    /// Takes a slot for a segment that is about to be made; `None` when all are in use.
    pub(crate) fn reserve_slot(&self) -> Option<u16> {
        let mut free = self.free.lock();
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

    /// Takes a segment out, of which the index holds no location any more. It is freed once all
    /// readers pinned now have gone on.
    pub(crate) fn retire(self: &Arc<Self>, segment: &Segment, guard: &Guard) {
        let bytes = segment.image.capacity() as u64;
        let slot = segment.slot;
        self.retired_bytes.fetch_add(bytes, Ordering::Relaxed);
        let table = Arc::clone(self);
        guard.defer(move || {
            table.remove(slot);
            table.return_slot(slot);
            table.retired_bytes.fetch_sub(bytes, Ordering::Relaxed);
        });
    }

    /// Image bytes that wait for readers to go on, or for another segment.
    pub(crate) fn retired_bytes(&self) -> u64 {
        let recycled = self.recycled.images.lock().len() * self.recycled.capacity;
        self.retired_bytes.load(Ordering::Relaxed) + recycled as u64
    }

    fn remove(&self, slot: u16) {
        let pointer = self.slot(slot).swap(ptr::null_mut(), Ordering::AcqRel);
        if !pointer.is_null() {
            // SAFETY: the pointer came from `Arc::into_raw` in `install`; the swap makes this the
            // only place that takes it back, and `retire` (or `drop`) that nobody uses it.
            let segment = unsafe { Arc::from_raw(pointer) };
            let image = Arc::into_inner(segment).map(|segment| segment.image);
            if let Some(image) = image.filter(|image| image.capacity() == self.recycled.capacity) {
                let mut recycled = self.recycled.images.lock();
                if recycled.len() < RECYCLED_MAX {
                    recycled.push(image);
                }
            }
        }
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
