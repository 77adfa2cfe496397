//! The files of a store's segments, of which only so many are open at a time: a process may have
//! about a thousand, and a store may have more segments than that.
//!
//! What is still written stays open, and so does what is about to be removed, since readers may
//! still come to it. The others are opened when somebody reads them, and closed in the order in
//! which they were opened, once there are too many.

use kv_core::{Dir, DirExt, File, OpenMode, SegmentId};
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
    /// What direct transfers must be aligned to; 0 while they go through the cache; or
    /// `NEVER_DIRECT`. Changed by who writes, one at a time.
    pub(super) direct_align: AtomicUsize,
}

/// A file, open or not.
#[derive(Debug)]
pub(super) struct Opening {
    /// Who uses it shares it, and may go on when it is closed.
    pub(super) handle: Option<Arc<Handle>>,
    pub(super) stays_open: bool,
}

/// Where segment files are, and which of them are open.
#[derive(Debug)]
pub(crate) struct SegmentFiles {
    dir: Arc<dyn Dir>,
    open_max: usize,
    /// Those that may be closed, the one that was opened first in front. Some are closed, or gone.
    closable: Mutex<VecDeque<Weak<Mutex<Opening>>>>,
}

impl Handle {
    pub(super) fn new(file: Box<dyn File>) -> Arc<Self> {
        Arc::new(Handle { file, direct_align: AtomicUsize::new(0) })
    }
}

impl SegmentFiles {
    /// In `dir`, with at most `open_max` files open beside those that are still written.
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
        // Not with the lock held: closing a file takes its time.
        for opening in too_many.iter().filter_map(Weak::upgrade) {
            let mut opening = opening.lock();
            if !opening.stays_open {
                opening.handle = None;
            }
        }
    }
}
