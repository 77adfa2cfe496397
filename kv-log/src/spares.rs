//! Spare heads: segments made ahead of need, so that no writer waits while a file is created and synced.
//!
//! One is made when the head begins to fill up. Syncs take long on a disk that is busy with the log, so a
//! writer may have to wait all the same. From then on more spares are kept.

use kv_core::{Error, Lsn, Result};
use kv_wal_format::SEGMENT_HEADER_LEN;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::catalog::Catalog;
use crate::options::Options;
use crate::reserve::Need;
use crate::segment::Segment;
use crate::store::{Store, is_refusal};

/// The head of a new store, bytes, where a segment is not smaller.
const FIRST_HEAD_BYTES: usize = 1 << 20;

/// The smallest head, bytes, where segments are not smaller themselves.
const SMALL_HEAD_BYTES: usize = 64 << 10;

/// The largest head that is made from the reserve, bytes.
const RELIEF_HEAD_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Spares {
    /// In the order in which they are to be used, which is the order of their ids.
    ready: Mutex<VecDeque<Arc<Segment>>>,
    /// How many to keep.
    wanted: AtomicUsize,
    /// Held while some are made, so that they are made in order.
    making: Mutex<()>,
    /// Whether those that are ready may take up memory. Nobody needs it while nobody writes.
    in_memory: AtomicBool,
    /// Whether the disk was full at the last attempt. Then the next one is a small one, since a disk
    /// takes its time to refuse a large one.
    disk_was_full: AtomicBool,
}

impl Default for Spares {
    fn default() -> Self {
        Spares {
            ready: Mutex::default(),
            wanted: AtomicUsize::new(1),
            making: Mutex::default(),
            in_memory: AtomicBool::new(false),
            disk_was_full: AtomicBool::new(false),
        }
    }
}

impl Spares {
    /// Takes all that are ready.
    pub(crate) fn take_all(&self) -> Vec<Arc<Segment>> {
        self.ready.lock().drain(..).collect()
    }

    /// Memory of those that are ready, bytes. At most the first one's is populated.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let ready = self.ready.lock();
        let populated = ready.front().filter(|_| self.are_in_memory());
        populated.map_or(0, |spare| spare.memory_bytes() as u64)
    }

    /// Whether [`release_memory`](Self::release_memory) would give anything back.
    pub(crate) fn are_in_memory(&self) -> bool {
        self.in_memory.load(Ordering::Relaxed)
    }

    /// Gives the memory of those that are ready back to the system, until they are needed.
    pub(crate) fn release_memory(&self) {
        // Held to the end, since a writer who took one would write to it.
        let ready = self.ready.lock();
        self.in_memory.store(false, Ordering::Relaxed);
        for image in ready.iter().filter_map(|spare| spare.share_image()) {
            // SAFETY: a spare holds nothing but its header until it is taken from here.
            unsafe { image.release_behind(SEGMENT_HEADER_LEN) };
        }
    }
}

impl Store {
    /// Makes the spares that are missing: the first once the head fills up, further ones at once.
    pub(crate) fn make_spares(&self) -> Result<()> {
        let wanted = self.spares.wanted.load(Ordering::Relaxed);
        let last_lsn = {
            let end = self.end.lock();
            if wanted == 1 && !end.head.is_filling_up() {
                return Ok(());
            }
            end.last_lsn()
        };
        let _making = self.spares.making.lock();
        let missing = wanted.saturating_sub(self.spares.ready.lock().len());
        if missing > 0 {
            self.evict_in_place();
            let made = self.catalog.create_heads(missing, self.next_capacity(), Need::Growth, last_lsn);
            self.note_whether_full(&made);
            match made {
                Ok(made) => self.spares.ready.lock().extend(made),
                // There may be room in the head yet, and later on the disk.
                Err(error) if is_refusal(&error) => return Ok(()),
                Err(error) => return Err(self.health.poison(error)),
            }
        }
        let next = self.spares.ready.lock().front().and_then(|next| next.share_image());
        if let Some(image) = next {
            // Noted before there is memory to release.
            self.spares.in_memory.store(true, Ordering::Relaxed);
            image.populate();
        }
        Ok(())
    }

