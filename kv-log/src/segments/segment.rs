use kv_core::{Lsn, SegmentId};
use kv_wal_format::{Origin, Record, RecordKind, SEGMENT_HEADER_LEN, Seal, SegmentHeader, SegmentKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::residence::Residence;
use super::stage::{CurrentStage, Stage};
use super::tally::{FileFacts, Tally};
use super::{Found, Image, Look, SegmentFile, Shifts};
use crate::memory::CACHE_LINE;
use crate::reclaim::{Guard, pin};

/// One segment of the log.
///
/// After creation only the counters, the stage and the image change. The flusher and the spares
/// worker exchange the image, the evictor takes it, and the warm-up brings it back. The bytes of a
/// published record never change.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    /// Its slot in the segment table, and in every location.
    pub(crate) slot: u16,
    pub(crate) kind: SegmentKind,
    /// The LSN from which its record headers count.
    pub(crate) base_lsn: u64,
    residence: Residence,
    /// Room for records, bytes from the start: in its first image, and in the file until it is cut.
    pub(crate) capacity: usize,
    /// Whether locations are also places in the file. `false` for an image that compaction in
    /// memory has made.
    pub(crate) mirrors_file: bool,
    /// From such an image to the file.
    shifts: OnceLock<Shifts>,
    /// Whether a checkpoint put its locations into the index. No reader of its file is known then,
    /// so the file stays open after its removal.
    pub(crate) is_from_checkpoint: bool,
    pub(crate) file: Arc<SegmentFile>,
    /// Monotonic time of its creation; for an output of compaction, the mean time of its records.
    /// Policies see the age since then.
    pub(crate) created: Duration,
    pub(crate) tally: Tally,
    stage: CurrentStage,
    /// Bytes from the start that are in the file. Only the leader of a flush changes it.
    written: AtomicUsize,
    /// Bytes from the start that are synced. Only the leader of a flush changes it.
    synced: AtomicUsize,
    /// Mean length of its records at the seal, bytes.
    mean_record_len: AtomicUsize,
}

/// The most cache lines of a record to prefetch. The processor prefetches the rest of a longer one.
const LINES_MAX: usize = 16;

impl Segment {
    pub(crate) fn new(
        header: &SegmentHeader,
        slot: u16,
        image: Image,
        file: Arc<SegmentFile>,
        created: Duration,
        end: usize,
    ) -> Self {
        let capacity = image.capacity();
        Self::with_residence(header, slot, Residence::new(Some(image)), capacity, file, created, end)
    }

    /// A durable segment of `len` bytes whose records were not read. A checkpoint holds `facts`,
    /// and `entries` locations in it.
    pub(crate) fn unread(
        header: &SegmentHeader,
        slot: u16,
        file: Arc<SegmentFile>,
        created: Duration,
        len: usize,
        facts: &FileFacts,
        entries: u64,
    ) -> Self {
        let unread = Segment {
            is_from_checkpoint: true,
            tally: Tally::unverified(len, facts, entries),
            ..Self::with_residence(header, slot, Residence::new(None), len, file, created, len)
        };
        unread.mark_sealed();
        unread.mark_durable();
        unread
    }

    fn with_residence(
        header: &SegmentHeader,
        slot: u16,
        residence: Residence,
        capacity: usize,
        file: Arc<SegmentFile>,
        created: Duration,
        end: usize,
    ) -> Self {
        Segment {
            id: SegmentId::new(header.segment_id),
            slot,
            kind: header.kind,
            base_lsn: header.base_lsn,
            residence,
            capacity,
            mirrors_file: true,
            shifts: OnceLock::new(),
            is_from_checkpoint: false,
            file,
            created,
            tally: Tally::new(end),
            stage: CurrentStage::new(Stage::Blank),
            written: AtomicUsize::new(end),
            synced: AtomicUsize::new(end),
            mean_record_len: AtomicUsize::new(2 * CACHE_LINE),
        }
    }

    /// This durable segment with an empty image in another slot, for the survivors of compaction in
    /// memory. The file stays.
    pub(crate) fn with_image(&self, slot: u16, image: Image) -> Self {
        Segment {
            capacity: image.capacity(),
            mirrors_file: false,
            ..self.in_slot(slot, Residence::new(Some(image)), SEGMENT_HEADER_LEN)
        }
    }

    /// This durable segment without an image in another slot, with the locations of its file.
    pub(crate) fn without_image(&self, slot: u16) -> Self {
        self.in_slot(slot, Residence::new(None), self.file_len())
    }

