use crate::{Error, Op, Result};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

/// The background threads of an open store. An engine keeps them in its [`Life`](super::Life).
///
/// ```
/// use kv_core::parts::{Threads, Wake};
/// use std::sync::Arc;
///
/// let (mut threads, stop) = (Threads::of("/data/store".as_ref()), Arc::new(Wake::default()));
/// let of_thread = Arc::clone(&stop);
/// threads.start("example", move || {
///     of_thread.wait(None);
/// })?;
/// stop.wake();
/// threads.join();
/// # Ok::<(), kv_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Threads {
    /// For errors.
    dir: PathBuf,
    running: Vec<JoinHandle<()>>,
}

impl Threads {
    /// No threads yet, of the store in `dir`.
    pub fn of(dir: &Path) -> Self {
        Threads { dir: dir.to_path_buf(), running: Vec::new() }
    }

    /// Starts a thread that does `work`.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses the thread. Those that were started go on: the caller
    /// stops and joins them.
    pub fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|error| Error::io(Op::StartThread, &self.dir, error))?;
        self.running.push(thread);
        Ok(())
    }

    /// Waits until all threads have ended. The caller told them to. A panic of a thread is not an
    /// error here: it poisoned the store where it happened.
    ///
    /// A thread that wakes a task may drop the last handle of the store with it, and so close the
    /// store and join itself. Such a thread does not wait for itself.
    pub fn join(&mut self) {
        for thread in self.running.drain(..) {
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex, mpsc};

    #[test]
    fn all_threads_have_ended_after_join_even_by_a_panic() {
        let (mut threads, ended) = (Threads::of(Path::new("d")), Arc::new(AtomicU32::new(0)));
        for _ in 0..3 {
            let ended = Arc::clone(&ended);
            threads
                .start("ends", move || {
                    ended.fetch_add(1, Ordering::SeqCst);
                })
                .unwrap();
        }
        threads.start("panics", || std::panic::resume_unwind(Box::new("on purpose"))).unwrap();
        threads.join();
        threads.join();
        assert_eq!(ended.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_thread_that_joins_its_own_store_does_not_wait_for_itself() {
        let threads = Arc::new(Mutex::new(Threads::of(Path::new("d"))));
        let (of_thread, (sender, receiver)) = (Arc::clone(&threads), mpsc::channel());
        threads
            .lock()
            .unwrap()
            .start("closes", move || {
                of_thread.lock().unwrap().join();
                sender.send(()).unwrap();
            })
            .unwrap();
        receiver.recv_timeout(std::time::Duration::from_mins(1)).expect("it ends");
    }
}
