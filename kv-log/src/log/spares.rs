//! Spares: segments made ahead of need, so that a writer does not wait while a file is created and
//! synced.
//!
//! The spares worker makes one when the active segment begins to fill up. A sync takes long on a
//! disk that is busy with the log, and a writer may still have to wait for a spare. From then on
//! the worker keeps more of them.

use kv_core::{Error, Lsn, Result};
use kv_wal_format::SEGMENT_HEADER_LEN;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::end::LogEnd;
use crate::context::Context;
use crate::eviction::Evictor;
use crate::manifest::{Catalog, Need};
use crate::options::Options;
use crate::segments::Segment;

/// Capacity of a new store's first segment, bytes, unless the segment size is smaller.
const FIRST_SEGMENT_BYTES: usize = 1 << 20;

/// Capacity of the smallest active segment, bytes, unless the segment size is smaller.
const SMALL_SEGMENT_BYTES: usize = 64 << 10;

/// Capacity of the largest segment that takes space from the reserve, bytes.
const RELIEF_SEGMENT_BYTES: usize = 1 << 20;

/// Makes and keeps the segments that follow the active one.
#[derive(Debug)]
pub(crate) struct Spares {
    context: Arc<Context>,
    catalog: Arc<Catalog>,
    evictor: Arc<Evictor>,
    /// In the order of their ids, in which the log uses them.
    ready: Mutex<VecDeque<Arc<Segment>>>,
    /// How many to keep.
    wanted: AtomicUsize,
    /// Held while segments are made, so that they are made in the order of their ids.
    making: Mutex<()>,
    /// Whether memory of the first ready spare may be populated.
    in_memory: AtomicBool,
    /// Whether the disk was full at the last attempt. The next attempt then asks for a small
    /// segment, because a disk takes long to refuse a large one.
    disk_was_full: AtomicBool,
}

impl Spares {
    pub(crate) fn new(context: Arc<Context>, catalog: Arc<Catalog>, evictor: Arc<Evictor>) -> Self {
        Spares {
            context,
            catalog,
            evictor,
            ready: Mutex::default(),
            wanted: AtomicUsize::new(1),
            making: Mutex::default(),
            in_memory: AtomicBool::new(false),
            disk_was_full: AtomicBool::new(false),
        }
    }

    /// Takes all that are ready.
    pub(crate) fn take_all(&self) -> Vec<Arc<Segment>> {
        self.ready.lock().drain(..).collect()
    }

