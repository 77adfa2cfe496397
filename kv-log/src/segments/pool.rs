//! The pool: images of freed segments, for new ones. The kernel need not clear their memory again.

use parking_lot::Mutex;
use std::io;

use super::Image;

/// Keeps free images, whose bytes are garbage.
#[derive(Debug)]
pub(super) struct ImagePool {
    /// The capacity of a full segment, bytes. Only images of this capacity are kept.
    capacity: usize,
    count_max: usize,
    images: Mutex<Vec<Image>>,
}

impl ImagePool {
    /// Keeps at most `count_max` images of `capacity` bytes.
    pub(super) fn new(capacity: usize, count_max: usize) -> Self {
        ImagePool { capacity, count_max, images: Mutex::default() }
    }

    /// An image of at least `capacity` bytes, which hold anything. If that is nearly a full
    /// segment, the image has the capacity of one, so that the pool can keep it later.
    pub(super) fn take(&self, capacity: usize) -> io::Result<Image> {
        if capacity > self.capacity || capacity < self.capacity - self.capacity / 16 {
            return Image::new(capacity);
        }
        let kept = self.images.lock().pop();
        kept.map_or_else(|| Image::new(self.capacity), Ok)
    }

    /// Keeps an image, or gives it back to the system if it does not fit or the pool is full.
    pub(super) fn keep(&self, image: Image) {
        if image.capacity() == self.capacity {
            let mut images = self.images.lock();
            if images.len() < self.count_max {
                images.push(image);
            }
        }
    }

    /// Gives all images back to the system.
    pub(super) fn clear(&self) {
        self.images.lock().clear();
    }

    /// Bytes of the kept images.
    pub(super) fn bytes(&self) -> u64 {
        (self.images.lock().len() * self.capacity) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_images_are_kept_up_to_the_limit() {
        let pool = ImagePool::new(32 << 10, 2);
        for _ in 0..3 {
            pool.keep(Image::new(32 << 10).unwrap());
        }
        pool.keep(Image::new(4096).unwrap());
        assert_eq!(pool.bytes(), 64 << 10);
        // Nearly a full segment takes a kept image. A smaller or a larger one does not.
        assert_eq!(pool.take(31 << 10).unwrap().capacity(), 32 << 10);
        assert_eq!(pool.bytes(), 32 << 10);
        assert_eq!(pool.take(8 << 10).unwrap().capacity(), 8 << 10);
        assert_eq!(pool.take(64 << 10).unwrap().capacity(), 64 << 10);
        assert_eq!(pool.bytes(), 32 << 10);
        pool.clear();
        assert_eq!((pool.bytes(), pool.take(32 << 10).unwrap().capacity()), (0, 32 << 10));
    }
}
