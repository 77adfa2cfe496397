//! The open files of a store's segments. Their number is limited: a process may have about a
//! thousand open files, and a store may have more segments.
//!
//! A file that is still written stays open. So does a file that will be removed soon, because
//! readers may need it. A reader opens any other file when it reads it. If too many are open, the
//! one that was opened first is closed.

use kv_core::SegmentId;
use kv_core::fs::{Dir, DirExt, File, OpenMode};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use crate::directory;

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) file: Box<dyn File>,
    /// The alignment of direct transfers. 0 while they go through the cache, or `NEVER_DIRECT`. The
    /// one writer of the file changes it.
    pub(super) direct_align: AtomicUsize,
}

/// A file, open or not.
#[derive(Debug)]
pub(super) struct Opening {
    /// Users share it, and may go on when it is closed.
    pub(super) handle: Option<Arc<Handle>>,
    pub(super) stays_open: bool,
}

/// The directory of segment files, and the open ones.
#[derive(Debug)]
pub(crate) struct SegmentFiles {
    dir: Arc<dyn Dir>,
    open_max: usize,
    /// Files that may be closed, the first opened one in front. Some are closed or gone already.
    closable: Mutex<VecDeque<Weak<Mutex<Opening>>>>,
}

impl Handle {
    pub(super) fn new(file: Box<dyn File>) -> Arc<Self> {
        Arc::new(Handle { file, direct_align: AtomicUsize::new(0) })
    }
}

impl SegmentFiles {
    /// In `dir`, with at most `open_max` open files in addition to those that are still written.
    pub(crate) fn new(dir: Arc<dyn Dir>, open_max: usize) -> Arc<Self> {
        Arc::new(SegmentFiles { dir, open_max, closable: Mutex::default() })
    }

    pub(super) fn open(&self, id: SegmentId, mode: OpenMode) -> io::Result<Box<dyn File>> {
        self.dir.open(&directory::segment_file_name(id), mode)
    }

    pub(super) fn path_of(&self, id: SegmentId) -> PathBuf {
        self.dir.path_of(&directory::segment_file_name(id))
    }

    /// This file is open, and may be closed when there are too many.
    pub(super) fn allow_close(&self, opening: &Arc<Mutex<Opening>>) {
        let too_many = {
            let mut closable = self.closable.lock();
            closable.push_back(Arc::downgrade(opening));
            let excess = closable.len().saturating_sub(self.open_max);
            closable.drain(..excess).collect::<Vec<_>>()
        };
        // Without the lock: to close a file takes long.
        for opening in too_many.iter().filter_map(Weak::upgrade) {
            let mut opening = opening.lock();
            if !opening.stays_open {
                opening.handle = None;
            }
        }
    }
}
