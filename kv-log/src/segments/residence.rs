use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::Image;
use crate::reclaim::{Guard, pin};

/// The image of a segment, if it has one.
///
/// Readers are pinned while they look at it. A thread may take it away meanwhile, and frees it
/// after they have unpinned. A thread that needs it for longer shares it.
#[derive(Debug)]
pub(super) struct Residence {
    /// Null, or a pointer from `Arc::into_raw`.
    image: AtomicPtr<Image>,
}

impl Residence {
    pub(super) fn new(image: Option<Image>) -> Self {
        let image = image.map_or(ptr::null(), |image| Arc::into_raw(Arc::new(image)));
        Residence { image: AtomicPtr::new(image.cast_mut()) }
    }

    #[inline]
    pub(super) fn get<'g>(&self, _guard: &'g Guard) -> Option<&'g Image> {
        // SAFETY: a pointer other than null has a reference count. The caller of `take` gets that
        // count, and keeps it until every guard that is alive now is gone.
        unsafe { self.image.load(Ordering::Acquire).as_ref() }
    }

    pub(super) fn share(&self) -> Option<Arc<Image>> {
        let guard = pin();
        let image = ptr::from_ref(self.get(&guard)?);
        // SAFETY: the pointer came from `Arc::into_raw`, and while this is pinned its count is at
        // least one.
        unsafe {
            Arc::increment_strong_count(image);
            Some(Arc::from_raw(image))
        }
    }

    /// Sets the image if there is none.
    pub(super) fn fill(&self, image: Arc<Image>) {
        let image = Arc::into_raw(image).cast_mut();
        // Release pairs with the Acquire in `get`: the reader sees the bytes.
        let filled =
            self.image.compare_exchange(ptr::null_mut(), image, Ordering::Release, Ordering::Relaxed);
        if filled.is_err() {
            // SAFETY: the pointer came from `Arc::into_raw`, and no other thread has seen it.
            drop(unsafe { Arc::from_raw(image) });
        }
    }

    /// Exchanges the image.
    ///
    /// # Safety
    /// The answer lives until every reader that is pinned now has unpinned.
    pub(super) unsafe fn replace(&self, image: Image) -> Option<Arc<Image>> {
        let image = Arc::into_raw(Arc::new(image)).cast_mut();
        let before = self.image.swap(image, Ordering::AcqRel);
        // SAFETY: as in `take`.
        (!before.is_null()).then(|| unsafe { Arc::from_raw(before) })
    }

    /// Takes the image away: later calls find none.
    ///
    /// # Safety
    /// The answer lives until every reader that is pinned now has unpinned.
    pub(super) unsafe fn take(&self) -> Option<Arc<Image>> {
        let image = self.image.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: a pointer that is not null came from `Arc::into_raw`, and the swap makes this the
        // only one to take it back.
        (!image.is_null()).then(|| unsafe { Arc::from_raw(image) })
    }
}

impl Drop for Residence {
    fn drop(&mut self) {
        // SAFETY: readers came here through a reference to this, and are gone.
        drop(unsafe { self.take() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_shared_outlives_its_being_taken() {
        let residence = Residence::new(Some(Image::new(100).unwrap()));
        let shared = residence.share().unwrap();
        // SAFETY: no reader is pinned.
        let taken = unsafe { residence.take() }.unwrap();
        assert!(Arc::ptr_eq(&shared, &taken));
        assert!(residence.share().is_none() && residence.get(&pin()).is_none());
        drop(residence);
        assert_eq!((Arc::strong_count(&shared), shared.capacity()), (2, 100));
    }
}