    fn in_slot(&self, slot: u16, residence: Residence, end: usize) -> Self {
        Segment {
            id: self.id,
            slot,
            kind: self.kind,
            base_lsn: self.base_lsn,
            residence,
            capacity: self.file_len(),
            mirrors_file: true,
            shifts: OnceLock::new(),
            is_from_checkpoint: self.is_from_checkpoint,
            file: Arc::clone(&self.file),
            created: self.created,
            tally: self.tally.of_same_file(end),
            stage: CurrentStage::new(Stage::Durable),
            written: AtomicUsize::new(self.written()),
            synced: AtomicUsize::new(self.synced()),
            mean_record_len: AtomicUsize::new(self.mean_record_len()),
        }
    }

    /// The context of its record headers.
    pub(crate) fn origin(&self) -> Origin {
        Origin { segment_id: self.id.get(), base_lsn: self.base_lsn }
    }

    /// The image while the caller is pinned. `None` if the segment is cold.
    #[inline]
    pub(crate) fn image<'g>(&self, guard: &'g Guard) -> Option<&'g Image> {
        self.residence.get(guard)
    }

    /// The image for longer than the caller is pinned. `None` if the segment is cold.
    pub(crate) fn share_image(&self) -> Option<Arc<Image>> {
        self.residence.share()
    }

    /// Gives the segment an image with the bytes of its file, if it is cold.
    pub(crate) fn warm(&self, image: Arc<Image>) {
        self.residence.fill(image);
    }

    /// The offset in the file of the record at `offset`.
    pub(crate) fn offset_in_file(&self, offset: usize) -> usize {
        self.shifts.get().map_or(offset, |shifts| shifts.to_file(offset))
    }

    /// Notes where the records of an image that compaction in memory made lie in the file. Once
    /// only.
    pub(crate) fn set_shifts(&self, shifts: Shifts) {
        let set = self.shifts.set(shifts);
        debug_assert!(set.is_ok(), "an image is filled once");
    }

    /// Whether the index was filled from a checkpoint, and not compared with the records yet.
    pub(crate) fn is_unverified(&self) -> bool {
        self.tally.is_unverified()
    }

    /// The walk of a verification has counted the records of a shard, which the caller holds.
    pub(crate) fn note_walked(&self, shard: usize) {
        self.tally.unverified.note_walked(shard);
    }

    /// Ends the walk of a verification, which found `entries` live puts of `live` bytes. Returns
    /// the number of locations in the index that lead to no record. At 0 the segment is verified.
    pub(crate) fn end_walk(&self, entries: u64, live: u64) -> u64 {
        let unfounded = self.tally.unverified.unfounded(entries);
        if unfounded == 0 {
            self.tally.verified(live);
        }
        unfounded
    }

    /// Takes the image away.
    ///
    /// # Safety
    /// The answer lives until every reader that is pinned now has unpinned.
    pub(super) unsafe fn take_image(&self) -> Option<Arc<Image>> {
        // SAFETY: the caller's promise.
        unsafe { self.residence.take() }
    }

    /// Copies the bytes up to the end of the records into `image`, which no other thread knows.
    /// `None` if the segment is cold.
    ///
    /// # Safety
    /// No writer uses the segment.
    pub(super) unsafe fn copy_into(&self, image: Image) -> Option<Image> {
        let original = self.share_image()?;
        // SAFETY: the bytes before the end were published, and no other thread knows `image`.
        unsafe {
            let bytes = original.published(0, self.end())?;
            image.fill(0, bytes.len(), |out| out.copy_from_slice(bytes));
        }
        Some(image)
    }

    /// Exchanges the image for a [copy](Self::copy_into) of it.
    ///
    /// # Safety
    /// No writer used the segment since the copy, and no other thread takes or exchanges its image
    /// meanwhile. The answer lives until every reader that is pinned now has unpinned.
    pub(super) unsafe fn replace_image(&self, copy: Image) -> Option<Arc<Image>> {
        // SAFETY: the caller's promise.
        unsafe { self.residence.replace(copy) }
    }

    /// The image of a segment that no other thread knows.
    pub(super) fn into_image(self) -> Option<Arc<Image>> {
        // SAFETY: the segment is owned, so no reader looks at it.
        unsafe { self.residence.take() }
    }

    /// Whether the image outlives the process.
    pub(crate) fn is_shared(&self) -> bool {
        self.image(&pin()).is_some_and(Image::is_shared)
    }

    /// Bytes of the image. 0 if the segment is cold.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.image(&pin()).map_or(0, Image::capacity)
    }

    /// Bytes of the image that are in memory. 0 if the segment is cold.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.image(&pin()).map_or(0, |image| image.resident_bytes(self.end()))
    }

    /// Used bytes of its file.
    pub(crate) fn file_len(&self) -> usize {
        if self.is_durable() { self.synced() } else { self.end() }
    }

    /// End of the records, bytes from the start of the image.
    pub(crate) fn end(&self) -> usize {
        self.tally.end()
    }

    pub(crate) fn set_end(&self, end: usize) {
        self.tally.set_end(end);
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.stage.has_reached(Stage::Sealed)
    }

    /// Sealed, written and synced: compaction and eviction may take it.
    pub(crate) fn is_durable(&self) -> bool {
        self.stage.has_reached(Stage::Durable)
    }

    /// Writers append to it from now on.
    pub(crate) fn mark_active(&self) {
        self.stage.advance(Stage::Active);
    }

    /// Its end is final from now on.
    pub(crate) fn mark_sealed(&self) {
        let records = usize::try_from(self.tally.records()).unwrap_or(usize::MAX).max(1);
        self.mean_record_len
            .store(self.file_len().saturating_sub(SEGMENT_HEADER_LEN) / records, Ordering::Relaxed);
        self.stage.advance(Stage::Sealed);
    }

    /// All of it is synced from now on.
    pub(crate) fn mark_durable(&self) {
        self.stage.advance(Stage::Durable);
        self.file.allow_close();
    }

    /// The index holds no location in it from now on.
    pub(super) fn mark_retired(&self) {
        self.stage.advance(Stage::Retired);
    }

    /// Bytes from the start that are in the file.
    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn set_written(&self, len: usize) {
        self.written.store(len, Ordering::Relaxed);
    }

    /// Bytes from the start that are synced.
    pub(crate) fn synced(&self) -> usize {
        self.synced.load(Ordering::Relaxed)
    }

    pub(crate) fn set_synced(&self, len: usize) {
        self.synced.store(len, Ordering::Relaxed);
    }

    /// Counts an added put or delete of `len` bytes. One thread at a time writes a segment.
    #[inline]
    pub(crate) fn add_record(&self, lsn: Lsn, kind: RecordKind, len: usize) {
        self.tally.add_record(lsn, kind, len);
    }

    /// As [`Tally::oldest_dead_put`].
    pub(crate) fn oldest_dead_put(&self) -> u64 {
        self.tally.oldest_dead_put()
    }

    /// As [`Tally::dead_bytes`].
    pub(crate) fn dead_bytes(&self, needed_tombstone_bytes: u64) -> u64 {
        self.tally.dead_bytes(needed_tombstone_bytes)
    }

    /// Highest LSN of its changes. 0 if it holds none.
    pub(crate) fn max_lsn(&self) -> u64 {
        self.tally.max_lsn()
    }

    /// An estimate of the most records that a compaction keeps.
    pub(crate) fn survivors_max(&self) -> usize {
        let bytes = self.tally.live_bytes() + self.tally.tombstone_bytes.load(Ordering::Relaxed);
        usize::try_from(bytes).unwrap_or(usize::MAX) / self.mean_record_len().max(1)
    }

    /// The seal that finishes the segment as it is now.
    pub(crate) fn seal(&self) -> Seal {
        Seal { records: self.tally.records(), max_lsn: self.max_lsn() }
    }

    pub(super) fn mean_record_len(&self) -> usize {
        self.mean_record_len.load(Ordering::Relaxed)
    }

    /// The cache lines of a record of mean length at `offset`. None if the segment is cold.
    #[inline]
    pub(crate) fn lines_of(&self, offset: usize, guard: &Guard) -> impl Iterator<Item = *const u8> {
        let start = self.image(guard).map(|image| image.address(offset));
        let lines = (self.mean_record_len() / CACHE_LINE + 1).min(LINES_MAX);
        start
            .into_iter()
            .flat_map(move |start| (0..lines).map(move |line| start.wrapping_add(line * CACHE_LINE)))
    }

    /// Compares the key of the record at `offset`, which the index points at, with `key`.
    #[inline]
    pub(crate) fn look<'g>(&self, offset: usize, key: &[u8], guard: &'g Guard) -> Look<'g> {
        let Some(image) = self.image(guard) else { return Look::Cold };
        // SAFETY: `offset` comes from the index, which points only at published records.
        match unsafe { image.value_of(key, offset) } {
            Some((value, record_len)) => Look::Found(Found { value, record_len, image: Some(image) }),
            None => Look::OtherKey,
        }
    }

    /// The record at `offset`, which the index points at, and its image. `None` if the segment is
    /// cold.
    pub(crate) fn resident<'g>(&self, offset: usize, guard: &'g Guard) -> Option<(Record<'g>, &'g Image)> {
        let image = self.image(guard)?;
        // SAFETY: as above.
        let record = unsafe { image.record_at(self.base_lsn, offset) };
        Some((record.expect("the index points at a published record"), image))
    }
}
