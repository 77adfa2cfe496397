//! The segment table: from a slot to its segment.

use kv_core::{Error, Result};
use kv_wal_format::Record;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::limbo::Limbo;
use super::pool::ImagePool;
use super::slots::Slots;
use super::{Fetched, Image, Location, Look, SEGMENTS_MAX, Segment};
use crate::reclaim::{Guard, defer};

/// The segments of a store by slot.
///
/// A reader pins itself, finds a location in the index and looks it up here, without a lock or a
/// reference count. A retired segment keeps its slot and its image until every reader that was
/// pinned at that time has unpinned. Only then another segment may get the slot.
#[derive(Debug)]
pub(crate) struct SegmentTable {
    /// Each entry is null, or a pointer from `Arc::into_raw`.
    entries: Box<[AtomicPtr<Segment>; SEGMENTS_MAX]>,
    slots: Slots,
    /// Bytes of the images that wait for pinned readers.
    retired_bytes: AtomicU64,
    limbo: Limbo,
    fetches: AtomicU64,
}

impl SegmentTable {
    /// At most `recycled_max` images of full segments are recycled.
    pub(crate) fn new(recycled_max: usize) -> Self {
        let entries: Box<[AtomicPtr<Segment>]> =
            (0..SEGMENTS_MAX).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        SegmentTable {
            entries: entries.try_into().expect("that many were made"),
            slots: Slots::default(),
            retired_bytes: AtomicU64::new(0),
            limbo: Limbo::new(ImagePool::new(recycled_max)),
            fetches: AtomicU64::new(0),
        }
    }

    /// A new or recycled image of at least `capacity` bytes, which hold anything.
    pub(crate) fn image(&self, capacity: usize) -> io::Result<Image> {
        self.limbo.pool().take(capacity)
    }

    /// Full segments have `capacity` bytes from now on. Images of another size are not recycled.
    pub(crate) fn recycle_images_of(&self, capacity: usize) {
        self.limbo.pool().resize(capacity);
    }

    /// Gives a segment that holds only its header a recycled image, whose memory the kernel need
    /// not clear. Returns whether there was one.
    ///
    /// # Safety
    /// No writer uses the segment.
    pub(crate) unsafe fn recycle_into(self: &Arc<Self>, blank: &Segment) -> bool {
        let Some(image) = self.limbo.pool().take_kept(blank.capacity) else { return false };
        // SAFETY: the caller's promise.
        unsafe { self.exchange_sparse(blank, image) };
        true
    }

    /// Exchanges the image of a segment for `image`, which gets the same bytes. The image before
    /// goes back to the system once all readers that are pinned now have unpinned. It is not
    /// recycled: most often only its first page is in memory.
    ///
    /// # Safety
    /// No writer uses the segment, and no other thread takes or exchanges its image meanwhile.
    pub(crate) unsafe fn exchange_sparse(self: &Arc<Self>, segment: &Segment, image: Image) {
        // SAFETY: the caller's promise, and the image before lives until the deferred drop.
        let before = unsafe { segment.copy_into(image).and_then(|copy| segment.replace_image(copy)) };
        let bytes = before.as_ref().map_or(0, |image| image.resident_bytes(segment.end()));
        self.defer(bytes as u64, |_| drop(before));
    }

    /// A copy of a sealed segment's image in ordinary memory, for [`exchange`](Self::exchange).
    /// `None` if there is no memory, or the segment is cold.
    pub(crate) fn copy(&self, sealed: &Segment) -> Option<Image> {
        debug_assert!(sealed.is_sealed());
        let image = self.image(sealed.end()).ok()?;
        // SAFETY: no writer uses a sealed segment.
        unsafe { sealed.copy_into(image) }
    }

    /// Exchanges the image of a sealed segment for a [copy](Self::copy) of it. Locations stay
    /// true. The image before is recycled once all readers that are pinned now have unpinned.
    ///
    /// # Safety
    /// No other thread takes or exchanges its image meanwhile.
    pub(crate) unsafe fn exchange(self: &Arc<Self>, sealed: &Segment, copy: Image) {
        // SAFETY: the caller's promise, and the image before lives until the deferred release.
        let Some(before) = (unsafe { sealed.replace_image(copy) }) else { return };
        let used = sealed.end();
        self.defer(before.resident_bytes(used) as u64, move |table| table.limbo.free_image(before, used));
    }

    /// Gives the memory of recycled images back to the system.
    pub(crate) fn clear_pool(&self) {
        self.limbo.pool().clear();
    }

    /// Takes a slot for a new segment if more than `kept` are free.
    pub(crate) fn reserve_slot(&self, kept: usize) -> Option<u16> {
        self.slots.reserve(kept)
    }

    /// Gives back a slot whose segment was never installed.
    pub(crate) fn return_slot(&self, slot: u16) {
        self.slots.give_back(slot);
    }

