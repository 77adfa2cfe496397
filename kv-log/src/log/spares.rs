//! Spares: segments made ahead of need, so that a writer does not wait while a file is created and
//! synced.
//!
//! The spares worker makes one when the active segment begins to fill up. A sync takes long on a
//! disk that is busy with the log, and a writer may still have to wait for a spare. From then on
//! the worker keeps more of them. Only the first one has its memory before the log needs it: an
//! object in [shared memory](crate::tail).
//!
//! A segment is as large as a 64th of the store. While writers fill segments faster than
//! [`RAPID`], each is eight times as large as the one before, up to the size that the
//! [slack](crate::slack) allows.

use kv_core::{Error, Lsn, Result};
use kv_wal_format::SEGMENT_HEADER_LEN;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::end::LogEnd;
use crate::context::Context;
use crate::eviction::Evictor;
use crate::manifest::{Catalog, Need};
use crate::options::Options;
use crate::segments::{Image, Segment, SegmentTable};
use crate::slack::Slack;

/// Writers that fill a segment in less time than this get larger ones.
const RAPID: Duration = Duration::from_millis(100);

/// The growth from one such segment to the next.
const GROWTH: usize = 8;

/// The most segments that share the syncs of the directory and the manifest.
const MADE_TOGETHER: usize = 4;

/// An active segment is at least this part of the store, so that there are not too many. If writers
/// are slow, it is no larger: at rest, its unused part stays in memory.
const SEGMENTS_OF_STORE: u64 = 64;

/// Capacity of the largest segment that takes space from the reserve, bytes.
const RELIEF_SEGMENT_BYTES: usize = 1 << 20;

/// Makes and keeps the segments that follow the active one.
#[derive(Debug)]
pub(crate) struct Spares {
    context: Arc<Context>,
    catalog: Arc<Catalog>,
    evictor: Arc<Evictor>,
    slack: Arc<Slack>,
    segments: Arc<SegmentTable>,
    /// In the order of their ids, in which the log uses them.
    ready: Mutex<VecDeque<Arc<Segment>>>,
    /// How many to keep.
    wanted: AtomicUsize,
    /// Held while segments are made, so that they are made in the order of their ids.
    making: Mutex<()>,
    /// The last segment that was made: its capacity, bytes, and the time.
    last_made: Mutex<(usize, Duration)>,
    /// Whether the disk was full at the last attempt. The next attempt then asks for a small
    /// segment, because a disk takes long to refuse a large one.
    disk_was_full: AtomicBool,
}

impl Spares {
    pub(crate) fn new(
        context: Arc<Context>,
        catalog: Arc<Catalog>,
        evictor: Arc<Evictor>,
        slack: Arc<Slack>,
        segments: Arc<SegmentTable>,
    ) -> Self {
        Spares {
            context,
            catalog,
            evictor,
            slack,
            segments,
            ready: Mutex::default(),
            wanted: AtomicUsize::new(1),
            making: Mutex::default(),
            last_made: Mutex::default(),
            disk_was_full: AtomicBool::new(false),
        }
    }

    /// Takes all that are ready.
    pub(crate) fn take_all(&self) -> Vec<Arc<Segment>> {
        self.ready.lock().drain(..).collect()
    }

