use super::process::Process;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A global value of which each process has its own. A part that engines share.
///
/// A forked child has a copy of its parent's memory. Another thread of the parent may hold a lock
/// at that moment, or change the value. In the child this lock stays locked. So the child leaves
/// its parent's value alone, and starts with a default one. Only on Linux does a child notice that
/// it is one; on other systems it uses its parent's value.
///
/// ```
/// use kv_core::parts::PerProcess;
/// use std::sync::Mutex;
///
/// static NAMES: PerProcess<Mutex<Vec<String>>> = PerProcess::new();
/// NAMES.get().lock().unwrap().push("a".to_owned());
/// assert_eq!(*NAMES.get().lock().unwrap(), ["a"]);
/// ```
pub struct PerProcess<T: 'static> {
    /// The value of this process or of a parent; null before the first use. Leaked, so that no
    /// reference to it ends.
    newest: AtomicPtr<Value<T>>,
}

struct Value<T> {
    process: Process,
    value: T,
}

impl<T> PerProcess<T> {
    /// Without a value yet.
    #[expect(clippy::new_without_default, reason = "it is for a static")]
    pub const fn new() -> Self {
        PerProcess { newest: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl<T: Default + Send + Sync> PerProcess<T> {
    /// The value of this process. Costs two loads, except for the first call in a process.
    #[expect(unsafe_code, reason = "a lock around the reference could be held forever in a child")]
    pub fn get(&self) -> &'static T {
        // Acquire pairs with the Release below, and makes the value visible.
        let newest = self.newest.load(Ordering::Acquire);
        // SAFETY: it is null, or was leaked below, and only shared references to it exist.
        if let Some(newest) = unsafe { newest.as_ref() }.filter(|newest| newest.process.is_running()) {
            return &newest.value;
        }
        let own: &'static Value<T> =
            Box::leak(Box::new(Value { process: Process::this(), value: T::default() }));
        let made = ptr::from_ref(own).cast_mut();
        match self.newest.compare_exchange(newest, made, Ordering::Release, Ordering::Acquire) {
            Ok(_) => &own.value,
            // SAFETY: another thread of this process was faster, and leaked a value of its own.
            Err(first) => unsafe { &(*first).value },
        }
    }
}

impl<T> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerProcess").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::thread;

    #[test]
    fn all_threads_of_a_process_have_one_value() {
        static VALUE: PerProcess<Mutex<u32>> = PerProcess::new();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| *VALUE.get().lock().unwrap() += 1);
            }
        });
        assert_eq!(*VALUE.get().lock().unwrap(), 8);
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[expect(unsafe_code, reason = "there is no other way to fork")]
    fn a_forked_child_waits_for_no_lock_of_its_parent() {
        static VALUE: PerProcess<Mutex<u32>> = PerProcess::new();
        let mut held = VALUE.get().lock().unwrap();
        *held = 7;
        // SAFETY: the child allocates, which the system's allocator allows, and ends itself.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_own = VALUE.get().try_lock().is_ok_and(|value| *value == 0);
            // SAFETY: it ends this process.
            unsafe { libc::_exit(i32::from(!is_own)) };
        }
        let mut status = 0;
        // SAFETY: the child is this process's, and the status its own.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((status, *held), (0, 7));
        drop(held);
        assert_eq!(*VALUE.get().lock().unwrap(), 7);
    }
}