    /// The segments to go on in, each sealed right away but the last, which holds at least `capacity` bytes. Under the
    /// commit lock.
    ///
    /// # Errors
    /// There is no room even for a small one; nothing was changed.
    pub(crate) fn next_heads(&self, capacity: usize, need: Need, last_lsn: Lsn) -> Result<Vec<Arc<Segment>>> {
        let mut heads = Vec::with_capacity(1);
        if let Some(spare) = self.take_spare() {
            let fits = spare.capacity >= capacity;
            heads.push(spare);
            if fits {
                return Ok(heads);
            }
        }
        // Log order is the order of ids: spares that are too small for this record are passed over for good.
        let _making = self.spares.making.lock();
        heads.extend(self.spares.ready.lock().drain(..));
        if heads.last().is_none_or(|spare| spare.capacity < capacity) {
            self.evict_in_place();
            let wanted = self.next_capacity();
            let create = || create_head(&self.catalog, &self.options, capacity, wanted, need, last_lsn);
            let created = self.stalling(create);
            self.note_whether_full(&created);
            match created {
                Ok(created) => heads.push(created),
                Err(error) => {
                    self.spares.ready.lock().extend(heads);
                    return Err(error);
                }
            }
        }
        Ok(heads)
    }

    fn note_whether_full<T>(&self, made: &Result<T>) {
        let is_full = matches!(made, Err(Error::DiskFull { .. }));
        self.spares.disk_was_full.store(is_full, Ordering::Relaxed);
    }

    /// Size of the next head: as large as the store is, up to that of a segment. Once a writer had
    /// to wait for a spare, a whole segment.
    fn next_capacity(&self) -> usize {
        if self.spares.disk_was_full.load(Ordering::Relaxed) {
            return SMALL_HEAD_BYTES.min(self.options.segment_bytes);
        }
        let is_fast = self.spares.wanted.load(Ordering::Relaxed) > 1;
        if is_fast { self.options.segment_bytes } else { fitting_capacity(&self.catalog, &self.options) }
    }

    /// A spare. Where there is none, the writer waits for it, and more are wanted from now on.
    fn take_spare(&self) -> Option<Arc<Segment>> {
        let mut spare = self.spares.ready.lock().pop_front();
        let wanted = self.spares.wanted.load(Ordering::Relaxed);
        if spare.is_none() {
            self.spares.wanted.store((wanted + 1).min(self.options.spares_max()), Ordering::Relaxed);
            spare = self.stalling(|| {
                let _made = self.spares.making.lock();
                self.spares.ready.lock().pop_front()
            });
        }
        if wanted > 1 {
            self.spares_due();
        }
        spare
    }
}

/// As large as the store is, from [`FIRST_HEAD_BYTES`] to the size of a segment.
pub(crate) fn fitting_capacity(catalog: &Catalog, options: &Options) -> usize {
    let stored = usize::try_from(catalog.segment_file_bytes()).unwrap_or(usize::MAX) / 8 * 8;
    stored.max(FIRST_HEAD_BYTES).min(options.segment_bytes)
}

/// A new head with room for `least` bytes: of the `wanted` size, or else as large as the disk has
/// room for. On a full disk a [relief](Need::Relief) gets a small one from the reserve.
///
/// # Errors
/// There is no room for any.
pub(crate) fn create_head(
    catalog: &Catalog,
    options: &Options,
    least: usize,
    wanted: usize,
    need: Need,
    last_lsn: Lsn,
) -> Result<Arc<Segment>> {
    let create = |capacity, need| {
        let mut created = catalog.create_heads(1, capacity, need, last_lsn)?;
        Ok(created.pop().expect("one was asked for"))
    };
    let least = least.max(SMALL_HEAD_BYTES.min(options.segment_bytes));
    let mut capacity = least.max(wanted);
    loop {
        match create(capacity, Need::Growth) {
            Err(Error::DiskFull { .. }) if capacity > least => capacity = (capacity / 2 / 8 * 8).max(least),
            Err(Error::DiskFull { .. } | Error::TooManySegments { .. }) if need != Need::Growth => break,
            answer => return answer,
        }
    }
    let relief =
        usize::try_from(catalog.tombstone_segment_bytes()).unwrap_or(usize::MAX).min(RELIEF_HEAD_BYTES) / 8
            * 8;
    match create(least.max(relief), need) {
        Err(Error::DiskFull { .. }) if relief > least => create(least, need),
        answer => answer,
    }
}