    /// Memory of the ready spares, bytes. At most the first one's is populated.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let ready = self.ready.lock();
        let populated = ready.front().filter(|_| self.are_in_memory());
        populated.map_or(0, |spare| spare.memory_bytes() as u64)
    }

    /// Whether [`release_memory`](Self::release_memory) would give anything back.
    pub(crate) fn are_in_memory(&self) -> bool {
        self.in_memory.load(Ordering::Relaxed)
    }

    /// Gives the memory of the ready spares back to the system. The kernel populates it again when
    /// the log uses them.
    pub(crate) fn release_memory(&self) {
        // Held to the end: a writer that took a spare meanwhile would write to it.
        let ready = self.ready.lock();
        self.in_memory.store(false, Ordering::Relaxed);
        for image in ready.iter().filter_map(|spare| spare.share_image()) {
            // SAFETY: a spare holds only its header until a writer takes it out of `ready`.
            unsafe { image.release_behind(SEGMENT_HEADER_LEN) };
        }
    }

    /// Wakes the spares worker.
    pub(crate) fn wake_worker(&self) {
        if self.context.has_workers() {
            self.context.signals.spares.wake();
        }
    }

    /// Makes the missing spares: the first one once the active segment fills up, further ones at
    /// once.
    pub(crate) fn make(&self, end: &LogEnd) -> Result<()> {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let last_lsn = {
            let end = end.lock();
            if wanted == 1 && !end.active.is_filling_up() {
                return Ok(());
            }
            end.last_lsn()
        };
        let _making = self.making.lock();
        let missing = wanted.saturating_sub(self.ready.lock().len());
        if missing > 0 {
            self.evictor.evict_in_place();
            let made =
                self.catalog.create_log_segments(missing, self.next_capacity(), Need::Growth, last_lsn);
            self.note_whether_full(&made);
            match made {
                Ok(made) => self.ready.lock().extend(made),
                // The active segment may still have room, and the disk may have room later.
                Err(error) if error.is_refusal() => return Ok(()),
                Err(error) => return Err(self.context.health.poison(error)),
            }
        }
        let next = self.ready.lock().front().and_then(|next| next.share_image());
        if let Some(image) = next {
            // Set before there is memory to release.
            self.in_memory.store(true, Ordering::Relaxed);
            image.populate();
        }
        Ok(())
    }

    /// The segments to go on in. The caller seals each of them at once except the last, which has
    /// room for `capacity` bytes. The caller holds the commit lock.
    ///
    /// # Errors
    /// There is no room even for a small segment. Nothing was changed.
    pub(super) fn next(&self, capacity: usize, need: Need, last_lsn: Lsn) -> Result<Vec<Arc<Segment>>> {
        let mut next = Vec::with_capacity(1);
        if let Some(spare) = self.take() {
            let fits = spare.capacity >= capacity;
            next.push(spare);
            if fits {
                return Ok(next);
            }
        }
        // Segments follow in the order of their ids, so the caller seals spares that are too small,
        // without a record.
        let _making = self.making.lock();
        next.extend(self.ready.lock().drain(..));
        if next.last().is_none_or(|spare| spare.capacity < capacity) {
            self.evictor.evict_in_place();
            let wanted = self.next_capacity();
            let create =
                || create_active(&self.catalog, &self.context.options, capacity, wanted, need, last_lsn);
            let created = self.context.stalling(create);
            self.note_whether_full(&created);
            match created {
                Ok(created) => next.push(created),
                Err(error) => {
                    self.ready.lock().extend(next);
                    return Err(error);
                }
            }
        }
        Ok(next)
    }

    fn note_whether_full<T>(&self, made: &Result<T>) {
        let is_full = matches!(made, Err(Error::DiskFull { .. }));
        self.disk_was_full.store(is_full, Ordering::Relaxed);
    }

    /// Capacity of the next segment: as large as the store, up to the segment size. After a writer
    /// had to wait for a spare, it is the segment size.
    fn next_capacity(&self) -> usize {
        let options = &self.context.options;
        if self.disk_was_full.load(Ordering::Relaxed) {
            return SMALL_SEGMENT_BYTES.min(options.segment_bytes);
        }
        let has_kept_writers_waiting = self.wanted.load(Ordering::Relaxed) > 1;
        if has_kept_writers_waiting {
            options.segment_bytes
        } else {
            fitting_capacity(&self.catalog, options)
        }
    }

    /// Takes a spare. If there is none, the writer waits for it, and more are kept from then on.
    fn take(&self) -> Option<Arc<Segment>> {
        let mut spare = self.ready.lock().pop_front();
        let wanted = self.wanted.load(Ordering::Relaxed);
        if spare.is_none() {
            self.wanted.store((wanted + 1).min(self.context.options.spares_max()), Ordering::Relaxed);
            spare = self.context.stalling(|| {
                let _made = self.making.lock();
                self.ready.lock().pop_front()
            });
        }
        if wanted > 1 {
            self.wake_worker();
        }
        spare
    }
}

/// A capacity as large as the store, between [`FIRST_SEGMENT_BYTES`] and the segment size.
pub(crate) fn fitting_capacity(catalog: &Catalog, options: &Options) -> usize {
    let stored = usize::try_from(catalog.segment_file_bytes()).unwrap_or(usize::MAX) / 8 * 8;
    stored.max(FIRST_SEGMENT_BYTES).min(options.segment_bytes)
}

/// A new active segment with room for at least `least` bytes. It has the `wanted` capacity, or a
/// smaller one that the disk has room for. On a full disk, a [relief](Need::Relief) takes the space
/// of a small segment from the reserve.
///
/// # Errors
/// There is no room for a segment of `least` bytes.
pub(crate) fn create_active(
    catalog: &Catalog,
    options: &Options,
    least: usize,
    wanted: usize,
    need: Need,
    last_lsn: Lsn,
) -> Result<Arc<Segment>> {
    let create = |capacity, need| {
        let mut created = catalog.create_log_segments(1, capacity, need, last_lsn)?;
        Ok(created.pop().expect("one was asked for"))
    };
    let least = least.max(SMALL_SEGMENT_BYTES.min(options.segment_bytes));
    let mut capacity = least.max(wanted);
    loop {
        match create(capacity, Need::Growth) {
            Err(Error::DiskFull { .. }) if capacity > least => capacity = (capacity / 2 / 8 * 8).max(least),
            Err(Error::DiskFull { .. } | Error::TooManySegments { .. }) if need != Need::Growth => break,
            answer => return answer,
        }
    }
    let relief =
        usize::try_from(catalog.tombstone_segment_bytes()).unwrap_or(usize::MAX).min(RELIEF_SEGMENT_BYTES)
            / 8
            * 8;
    match create(least.max(relief), need) {
        Err(Error::DiskFull { .. }) if relief > least => create(least, need),
        answer => answer,
    }
}