    /// Whether the first ready spare has its memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.ready.lock().front().is_some_and(|spare| spare.resident_bytes() >= spare.capacity)
    }

    /// Whether the memory of the next segment fits below the ceiling. Notes whether slack gets
    /// scarce.
    pub(crate) fn next_fits_ceiling(&self) -> bool {
        self.slack.has_room_for(self.missing_memory())
    }

    /// Bytes of memory that the next segment lacks.
    fn missing_memory(&self) -> usize {
        let lacks = |spare: &Arc<Segment>| spare.capacity.saturating_sub(spare.resident_bytes());
        let spare = self.ready.lock().front().map(lacks);
        spare.unwrap_or_else(|| self.next_capacity())
    }

    /// Gives the memory of the ready spares back to the system. The kernel populates it again when
    /// the log uses them.
    pub(crate) fn release_memory(&self) {
        // Held to the end: a writer that took a spare meanwhile would write to it.
        let ready = self.ready.lock();
        for spare in &*ready {
            if spare.is_shared() {
                let Ok(image) = Image::sparse(spare.capacity) else { continue };
                // SAFETY: a spare holds only its header until a writer takes it out of `ready`.
                unsafe { self.segments.exchange_sparse(spare, image) };
            } else if let Some(image) = spare.share_image() {
                // SAFETY: as above.
                unsafe { image.release_behind(SEGMENT_HEADER_LEN) };
            }
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
        loop {
            // Free in between, so that a writer gets the first ones early.
            let _making = self.making.lock();
            let missing = wanted.saturating_sub(self.ready.lock().len()).min(MADE_TOGETHER);
            if missing == 0 {
                break;
            }
            self.evictor.evict_in_place();
            let made =
                self.catalog.create_log_segments(missing, self.next_capacity(), Need::Growth, last_lsn);
            self.note_whether_full(&made);
            match made {
                Ok(made) => {
                    self.note_made(&made);
                    self.ready.lock().extend(made);
                }
                // The active segment may still have room, and the disk may have room later.
                Err(error) if error.is_refusal() => return Ok(()),
                Err(error) => return Err(self.context.health.poison(error)),
            }
        }
        self.give_memory();
        Ok(())
    }

    /// Gives the first ready spare its memory, unless there is none below the ceiling.
    fn give_memory(&self) {
        if self.context.tail.is_used() && self.give_shared_memory() {
            return;
        }
        let image = {
            // Held, so that no writer takes the spare meanwhile.
            let ready = self.ready.lock();
            let Some(next) = ready.front() else { return };
            // SAFETY: a spare holds only its header until a writer takes it out of `ready`.
            if next.resident_bytes() >= next.capacity || unsafe { self.segments.recycle_into(next) } {
                return;
            }
            self.slack.promise_segment(next.capacity).zip(next.share_image())
        };
        if let Some((_promise, image)) = image {
            image.populate();
        }
    }

    /// Gives the first ready spare an image in shared memory. Returns whether it needs no other.
    fn give_shared_memory(&self) -> bool {
        let Some(spare) = self.ready.lock().front().cloned() else { return true };
        let tail = &self.context.tail;
        if spare.is_shared() {
            return true;
        }
        let promise = match self.slack.promise_segment(spare.capacity) {
            Some(promise) => promise,
            // A kept object counts as slack already, but not while it moves to the spare.
            None if tail.has_kept(spare.capacity) => self.slack.promise(spare.capacity),
            None => return true,
        };
        // Without the lock: the kernel clears the memory.
        let Ok(Some(image)) = tail.image(spare.id, spare.capacity) else { return false };
        image.populate();
        let ready = self.ready.lock();
        if ready.front().is_some_and(|front| Arc::ptr_eq(front, &spare)) {
            // SAFETY: a spare holds only its header until a writer takes it out of `ready`.
            unsafe { self.segments.exchange_sparse(&spare, image) };
        }
        drop(promise);
        true
    }

    /// Gives images in shared memory to segments that the log is about to use.
    ///
    /// # Errors
    /// As for [`Tail::image`](crate::tail::Tail::image).
    fn share(&self, next: &[Arc<Segment>]) -> Result<()> {
        if !self.context.tail.is_used() {
            return Ok(());
        }
        for segment in next.iter().filter(|segment| !segment.is_shared()) {
            let image = self.context.stalling(|| self.context.tail.image(segment.id, segment.capacity))?;
            if let Some(image) = image {
                // SAFETY: the caller holds the segment, which is blank, and no writer uses it yet.
                unsafe { self.segments.exchange_sparse(segment, image) };
            }
        }
        Ok(())
    }

    /// The segments to go on in. The caller seals each of them at once except the last, which has
    /// room for `capacity` bytes. The caller holds the commit lock.
    ///
    /// # Errors
    /// There is no room even for a small segment. Nothing was changed.
    pub(super) fn next(&self, capacity: usize, need: Need, last_lsn: Lsn) -> Result<Vec<Arc<Segment>>> {
        let _promise = self.slack.promise(self.missing_memory());
        let mut next = Vec::with_capacity(1);
        if let Some(spare) = self.take() {
            let fits = spare.capacity >= capacity;
            next.push(spare);
            if fits {
                return self.shared_or_put_back(next);
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
                Ok(created) => {
                    self.note_made(std::slice::from_ref(&created));
                    if !self.context.tail.is_used() {
                        // SAFETY: no other thread knows the segment yet.
                        unsafe { self.segments.recycle_into(&created) };
                    }
                    next.push(created);
                }
                Err(error) => {
                    self.ready.lock().extend(next);
                    return Err(error);
                }
            }
        }
        self.shared_or_put_back(next)
    }

    /// The segments with images in shared memory. After an error they are ready as before.
    fn shared_or_put_back(&self, next: Vec<Arc<Segment>>) -> Result<Vec<Arc<Segment>>> {
        match self.share(&next) {
            Ok(()) => Ok(next),
            Err(error) => {
                let mut ready = self.ready.lock();
                next.into_iter().rev().for_each(|spare| ready.push_front(spare));
                Err(error)
            }
        }
    }

    fn note_whether_full<T>(&self, made: &Result<T>) {
        let is_full = matches!(made, Err(Error::DiskFull { .. }));
        self.disk_was_full.store(is_full, Ordering::Relaxed);
    }

    fn note_made(&self, made: &[Arc<Segment>]) {
        if let Some(last) = made.last() {
            *self.last_made.lock() = (last.capacity, self.context.env.clock.monotonic());
        }
    }

    /// Capacity of the next segment.
    fn next_capacity(&self) -> usize {
        let options = &self.context.options;
        let full = self.slack.segment_bytes();
        self.segments.recycle_images_of(full);
        if self.disk_was_full.load(Ordering::Relaxed) {
            return options.least_segment_bytes();
        }
        let (last, made) = *self.last_made.lock();
        let is_rapid = self.context.env.clock.monotonic().saturating_sub(made) < RAPID;
        let grown = if is_rapid { last.saturating_mul(GROWTH) } else { 0 };
        self.calm_capacity().max(grown).min(full)
    }

    /// Capacity of the next segment, bytes, if writers are slow.
    pub(crate) fn calm_capacity(&self) -> usize {
        fitting_capacity(&self.catalog, &self.context.options)
    }

    /// Makes one small spare at a time again.
    pub(super) fn calm_down(&self) {
        self.wanted.store(1, Ordering::Relaxed);
        *self.last_made.lock() = (0, Duration::ZERO);
    }

    /// Removes the ready spares if they take more than `fitting` bytes of the disk.
    ///
    /// # Errors
    /// The manifest cannot be stored. After a refusal, the spares are ready as before.
    pub(crate) fn remove_large(&self, fitting: usize, last_lsn: Lsn) -> Result<()> {
        // Held to the end: the log must not go on behind spares that the manifest still names.
        let _making = self.making.lock();
        self.calm_down();
        let large: Vec<Arc<Segment>> = {
            let mut ready = self.ready.lock();
            let are_large = ready.iter().map(|spare| spare.capacity).sum::<usize>() > fitting;
            if are_large { ready.drain(..).collect() } else { Vec::new() }
        };
        if large.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.catalog.remove_spares(&large, last_lsn) {
            self.ready.lock().extend(large);
            return Err(error);
        }
        for spare in &large {
            self.segments.retire(spare);
        }
        Ok(())
    }

    /// Takes a spare. If none is ready, waits for the thread that makes some now, and the worker
    /// keeps more from then on. `None`: no thread was making one.
    fn take(&self) -> Option<Arc<Segment>> {
        let mut spare = self.ready.lock().pop_front();
        let wanted = self.wanted.load(Ordering::Relaxed);
        if spare.is_none() {
            self.wanted.store((2 * wanted).min(self.context.options.spares_max()), Ordering::Relaxed);
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

/// The capacity of a segment that is to be filled slowly.
pub(crate) fn fitting_capacity(catalog: &Catalog, options: &Options) -> usize {
    options.fitted_segment_bytes(catalog.segment_file_bytes() / SEGMENTS_OF_STORE)
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
    let least = least.max(options.least_segment_bytes());
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
