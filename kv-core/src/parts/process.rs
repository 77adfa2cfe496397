//! Which process this is, for the price of a load.
//!
//! A forked child has a copy of its parent's memory and none of its threads: an engine in it would
//! write to its parent's files, and wait for threads that do not exist. So an engine remembers the
//! process that opened it. Asking the system for the process at each call would cost a tenth of a
//! put; a page that the system wipes in a child costs a load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The process that made it.
#[derive(Debug)]
pub(crate) struct Process {
    /// Holds the number of the running process, or 0 in a child that made none yet.
    mark: &'static AtomicU32,
    number: u32,
}

impl Process {
    pub(crate) fn this() -> Self {
        static MARK: OnceLock<&'static AtomicU32> = OnceLock::new();
        let mark = *MARK.get_or_init(|| wiped_in_children().unwrap_or_else(|| Box::leak(Box::default())));
        let number = std::process::id();
        mark.store(number, Ordering::Relaxed);
        Process { mark, number }
    }

    /// Whether the running process is the one that made this. Always true where the system wipes no
    /// memory in children.
    #[inline]
    pub(crate) fn is_running(&self) -> bool {
        self.mark.load(Ordering::Relaxed) == self.number
    }
}

/// A number in memory that is 0 in every child forked from now on.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "memory with a property of its own, in place of a system call for each change"
)]
fn wiped_in_children() -> Option<&'static AtomicU32> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
    // The system rounds it up to a page.
    const LEN: usize = size_of::<AtomicU32>();
    // SAFETY: a new mapping at an address of the system's choice changes no other memory. It is
    // never unmapped, and so valid for 'static; it is zeroed, aligned to a page, and only this
    // reference leads to it. `LinuxWipeOnFork` has an effect in children only, and there every
    // value of the number is valid.
    unsafe {
        let page =
            mmap_anonymous(std::ptr::null_mut(), LEN, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        let page = page.ok()?;
        madvise(page, LEN, Advice::LinuxWipeOnFork).ok()?;
        Some(&*page.cast::<AtomicU32>())
    }
}

#[cfg(not(target_os = "linux"))]
fn wiped_in_children() -> Option<&'static AtomicU32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_made_it_is_running() {
        let (first, second) = (Process::this(), Process::this());
        assert!(first.is_running() && second.is_running());
    }
}