    /// Makes `segment` reachable by its locations.
    ///
    /// # Panics
    /// Another segment is in its slot.
    pub(crate) fn install(&self, segment: &Arc<Segment>) {
        let pointer = Arc::into_raw(Arc::clone(segment)).cast_mut();
        let before = self.entry(segment.slot).swap(pointer, Ordering::AcqRel);
        assert!(before.is_null(), "two segments in one slot");
    }

    /// The segment at `location`, which the caller found in the index while pinned by `guard`.
    ///
    /// # Panics
    /// There is none: the index is wrong.
    #[inline]
    pub(crate) fn get<'g>(&self, location: Location, _guard: &'g Guard) -> &'g Segment {
        // Acquire pairs with the swap in `install`: the segment is complete.
        let pointer = self.entry(location.slot()).load(Ordering::Acquire);
        assert!(!pointer.is_null(), "the index points into a live segment");
        // SAFETY: `install` stored this pointer with a reference count of its own. `retire` takes
        // the count back only after all guards that were alive then are gone. A guard that is
        // pinned later finds no location of a retired segment in the index. So the segment outlives
        // 'g.
        unsafe { &*pointer }
    }

    /// Whether a record of `key` lies at `location`, which the caller found in the index while
    /// pinned by `guard`.
    #[inline]
    pub(crate) fn look<'g>(&self, location: Location, key: &[u8], guard: &'g Guard) -> Look<'g> {
        self.get(location, guard).look(location.offset(), key, guard)
    }

    /// As [`get`](Self::get), for longer than the caller is pinned.
    pub(crate) fn share(&self, location: Location, guard: &Guard) -> Arc<Segment> {
        let segment = ptr::from_ref(self.get(location, guard));
        // SAFETY: the pointer came from `Arc::into_raw`, and its count is at least one while the
        // caller is pinned.
        unsafe {
            Arc::increment_strong_count(segment);
            Arc::from_raw(segment)
        }
    }

    /// Reads the cold record at `offset` of `segment` from its file.
    ///
    /// # Errors
    /// As for [`Segment::fetch`].
    #[cold]
    pub(crate) fn fetch(&self, segment: &Segment, offset: usize) -> Result<Fetched> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        segment.fetch(offset)
    }

    /// As [`fetch`](Self::fetch), for a writer that replaces the record of `key`. It needs no more
    /// than the length of the value, which may be damaged.
    ///
    /// # Errors
    /// As for [`Segment::fetch`], and the damaged record may be of another key.
    #[cold]
    pub(crate) fn fetch_replaced(&self, segment: &Segment, offset: usize, key: &[u8]) -> Result<Fetched> {
        match self.fetch(segment, offset) {
            // Otherwise the key could never be changed again.
            Err(error @ Error::Corruption { .. }) => segment.fetch_damaged(offset, key)?.ok_or(error),
            fetched => fetched,
        }
    }

    /// Calls `use_it` with the record at `location`, which the caller found in the index while
    /// pinned by `guard`. Reads a cold record from its file.
    ///
    /// # Errors
    /// As for [`Segment::fetch`].
    pub(crate) fn with_record<R>(
        &self,
        location: Location,
        guard: &Guard,
        use_it: impl FnOnce(&Record<'_>) -> R,
    ) -> Result<R> {
        let (segment, offset) = (self.get(location, guard), location.offset());
        if let Some((record, _)) = segment.resident(offset, guard) {
            return Ok(use_it(&record));
        }
        Ok(use_it(&self.fetch(segment, offset)?.record()))
    }

    /// Number of records that were read from files.
    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// Removes a segment in which the index holds no location. It is freed once all readers that
    /// are pinned now have unpinned.
    pub(crate) fn retire(self: &Arc<Self>, segment: &Segment) {
        segment.mark_retired();
        let slot = segment.slot;
        self.defer(segment.resident_bytes() as u64, move |table| {
            table.remove(slot);
            table.return_slot(slot);
        });
    }

    /// Takes the image of a durable segment, which is then cold. Returns its bytes, which are freed
    /// once all readers that are pinned now have unpinned.
    pub(crate) fn evict(self: &Arc<Self>, segment: &Segment) -> u64 {
        debug_assert!(segment.is_durable() && segment.mirrors_file);
        let (used, resident) = (segment.end(), segment.resident_bytes() as u64);
        // SAFETY: the image lives until the deferred release, and so until every reader that is
        // pinned now has unpinned.
        let Some(image) = (unsafe { segment.take_image() }) else { return 0 };
        let bytes = image.capacity() as u64;
        self.defer(resident, move |table| table.limbo.free_image(image, used));
        bytes
    }

    /// Defers `free` until all readers that are pinned now have unpinned. Until then, `bytes` count
    /// as retired.
    fn defer(self: &Arc<Self>, bytes: u64, free: impl FnOnce(&Self) + Send + 'static) {
        self.retired_bytes.fetch_add(bytes, Ordering::Relaxed);
        let table = Arc::clone(self);
        defer(move || {
            free(&table);
            table.retired_bytes.fetch_sub(bytes, Ordering::Relaxed);
        });
    }

    /// Bytes of images that wait for readers, or for another segment.
    pub(crate) fn retired_bytes(&self) -> u64 {
        self.bytes_in_use_by_readers() + self.limbo.pool().bytes()
    }

    /// Bytes of images that wait for readers.
    pub(crate) fn bytes_in_use_by_readers(&self) -> u64 {
        self.retired_bytes.load(Ordering::Relaxed) + self.limbo.bytes()
    }

    /// Frees the unlinked memory that no visitor or scan uses any more.
    pub(crate) fn release_limbo(&self) {
        self.limbo.release();
    }

    fn remove(&self, slot: u16) {
        let pointer = self.entry(slot).swap(ptr::null_mut(), Ordering::AcqRel);
        if !pointer.is_null() {
            // SAFETY: the pointer came from `Arc::into_raw` in `install`, and only the thread that
            // swapped it out takes it back. `retire` and `drop` guarantee that no reader uses it.
            let segment = unsafe { Arc::from_raw(pointer) };
            self.limbo.free(segment);
        }
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "slots are below `SEGMENTS_MAX`")]
    fn entry(&self, slot: u16) -> &AtomicPtr<Segment> {
        &self.entries[usize::from(slot)]
    }
}

