//! The maker: it creates new segments, each with an image, a slot and a synced file.

use kv_core::{Error, Op, Result, SegmentId};
use kv_wal_format::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::leftovers::Leftovers;
use super::reserve::{Need, Room, Shares};
use crate::context::Context;
use crate::segments::{
    Image, SEGMENTS_MAX, SLOTS_FOR_COMPACTION, Segment, SegmentFile, SegmentFiles, SegmentTable,
};

/// Creates segments.
#[derive(Debug)]
pub(crate) struct SegmentMaker {
    context: Arc<Context>,
    files: Arc<SegmentFiles>,
    table: Arc<SegmentTable>,
    pub(super) room: Arc<Room>,
    pub(super) leftovers: Arc<Leftovers>,
}

/// The plan of a new segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) header: SegmentHeader,
    /// Bytes of the file.
    pub(super) capacity: usize,
    /// End of the records, bytes from the start.
    pub(super) end: usize,
    /// Monotonic time of its creation; for an output of compaction, the mean time of its records.
    pub(super) created: Duration,
    pub(super) need: Need,
}

impl SegmentMaker {
    pub(crate) fn new(
        context: Arc<Context>,
        files: Arc<SegmentFiles>,
        table: Arc<SegmentTable>,
        room: Arc<Room>,
    ) -> Self {
        let leftovers = Arc::new(Leftovers::new(Arc::clone(&context.dir)));
        SegmentMaker { context, files, table, room, leftovers }
    }

    /// Creates a segment, and writes its file. `fill_rest` writes the bytes behind the header. The
    /// caller syncs the file and the directory, and names the segment in a manifest.
    ///
    /// # Errors
    /// There is a file of this name ([`AlreadyExists`](std::io::ErrorKind::AlreadyExists)): it
    /// stays as it is. There is no room. The file cannot be written.
    pub(super) fn make(
        &self,
        plan: Plan,
        shares: Shares,
        fill_rest: impl FnOnce(&mut [u8]),
    ) -> Result<Arc<Segment>> {
        let Plan { header, capacity, end, created, need } = plan;
        let id = SegmentId::new(header.segment_id);
        // A log segment gets a recycled image when writers are about to fill it.
        let is_filled = header.kind == SegmentKind::Compacted;
        let image = if is_filled { self.table.image(capacity) } else { Image::sparse(capacity) };
        let image = image.map_err(|error| Error::io(Op::AllocateMemory, self.context.path(), error))?;
        // SAFETY: no other thread knows this image yet.
        let bytes = unsafe {
            image.fill(0, end, |out| {
                let (start, rest) = out.split_at_mut(SEGMENT_HEADER_LEN);
                start.copy_from_slice(&header.encode());
                fill_rest(rest);
            });
            image.published(0, end).unwrap_or_default()
        };
        let kept = if need == Need::Compaction { 0 } else { SLOTS_FOR_COMPACTION };
        let slot = self.table.reserve_slot(kept).ok_or_else(|| self.too_many_segments())?;
        let file = self.room.create(capacity, need, shares, || {
            let mut file = SegmentFile::create(&self.files, id, capacity)?;
            // Only from here on is the file of this name known to be the store's.
            file.begin(bytes, self.context.options.via()).inspect_err(|_| self.leftovers.discard(id, end))?;
            Ok(file)
        });
        match file {
            Ok(file) => {
                self.context.counters.bytes_written.fetch_add(end as u64, Ordering::Relaxed);
                Ok(Arc::new(Segment::new(&header, slot, image, Arc::new(file), created, end)))
            }
            Err(error) => {
                self.table.return_slot(slot);
                Err(error)
            }
        }
    }

    /// Syncs the file of a segment that [`make`](Self::make) made.
    pub(super) fn sync(&self, segment: &Segment) -> Result<()> {
        segment.file.sync()?;
        self.context.counters.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A segment without a file. It stands for the active one of a store that is only read.
    pub(super) fn placeholder(&self) -> Result<Arc<Segment>> {
        let image = Image::new(SEGMENT_HEADER_LEN);
        let image = image.map_err(|error| Error::io(Op::AllocateMemory, self.context.path(), error))?;
        let slot = self.table.reserve_slot(0).ok_or_else(|| self.too_many_segments())?;
        let header = SegmentHeader { kind: SegmentKind::Log, segment_id: u64::MAX, base_lsn: 0, store_id: 0 };
        let file = Arc::new(SegmentFile::unopened(&self.files, SegmentId::new(header.segment_id)));
        let now = self.context.env.clock.monotonic();
        Ok(Arc::new(Segment::new(&header, slot, image, file, now, SEGMENT_HEADER_LEN)))
    }

    /// Makes a segment reachable by its locations.
    pub(super) fn install(&self, segment: &Arc<Segment>) {
        self.table.install(segment);
    }

    /// Gives back a segment's slot that was never installed.
    pub(super) fn return_slot(&self, segment: &Segment) {
        self.table.return_slot(segment.slot);
    }

    fn too_many_segments(&self) -> Error {
        let limit = SEGMENTS_MAX - SLOTS_FOR_COMPACTION;
        Error::TooManySegments { path: self.context.path().to_path_buf(), limit }
    }
}
