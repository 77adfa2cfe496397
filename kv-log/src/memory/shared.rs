//! Mapped objects in shared memory, and their reuse.
//!
//! An object begins with a control block, of which only the owner of the [`Tie`] knows the content.
//! The mapping begins behind it.

use kv_core::fs::SharedMemory;
use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Length of the control block in front of the mapped bytes. The mapped bytes begin at a page.
pub(crate) const CONTROL_LEN: usize = 4096;

/// The most objects that wait for reuse. Objects that are filled, written or kept ready do not
/// count.
const KEPT_MAX: usize = 2;

/// Creates objects in shared memory, and reuses them. The kernel need not clear a reused one.
#[derive(Debug)]
pub(crate) struct SharedObjects {
    memory: Arc<dyn SharedMemory>,
    /// The names of the objects begin with it.
    prefix: String,
    next: AtomicU64,
    kept: Mutex<Vec<Kept>>,
    /// The names of all objects that were created and not removed.
    present: Mutex<BTreeSet<String>>,
    /// From now on the objects stay as they are, for the next opening.
    is_frozen: AtomicBool,
}

#[derive(Debug)]
struct Kept {
    map: MmapRaw,
    object: Object,
}

#[derive(Debug)]
struct Object {
    name: String,
    /// Locked, so that other processes see that the object is in use.
    control: File,
}

/// The tie of a mapping to its object. Dropping it removes the object.
#[derive(Debug)]
pub(crate) struct Tie {
    objects: Arc<SharedObjects>,
    /// `None` once the object is kept for reuse.
    object: Option<Object>,
}

impl SharedObjects {
    pub(crate) fn new(memory: Arc<dyn SharedMemory>, prefix: String) -> Arc<Self> {
        Arc::new(SharedObjects {
            memory,
            prefix,
            next: AtomicU64::new(0),
            kept: Mutex::default(),
            present: Mutex::default(),
            is_frozen: AtomicBool::new(false),
        })
    }

    /// The directory of the objects, for messages.
    pub(crate) fn path(&self) -> &Path {
        self.memory.path()
    }

    /// A mapping of `capacity` bytes, which hold anything. Its memory is reserved.
    ///
    /// # Errors
    /// There is no memory. As the system answers.
    pub(crate) fn take(self: &Arc<Self>, capacity: usize) -> io::Result<(MmapRaw, Tie)> {
        let kept = {
            let mut kept = self.kept.lock();
            // Segments of another size are past, or will come.
            kept.retain(|one| {
                let fits = one.map.len() == capacity;
                if !fits {
                    self.remove(&one.object.name);
                }
                fits
            });
            kept.pop()
        };
        let Kept { map, object } = match kept {
            Some(kept) => kept,
            None => self.create(capacity)?,
        };
        Ok((map, Tie { objects: Arc::clone(self), object: Some(object) }))
    }

    fn create(&self, capacity: usize) -> io::Result<Kept> {
        let name = format!("{}{:x}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed));
        let control = self.memory.create(&name, (CONTROL_LEN + capacity) as u64)?;
        self.present.lock().insert(name.clone());
        // It tells other processes that the object is in use. The store does not depend on it.
        let _ = control.try_lock_shared();
        match MmapOptions::new().offset(CONTROL_LEN as u64).len(capacity).map_raw(&control) {
            Ok(map) => {
                // A forked child must not use the memory of its parent.
                #[cfg(target_os = "linux")]
                let _ = map.advise(memmap2::Advice::DontFork);
                Ok(Kept { map, object: Object { name, control } })
            }
            Err(error) => {
                self.remove(&name);
                Err(error)
            }
        }
    }

    /// Whether an object of this size waits for reuse.
    pub(crate) fn has_kept(&self, capacity: usize) -> bool {
        self.kept.lock().iter().any(|one| one.map.len() == capacity)
    }

    /// Bytes of the objects that wait for reuse.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept.lock().iter().map(|one| one.map.len() as u64).sum()
    }

