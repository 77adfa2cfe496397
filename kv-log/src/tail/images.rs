//! The tail of an open store: it gives images in shared memory to segments.

use kv_core::fs::Dir;
use kv_core::{Env, Error, ProcessSafety, Result, SegmentId};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::control::{Control, Owner};
use crate::memory::SharedObjects;
use crate::options::{Options, ProcessSafe};
use crate::segments::Image;

/// Makes images that outlive the process.
#[derive(Debug)]
pub(crate) struct Tail {
    mode: ProcessSafe,
    /// `None`: the store does not use shared memory.
    used: Option<Used>,
    /// Why the last image could not be made.
    trouble: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Used {
    objects: Arc<SharedObjects>,
    owner: Owner,
}

impl Tail {
    /// For an opening with this number of the store in `dir`.
    ///
    /// # Errors
    /// [`Error::NotProcessSafe`]: there is no shared memory, and the options require it.
    pub(crate) fn open(
        env: &Env,
        dir: &dyn Dir,
        options: &Options,
        store_id: u32,
        nonce: u64,
    ) -> Result<Self> {
        let mode = if options.read_only { ProcessSafe::Off } else { options.process_safe };
        let (used, trouble) = match mode {
            ProcessSafe::Off => (None, None),
            _ => match Used::begin(env, dir, store_id, nonce) {
                Ok(used) => (Some(used), None),
                Err(trouble) if mode == ProcessSafe::Auto => (None, Some(trouble)),
                Err(detail) => {
                    return Err(Error::NotProcessSafe { path: dir.path().to_path_buf(), detail });
                }
            },
        };
        Ok(Tail { mode, used, trouble: Mutex::new(trouble) })
    }

    /// Whether segments get their images here.
    pub(crate) fn is_used(&self) -> bool {
        self.used.is_some()
    }

    /// An image of `capacity` bytes for a segment. The bytes hold anything. `None`: there is no
    /// memory, and the options do not require it.
    ///
    /// # Errors
    /// [`Error::NotProcessSafe`]: there is no memory, and the options require it.
    pub(crate) fn image(&self, segment_id: SegmentId, capacity: usize) -> Result<Option<Image>> {
        let Some(used) = &self.used else { return Ok(None) };
        match used.image(segment_id, capacity) {
            Ok(image) => {
                *self.trouble.lock() = None;
                Ok(Some(image))
            }
            Err(error) => {
                let path = used.objects.path();
                let detail = format!("cannot reserve {capacity} bytes in {}: {error}", path.display());
                *self.trouble.lock() = Some(detail.clone());
                if self.mode == ProcessSafe::Required {
                    return Err(Error::NotProcessSafe { path: used.owner.path.clone(), detail });
                }
                Ok(None)
            }
        }
    }

    /// Whether an image of this size takes no further memory.
    pub(crate) fn has_kept(&self, capacity: usize) -> bool {
        self.used.as_ref().is_some_and(|used| used.objects.has_kept(capacity))
    }

    /// Memory that waits for reuse, bytes.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.used.as_ref().map_or(0, |used| used.objects.kept_bytes())
    }

    /// Gives the memory that waits for reuse back to the system.
    pub(crate) fn remove_kept(&self) {
        if let Some(used) = &self.used {
            used.objects.remove_kept();
        }
    }

    /// The store is closed. Unless the next opening needs the objects, they go: after a clean close
    /// the files hold everything, and a directory that was removed has no next opening.
    pub(crate) fn close(&self, is_needed: bool) {
        if let Some(used) = &self.used {
            used.objects.freeze();
            if !is_needed {
                used.objects.remove_all();
            }
        }
    }

    /// The answer for [`Stats::process_safety`](kv_core::Stats::process_safety), if `all_shared`
    /// says that each segment with undumped changes lies in shared memory.
    pub(crate) fn safety(&self, all_shared: bool) -> ProcessSafety {
        if self.mode == ProcessSafe::Off {
            ProcessSafety::NotPromised
        } else if all_shared {
            ProcessSafety::Safe
        } else {
            let trouble = self.trouble.lock().clone();
            let earlier = "shared memory was short when the segment was made".to_owned();
            ProcessSafety::Unsafe(trouble.unwrap_or(earlier))
        }
    }
}

impl Used {
    fn begin(env: &Env, dir: &dyn Dir, store_id: u32, nonce: u64) -> std::result::Result<Self, String> {
        let memory = env.fs.shared_memory().ok_or("this system has no shared memory")?;
        let told = |error: io::Error| format!("cannot use {}: {error}", memory.path().display());
        let (boot_id, id) = (memory.boot_id().map_err(told)?, dir.id().map_err(told)?);
        let owner = Owner { store_id, nonce, dir: id, boot_id, path: absolute(dir.path()) };
        let prefix = format!("{}{nonce:x}-", Owner::name_prefix(id));
        Ok(Used { objects: SharedObjects::new(memory, prefix), owner })
    }

    fn image(&self, segment_id: SegmentId, capacity: usize) -> io::Result<Image> {
        let (map, tie) = self.objects.take(capacity)?;
        let control = Control { owner: self.owner.clone(), segment_id, image_len: capacity as u64 };
        tie.write_control(&control.encode())?;
        Ok(Image::shared(map, tie))
    }
}

/// The path for other processes. Empty if the working directory is unknown.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_default()
}
