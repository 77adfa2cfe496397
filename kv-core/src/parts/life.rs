use crate::Result;
use std::sync::{Mutex, PoisonError};

/// The life of an open engine, which is closed once. A part that engines share. `W` holds the
/// background workers, as a rule threads.
///
/// ```
/// use kv_core::{Error, parts::Life};
///
/// let life = Life::new("workers");
/// let fails = |_: &mut &str| Err(Error::Unsupported("closing in an example"));
/// assert!(life.close(fails).is_err());
/// // It happens once, and every further call is answered as the first.
/// assert!(life.close(|_| Ok(())).is_err());
/// ```
#[derive(Debug)]
pub struct Life<W>(Mutex<State<W>>);

#[derive(Debug)]
enum State<W> {
    Open(W),
    Closed(Result<()>),
}

impl<W> Life<W> {
    /// Of an engine that is open.
    pub fn new(workers: W) -> Self {
        Life(Mutex::new(State::Open(workers)))
    }

    /// Closes the engine by `close`, and drops the workers. A call at the same time waits, so that
    /// it returns when the directory is free, too.
    ///
    /// # Errors
    /// The answer of the first `close`, in every call.
    pub fn close(&self, close: impl FnOnce(&mut W) -> Result<()>) -> Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = match &mut *state {
            State::Open(workers) => workers,
            State::Closed(answer) => return answer.clone(),
        };
        let answer = close(workers);
        *state = State::Closed(answer.clone());
        answer
    }

    /// Leaves the workers as they are, without dropping them: in a forked child they do not exist.
    pub fn forget(&mut self) {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(std::mem::replace(state, State::Closed(Ok(()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn it_is_closed_once_and_the_workers_go() {
        let worker = Arc::new(());
        let life = Life::new(Arc::clone(&worker));
        let mut calls = 0;
        for _ in 0..3 {
            life.close(|_| {
                calls += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!((calls, Arc::strong_count(&worker)), (1, 1));
    }

    #[test]
    fn workers_that_are_forgotten_are_not_dropped() {
        let worker = Arc::new(());
        let mut life = Life::new(Arc::clone(&worker));
        life.forget();
        drop(life);
        assert_eq!(Arc::strong_count(&worker), 2);
    }
}