    /// Removes the objects that wait for reuse.
    pub(crate) fn remove_kept(&self) {
        for one in self.kept.lock().drain(..) {
            self.remove(&one.object.name);
        }
    }

    /// Leaves the objects as they are from now on.
    pub(crate) fn freeze(&self) {
        self.is_frozen.store(true, Ordering::SeqCst);
    }

    /// Removes all objects. Their mappings stay valid.
    pub(crate) fn remove_all(&self) {
        self.kept.lock().clear();
        for name in std::mem::take(&mut *self.present.lock()) {
            let _ = self.memory.remove(&name);
        }
    }

    /// An object that cannot be removed stays, and the next opening tries again.
    fn remove(&self, name: &str) {
        if !self.is_frozen.load(Ordering::SeqCst) && self.present.lock().remove(name) {
            let _ = self.memory.remove(name);
        }
    }
}

impl Tie {
    /// Writes the control block.
    pub(crate) fn write_control(&self, block: &[u8; CONTROL_LEN]) -> io::Result<()> {
        match &self.object {
            Some(object) => {
                // Again: another process may have looked at the object when it was made.
                let _ = object.control.try_lock_shared();
                object.control.write_all_at(block, 0)
            }
            None => Ok(()),
        }
    }

    /// Keeps the object for reuse, unless enough of them are kept.
    pub(crate) fn keep(mut self, map: MmapRaw) {
        let mut kept = self.objects.kept.lock();
        if kept.len() < KEPT_MAX
            && let Some(object) = self.object.take()
        {
            kept.push(Kept { map, object });
        }
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        if let Some(object) = &self.object {
            self.objects.remove(&object.name);
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use kv_core::Fs;
    use kv_tests::sim::SimFs;

    fn objects(disk: &SimFs) -> Arc<SharedObjects> {
        SharedObjects::new(disk.shared_memory().expect("it has some"), "test-".to_owned())
    }

    fn names(disk: &SimFs) -> Vec<String> {
        disk.shared_objects().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn an_object_is_reused_and_removed_with_its_last_tie() {
        let disk = SimFs::new();
        let objects = objects(&disk);
        let (map, tie) = objects.take(8192).unwrap();
        assert_eq!((map.len(), names(&disk)), (8192, vec!["test-0".to_owned()]));
        tie.keep(map);
        assert!(objects.has_kept(8192) && !objects.has_kept(4096));
        assert_eq!(objects.kept_bytes(), 8192);
        let (_map, tie) = objects.take(8192).unwrap();
        assert_eq!((objects.kept_bytes(), names(&disk)), (0, vec!["test-0".to_owned()]));
        drop(tie);
        assert!(names(&disk).is_empty());
    }

    #[test]
    fn only_so_many_of_one_size_are_kept() {
        let disk = SimFs::new();
        let objects = objects(&disk);
        let taken: Vec<_> = (0..3).map(|_| objects.take(4096).unwrap()).collect();
        for (map, tie) in taken {
            tie.keep(map);
        }
        assert_eq!((objects.kept_bytes(), names(&disk).len()), (8192, 2));
        let (_map, _tie) = objects.take(8192).unwrap();
        assert_eq!((objects.kept_bytes(), names(&disk)), (0, vec!["test-3".to_owned()]));
    }

    #[test]
    fn frozen_objects_stay() {
        let disk = SimFs::new();
        let objects = objects(&disk);
        let (_map, tie) = objects.take(4096).unwrap();
        objects.freeze();
        drop(tie);
        assert_eq!(names(&disk).len(), 1);
        objects.remove_all();
        assert!(names(&disk).is_empty());
    }

    #[test]
    fn no_memory_is_an_error_and_leaves_nothing() {
        let disk = SimFs::new();
        disk.limit_shared_memory(Some(4096));
        let error = objects(&disk).take(4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(names(&disk).is_empty());
    }
}
