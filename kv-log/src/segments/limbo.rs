//! Limbo: segments and images that are unlinked and still in use, by a slow visitor, a scan, or a
//! walk through all segments.
//!
//! They come here after every reader that was pinned at their unlinking has unpinned. A hazard
//! pointer or a reference count may still protect them. Once they are free, they never come into
//! use again.

use parking_lot::Mutex;
use std::sync::Arc;

use super::pool::ImagePool;
use super::{Image, Segment};
use crate::reclaim::is_protected;

/// Frees unlinked memory once no reader uses it.
#[derive(Debug)]
pub(super) struct Limbo {
    waiting: Mutex<Waiting>,
    pool: ImagePool,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each with the bytes of its image in memory, so that `bytes` need not pin once for each
    /// segment under this lock.
    segments: Vec<(Arc<Segment>, usize)>,
    /// Each with the bytes from its start that were written.
    images: Vec<(Arc<Image>, usize)>,
}

impl Limbo {
    /// Gives free images to `pool`.
    pub(super) fn new(pool: ImagePool) -> Self {
        Limbo { waiting: Mutex::default(), pool }
    }

    pub(super) fn pool(&self) -> &ImagePool {
        &self.pool
    }

    /// Frees a segment that no location leads to. If a thread still shares it, it waits.
    pub(super) fn free(&self, segment: Arc<Segment>) {
        match Arc::try_unwrap(segment) {
            Ok(segment) => {
                let used = segment.end();
                if let Some(image) = segment.into_image() {
                    self.free_image(image, used);
                }
            }
            Err(segment) => {
                let bytes = segment.resident_bytes();
                self.waiting.lock().segments.push((segment, bytes));
            }
        }
    }

    /// Gives an unlinked image to the pool, of which the first `used` bytes were written. If a
    /// thread still uses it, it waits.
    pub(super) fn free_image(&self, image: Arc<Image>, used: usize) {
        if is_used(&image) {
            self.waiting.lock().images.push((image, used));
        } else if let Some(image) = Arc::into_inner(image) {
            self.pool.keep(image, used);
        }
    }

    /// Frees all that is not used any more.
    pub(super) fn release(&self) {
        let (segments, images) = {
            let mut waiting = self.waiting.lock();
            let segments = waiting.segments.extract_if(.., |(segment, _)| Arc::strong_count(segment) == 1);
            let segments: Vec<Arc<Segment>> = segments.map(|(segment, _)| segment).collect();
            let images: Vec<_> = waiting.images.extract_if(.., |(image, _)| !is_used(image)).collect();
            (segments, images)
        };
        for segment in segments {
            self.free(segment);
        }
        for (image, used) in images {
            self.free_image(image, used);
        }
    }

    /// Bytes in memory of the images that wait.
    pub(super) fn bytes(&self) -> u64 {
        let waiting = self.waiting.lock();
        let segments = waiting.segments.iter().map(|(_, bytes)| *bytes);
        let bytes: usize =
            segments.chain(waiting.images.iter().map(|(image, used)| image.resident_bytes(*used))).sum();
        bytes as u64
    }
}

/// Whether a thread uses an unlinked image. Once none does, none ever will.
fn is_used(image: &Arc<Image>) -> bool {
    Arc::strong_count(image) > 1 || is_protected(Arc::as_ptr(image).cast())
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_shared_image_waits_and_then_goes_to_the_pool() {
        let limbo = Limbo::new(ImagePool::new(1));
        limbo.pool().resize(4096);
        let image = Arc::new(Image::new(4096).unwrap());
        let shared = Arc::clone(&image);
        limbo.free_image(image, 4000);
        limbo.release();
        assert_eq!((limbo.bytes(), limbo.pool().bytes()), (4096, 0));
        drop(shared);
        limbo.release();
        assert_eq!((limbo.bytes(), limbo.pool().bytes()), (0, 4096));
    }
}
