use super::Health;
use crate::Result;
use std::sync::{Condvar, Mutex, PoisonError};

/// Leadership for a piece of work that many threads need: one thread leads, the others wait for it.
/// A part that engines share: with a sync as the work, this is group commit.
///
/// ```
/// use kv_core::parts::Leadership;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// let (leadership, durable, visible) = (Leadership::default(), AtomicU64::new(0), AtomicU64::new(7));
/// let done = || durable.load(Ordering::SeqCst) >= 7;
/// while let Some(_leading) = leadership.take_unless(done) {
///     durable.store(visible.load(Ordering::SeqCst), Ordering::SeqCst); // the sync
/// }
/// assert!(done());
/// ```
#[derive(Debug, Default)]
pub struct Leadership {
    taken: Mutex<bool>,
    given_up: Condvar,
}

/// Leadership, held; given up when dropped, even by a panic. Then all waiting threads look again.
#[derive(Debug)]
pub struct Leading<'a>(&'a Leadership);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.given_up.notify_all();
    }
}

impl Leadership {
    /// Waits until `done` (then `None`), or until this thread leads. `done` is asked before every
    /// wait, and again after each leader has given up. The work that makes it true must be done
    /// while leading.
    pub fn take_unless(&self, done: impl Fn() -> bool) -> Option<Leading<'_>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while !done() {
            if !*taken {
                *taken = true;
                return Some(Leading(self));
            }
            taken = self.given_up.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Waits, or leads and does the work, until `done` was true once. `work` poisons `health` when
    /// it fails. After that no thread leads.
    ///
    /// # Errors
    /// The leading thread gets the error of `work`. Waiting threads get
    /// [`Error::Poisoned`](crate::Error::Poisoned), or [`Error::ReadOnly`](crate::Error::ReadOnly)
    /// if the store is only read.
    pub fn lead_until(
        &self,
        health: &Health,
        done: impl Fn() -> bool,
        mut work: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        if health.is_read_only() {
            return if done() { Ok(()) } else { health.check_writable() };
        }
        loop {
            match self.take_unless(|| done() || health.is_poisoned()) {
                Some(_leading) => work()?,
                None if health.is_poisoned() && !done() => return Err(health.poisoned()),
                // It was done a moment ago, if it is not any more.
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_leads_at_a_time_and_all_wake() {
        let (leadership, leading, led) = (Leadership::default(), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for goal in 1..=8 {
                let (leadership, leading, led) = (&leadership, &leading, &led);
                scope.spawn(move || {
                    while let Some(_leading) = leadership.take_unless(|| led.load(Ordering::SeqCst) >= goal) {
                        assert_eq!(leading.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        leading.fetch_sub(1, Ordering::SeqCst);
                        led.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(led.load(Ordering::SeqCst) >= 8);
    }

    #[test]
    fn what_was_done_once_is_done() {
        let (leadership, health, asked) = (Leadership::default(), Health::default(), AtomicU32::new(0));
        let done = || asked.fetch_add(1, Ordering::SeqCst) == 1;
        let mut led = 0;
        let work = || {
            led += 1;
            Ok(())
        };
        leadership.lead_until(&health, done, work).unwrap();
        assert_eq!(led, 1);
    }

    #[test]
    fn the_leader_gets_the_failure_and_the_others_its_consequence() {
        use crate::Error;
        let (leadership, health, works) = (Leadership::default(), Health::default(), AtomicU32::new(0));
        let fail = || {
            works.fetch_add(1, Ordering::SeqCst);
            Err(health.poison(Error::InvalidArgument("on purpose".to_owned())))
        };
        let results: Vec<Error> = std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..6)
                .map(|_| scope.spawn(|| leadership.lead_until(&health, || false, fail).unwrap_err()))
                .collect();
            waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let led = results.iter().filter(|error| matches!(error, Error::InvalidArgument(_))).count();
        let told = results.iter().filter(|error| matches!(error, Error::Poisoned { .. })).count();
        assert_eq!((led, told, works.load(Ordering::SeqCst)), (1, 5, 1), "{results:?}");
        // Finished work stays finished after a later failure.
        leadership.lead_until(&health, || true, fail).unwrap();
        let reader = Health::read_only();
        leadership.lead_until(&reader, || true, fail).unwrap();
        assert!(matches!(leadership.lead_until(&reader, || false, fail), Err(Error::ReadOnly)));
    }

    #[test]
    fn a_leader_who_panics_gives_up() {
        let leadership = Leadership::default();
        let panicked = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _leading = leadership.take_unless(|| false);
                    panic!("on purpose");
                })
                .join()
        });
        assert!(panicked.is_err());
        assert!(leadership.take_unless(|| false).is_some());
    }
}
