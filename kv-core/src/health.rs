use crate::{Error, Result};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

/// Whether an engine takes changes: a part that engines share.
///
/// It goes from open to poisoned, and from either to closed; never back.
#[derive(Debug, Default)]
pub struct Health {
    state: AtomicU8,
    cause: OnceLock<Arc<Error>>,
}

const OPEN: u8 = 0;
const POISONED: u8 = 1;
const CLOSED: u8 = 2;

impl Health {
    /// `Ok` while reads are served.
    ///
    /// # Errors
    /// [`Error::Closed`].
    #[inline]
    pub fn check_readable(&self) -> Result<()> {
        if self.state.load(Ordering::Acquire) == CLOSED { Err(Error::Closed) } else { Ok(()) }
    }

    /// `Ok` while changes are taken.
    ///
    /// # Errors
    /// [`Error::Closed`], or [`Error::Poisoned`] with the cause.
    #[inline]
    pub fn check_writable(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            OPEN => Ok(()),
            POISONED => Err(self.poisoned()),
            _ => Err(Error::Closed),
        }
    }

    /// Whether a write or sync has failed.
    pub fn is_poisoned(&self) -> bool {
        self.cause.get().is_some()
    }

    /// Takes no more changes, because of `error`; the first one counts. Returns what the caller who
    /// met the failure shall see: `error` itself. What everybody gets after a failure is none.
    pub fn poison(&self, error: Error) -> Error {
        if matches!(error, Error::Poisoned { .. } | Error::Closed) {
            return error;
        }
        if self.cause.set(Arc::new(error.clone())).is_ok() {
            let _ = self.state.compare_exchange(OPEN, POISONED, Ordering::AcqRel, Ordering::Acquire);
        }
        error
    }

    /// The error of everybody after the failure.
    pub fn poisoned(&self) -> Error {
        match self.cause.get() {
            Some(cause) => Error::Poisoned { cause: Arc::clone(cause) },
            None => Error::Closed,
        }
    }

    /// Serves nothing any more.
    pub fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_first_failure_is_the_one_that_is_told() {
        let health = Health::default();
        health.check_writable().unwrap();
        let io = |text: &'static str| Error::io("sync", Path::new("f"), std::io::Error::other(text));
        assert!(health.poison(io("first")).to_string().contains("first"));
        assert!(health.poison(io("second")).to_string().contains("second"));
        let told = health.check_writable().unwrap_err();
        assert!(matches!(&told, Error::Poisoned { .. }) && told.to_string().contains("first"), "{told}");
        health.check_readable().unwrap();
        health.close();
        assert!(matches!(health.check_readable(), Err(Error::Closed)));
        assert!(matches!(health.check_writable(), Err(Error::Closed)));
        assert!(health.is_poisoned());
    }
}