impl Drop for SegmentTable {
    fn drop(&mut self) {
        let used = self.slots.used_max();
        for slot in (0..=u16::MAX).take(used) {
            self.remove(slot);
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::reclaim::{collect, pin};
    use crate::segments::{SegmentFile, SegmentFiles};
    use kv_core::{Fs, OsFs, SegmentId};
    use kv_wal_format::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
    use std::thread;
    use std::time::Duration;

    /// Installs a durable segment without a file.
    fn install(table: &SegmentTable, files: &Arc<SegmentFiles>) -> Arc<Segment> {
        let id = SegmentId::new(1);
        let slot = table.reserve_slot(0).expect("a new table has slots");
        let file = Arc::new(SegmentFile::unopened(files, id));
        let (image, end) = (table.image(4096).expect("a page can be had"), SEGMENT_HEADER_LEN);
        let header = SegmentHeader { kind: SegmentKind::Log, segment_id: 1, base_lsn: 0, store_id: 0 };
        let segment = Arc::new(Segment::new(&header, slot, image, file, Duration::ZERO, end));
        segment.mark_sealed();
        segment.mark_durable();
        table.install(&segment);
        segment
    }

    /// Repeats the check until it holds: readers of other tests are pinned, each for a moment.
    fn holds_soon(check: impl Fn() -> bool) -> bool {
        (0..2000).any(|_| {
            collect();
            thread::sleep(Duration::from_millis(1));
            check()
        })
    }

    #[test]
    fn a_retired_segment_keeps_its_slot_until_its_readers_have_unpinned() {
        let dir = tempfile::tempdir().unwrap();
        let files = SegmentFiles::new(OsFs.open_dir(dir.path()).unwrap(), 1);
        let table = Arc::new(SegmentTable::new(1));
        table.recycle_images_of(4096);
        let segment = install(&table, &files);
        let location = Location::new(segment.slot, SEGMENT_HEADER_LEN);
        let guard = pin();
        assert!(ptr::eq(table.get(location, &guard), &raw const *segment));
        table.retire(&segment);
        collect();
        assert!(ptr::eq(table.get(location, &guard), &raw const *segment));
        assert_eq!((table.retired_bytes(), table.reserve_slot(0)), (4096, Some(segment.slot + 1)));
        drop(guard);
        // The segment is still shared here, so its image is in limbo.
        let slot = segment.slot;
        assert!(holds_soon(|| table.reserve_slot(0) == Some(slot)));
        assert_eq!((table.bytes_in_use_by_readers(), table.retired_bytes()), (4096, 4096));
        drop(segment);
        table.release_limbo();
        assert_eq!((table.bytes_in_use_by_readers(), table.retired_bytes()), (0, 4096));
        table.clear_pool();
        assert_eq!(table.retired_bytes(), 0);
    }

    #[test]
    fn an_evicted_segment_stays_reachable_without_its_image() {
        let dir = tempfile::tempdir().unwrap();
        let files = SegmentFiles::new(OsFs.open_dir(dir.path()).unwrap(), 1);
        let table = Arc::new(SegmentTable::new(1));
        let segment = install(&table, &files);
        assert_eq!((table.evict(&segment), table.evict(&segment)), (4096, 0));
        assert!(holds_soon(|| table.bytes_in_use_by_readers() == 0));
        let (guard, location) = (pin(), Location::new(segment.slot, SEGMENT_HEADER_LEN));
        assert!(table.get(location, &guard).image(&guard).is_none());
    }
}
