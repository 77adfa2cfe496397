//! The memory barrier between the announcement of a pin and the first look of its reader.
//!
//! Readers are many and collections few. So the collector asks the kernel for a barrier in all
//! running threads (`membarrier`), and readers only keep the compiler from reordering. If the
//! kernel has no such call, readers have a barrier of their own.

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

/// Whether readers need a barrier of their own. Set before the first reader exists.
static READERS_FENCE: AtomicBool = AtomicBool::new(true);

/// Asks the kernel whether it provides barriers. Called once in each process, before a thread of it
/// is pinned.
pub(super) fn prepare() {
    READERS_FENCE.store(!system::register(), Ordering::Relaxed);
}

/// The reader's side.
#[inline]
pub(super) fn of_reader() {
    if READERS_FENCE.load(Ordering::Relaxed) {
        fence(Ordering::SeqCst);
    } else {
        compiler_fence(Ordering::SeqCst);
    }
}

/// The collector's side: a barrier in every reader, or in this thread for readers that have their
/// own. Returns `false` if the kernel refused it.
pub(super) fn of_collector() -> bool {
    fence(Ordering::SeqCst);
    READERS_FENCE.load(Ordering::Relaxed) || system::barrier()
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{MembarrierCommand, membarrier};

    /// Whether the kernel provides barriers.
    pub(super) fn register() -> bool {
        membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
    }

    pub(super) fn barrier() -> bool {
        membarrier(MembarrierCommand::PrivateExpedited).is_ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn barrier() -> bool {
        false
    }
}
