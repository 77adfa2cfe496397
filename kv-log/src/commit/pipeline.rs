//! The loop around every commit: attempt, wait for room, make space, and try again.
//!
//! The loop depends on three functions ([`Pipeline`]), so its decisions are tested without a store.
//! Pebble's commit pipeline is the model.

use kv_core::{Error, Result};

use crate::manifest::Need;
use crate::refusal::is_full;

/// The history of a change that is about to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The writer has waited for memory. It waits at most once.
    pub(super) has_waited: bool,
    /// The purpose of a new active segment.
    pub(super) need: Need,
}

/// The outcome of one attempt to commit.
pub(super) enum Outcome<T> {
    Done(T),
    /// Another look at the index is needed first: a record must be read from a file.
    LookAgain,
    /// Too many bytes are unflushed, or hold no live record, for a change with records of `len`
    /// bytes.
    NoMemoryYet {
        len: usize,
    },
}

/// The functions that the loop depends on.
pub(super) trait Pipeline {
    /// Refuses changes once the store is closed or poisoned.
    fn check_change(&self) -> Result<()>;

    /// Waits until memory for `len` more bytes comes free, but not long.
    fn wait_for_memory(&self, len: usize) -> Result<()>;

    /// Compacts for a change with this need that `error` refuses. Returns whether space, or the
    /// missing slot, came free.
    ///
    /// # Errors
    /// Only failures that poison the store.
    fn free_space(&self, need: Need, error: &Error) -> Result<bool>;
}

/// Calls `commit` until it is done. `is_relief` says that the change only deletes.
///
/// Between two calls the writer waits for a flush or compacts. It holds no lock and is not pinned
/// then, so each call looks up the records to replace again.
#[inline]
pub(super) fn commit_with<T>(
    pipeline: &impl Pipeline,
    is_relief: bool,
    mut commit: impl FnMut(Attempt) -> Result<Outcome<T>>,
) -> Result<T> {
    let need = if is_relief { Need::Relief } else { Need::Growth };
    let mut attempt = Attempt { has_waited: false, need };
    loop {
        pipeline.check_change()?;
        match commit(attempt) {
            Ok(Outcome::Done(done)) => return Ok(done),
            Ok(Outcome::LookAgain) => {}
            Ok(Outcome::NoMemoryYet { len }) => {
                pipeline.wait_for_memory(len)?;
                attempt.has_waited = true;
            }
            Err(error) if is_full(&error) => attempt.need = after_full(pipeline, attempt.need, error)?,
            Err(error) => return Err(error),
        }
    }
}

/// How a change may try again that found the disk full or no slot free.
///
/// | compaction freed | need | next attempt |
/// |---|---|---|
/// | something | any | as before |
/// | nothing | relief | as the last relief: with more of the reserve |
/// | nothing | growth, or the last relief | none: the change is refused with `error` |
#[cold]
fn after_full(pipeline: &impl Pipeline, need: Need, error: Error) -> Result<Need> {
    // A full disk during a sync has poisoned the store, and compaction cannot help.
    if pipeline.check_change().is_err() {
        return Err(error);
    }
    match (pipeline.free_space(need, &error)?, need) {
        (true, need) => Ok(need),
        (false, Need::Relief) => Ok(Need::LastRelief),
        (false, _) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::Op;
    use std::cell::RefCell;
    use std::io;
    use std::path::Path;

    /// Frees space or not, one entry a call, and notes the calls.
    #[derive(Default)]
    struct Fake {
        freed: RefCell<Vec<bool>>,
        calls: RefCell<Vec<String>>,
        is_poisoned: RefCell<bool>,
    }

    impl Pipeline for Fake {
        fn check_change(&self) -> Result<()> {
            if *self.is_poisoned.borrow() { Err(Error::Closed) } else { Ok(()) }
        }

        fn wait_for_memory(&self, len: usize) -> Result<()> {
            self.calls.borrow_mut().push(format!("wait {len}"));
            Ok(())
        }

        fn free_space(&self, need: Need, _error: &Error) -> Result<bool> {
            self.calls.borrow_mut().push(format!("{need:?}"));
            Ok(self.freed.borrow_mut().pop().unwrap_or(false))
        }
    }

    fn full() -> Error {
        Error::io(Op::Create, Path::new("f"), io::ErrorKind::StorageFull.into())
    }

    fn calls(fake: &Fake) -> Vec<String> {
        fake.calls.borrow().clone()
    }

    #[test]
    fn a_writer_waits_for_room_once_and_looks_again_at_will() {
        let fake = Fake::default();
        let mut outcomes = vec![Outcome::Done(7), Outcome::LookAgain, Outcome::NoMemoryYet { len: 9 }];
        let mut attempts = Vec::new();
        let done = commit_with(&fake, false, |attempt| {
            attempts.push(attempt.has_waited);
            Ok(outcomes.pop().unwrap())
        });
        assert_eq!((done.unwrap(), attempts), (7, vec![false, true, true]));
        assert_eq!(calls(&fake), ["wait 9"]);
    }

    #[test]
    fn growth_tries_again_while_compaction_frees_space() {
        let fake = Fake { freed: vec![false, true, true].into(), ..Fake::default() };
        let answer = commit_with(&fake, false, |_| Err::<Outcome<()>, _>(full()));
        assert!(matches!(answer, Err(Error::DiskFull { .. })), "{answer:?}");
        assert_eq!(calls(&fake), ["Growth", "Growth", "Growth"]);
    }

    #[test]
    fn a_delete_uses_more_of_the_reserve_once_compaction_frees_nothing() {
        let fake = Fake { freed: vec![false, false, true].into(), ..Fake::default() };
        let mut needs = Vec::new();
        let answer = commit_with(&fake, true, |attempt| {
            needs.push(attempt.need);
            Err::<Outcome<()>, _>(full())
        });
        assert!(matches!(answer, Err(Error::DiskFull { .. })), "{answer:?}");
        assert_eq!(needs, [Need::Relief, Need::Relief, Need::LastRelief]);
        assert_eq!(calls(&fake), ["Relief", "Relief", "LastRelief"]);
    }

    #[test]
    fn other_errors_and_failures_that_poison_end_the_loop() {
        let fake = Fake { freed: vec![true].into(), ..Fake::default() };
        let answer = commit_with(&fake, true, |_| Err::<Outcome<()>, _>(Error::ReadOnly));
        assert!(matches!(answer, Err(Error::ReadOnly)) && calls(&fake).is_empty());
        let answer = commit_with(&fake, true, |_| {
            *fake.is_poisoned.borrow_mut() = true;
            Err::<Outcome<()>, _>(full())
        });
        assert!(matches!(answer, Err(Error::DiskFull { .. })) && calls(&fake).is_empty());
        assert!(matches!(commit_with(&fake, true, |_| Ok(Outcome::Done(1))), Err(Error::Closed)));
    }
}
