//! The pool: images of freed segments, for new ones. The kernel need not clear their memory again.

use parking_lot::Mutex;
use std::io;

use super::Image;

/// Keeps free images, whose bytes are garbage.
#[derive(Debug)]
pub(super) struct ImagePool {
    count_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The capacity of a full segment, bytes. Only images of this capacity are kept.
    capacity: usize,
    images: Vec<Image>,
}

impl ImagePool {
    /// Keeps at most `count_max` images, once their size is set.
    pub(super) fn new(count_max: usize) -> Self {
        ImagePool { count_max, kept: Mutex::default() }
    }

    /// Keeps images of `capacity` bytes from now on, and no others.
    pub(super) fn resize(&self, capacity: usize) {
        let mut kept = self.kept.lock();
        if kept.capacity != capacity {
            *kept = Kept { capacity, images: Vec::new() };
        }
    }

    /// An image of at least `capacity` bytes, which hold anything. If that is nearly a full
    /// segment, the image has the capacity of one, so that the pool can keep it later.
    pub(super) fn take(&self, capacity: usize) -> io::Result<Image> {
        let full = self.kept.lock().capacity;
        if capacity > full || capacity < nearly(full) {
            return Image::new(capacity);
        }
        self.take_kept(full).map_or_else(|| Image::new(full), Ok)
    }

    /// A kept image of exactly this capacity.
    pub(super) fn take_kept(&self, capacity: usize) -> Option<Image> {
        let mut kept = self.kept.lock();
        if kept.capacity == capacity { kept.images.pop() } else { None }
    }

    /// Keeps an image of which the first `used` bytes were written. Gives it back to the system if
    /// it has another capacity, if much of its memory is missing, or if the pool is full.
    pub(super) fn keep(&self, image: Image, used: usize) {
        let Some(image) = image.keep_object() else { return };
        let mut kept = self.kept.lock();
        let is_in_memory = image.resident_bytes(used) >= nearly(kept.capacity);
        if image.capacity() == kept.capacity && is_in_memory && kept.images.len() < self.count_max {
            image.mark_populated();
            kept.images.push(image);
        }
    }

    /// Gives all images back to the system.
    pub(super) fn clear(&self) {
        self.kept.lock().images.clear();
    }

    /// Bytes of the kept images.
    pub(super) fn bytes(&self) -> u64 {
        let kept = self.kept.lock();
        (kept.images.len() * kept.capacity) as u64
    }
}

/// Nearly all of a full segment, bytes.
fn nearly(full: usize) -> usize {
    full - full / 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(capacity: usize) -> Image {
        Image::new(capacity).unwrap()
    }

    #[test]
    fn full_images_are_kept_up_to_the_limit() {
        let pool = ImagePool::new(2);
        pool.resize(32 << 10);
        for _ in 0..3 {
            pool.keep(image(32 << 10), 31 << 10);
        }
        pool.keep(image(4096), 4096);
        assert_eq!(pool.bytes(), 64 << 10);
        // Nearly a full segment takes a kept image. A smaller or a larger one does not.
        let taken = pool.take(31 << 10).unwrap();
        assert_eq!((taken.capacity(), taken.resident_bytes(1)), (32 << 10, 32 << 10));
        assert_eq!(pool.bytes(), 32 << 10);
        assert_eq!(pool.take(8 << 10).unwrap().capacity(), 8 << 10);
        assert_eq!(pool.take(64 << 10).unwrap().capacity(), 64 << 10);
        assert!(pool.take_kept(8 << 10).is_none());
        assert_eq!(pool.bytes(), 32 << 10);
        pool.clear();
        assert_eq!((pool.bytes(), pool.take(32 << 10).unwrap().capacity()), (0, 32 << 10));
    }

    #[test]
    fn an_image_without_its_memory_is_given_back() {
        let pool = ImagePool::new(2);
        pool.resize(64 << 10);
        pool.keep(image(64 << 10), 48 << 10);
        assert_eq!(pool.bytes(), 0);
        let populated = image(64 << 10);
        populated.populate();
        pool.keep(populated, 1);
        assert_eq!(pool.bytes(), 64 << 10);
    }

    #[test]
    fn images_of_an_earlier_size_are_given_back() {
        let pool = ImagePool::new(2);
        pool.keep(image(4096), 4096);
        assert_eq!(pool.bytes(), 0);
        pool.resize(4096);
        pool.keep(image(4096), 4096);
        pool.resize(4096);
        assert_eq!(pool.bytes(), 4096);
        pool.resize(8192);
        pool.keep(image(4096), 4096);
        assert_eq!(pool.bytes(), 0);
    }
}
