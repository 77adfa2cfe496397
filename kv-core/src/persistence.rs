//! When changes go to disk. A policy decides, the engine executes: policies are pure functions of
//! the pending changes, so they are tested as tables.

use std::fmt::Debug;
use std::time::Duration;

/// The changes that are not durable yet. With inline background work, numbers and times are exact.
/// With threads, an engine may tell a time that is a few changes old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Bytes of changes that are not durable: at least their keys and values, and what the engine
    /// adds to them in its files.
    pub bytes: u64,
    /// How many changes those are: puts, deletes that found their key, batches. A batch is one.
    pub records: u64,
    /// How long the oldest of them has been visible.
    pub oldest_age: Duration,
    /// Time since the last dump ended, or since open. A write without a sync is a dump.
    pub since_last_dump: Duration,
}

/// The action that an engine shall take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Nothing yet.
    Hold,
    /// Hand the pending changes to the operating system: they survive the death of the process, not
    /// a power cut. An engine whose dumps are whole snapshots may sync as well.
    Write,
    /// Write, and sync: they survive a power cut.
    WriteAndSync,
}

/// A policy's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The action to take now.
    pub action: Action,
    /// Ask again after this time, even if nothing changes; `None`: when something is added. With
    /// inline background work nothing happens between two calls, and the next change asks.
    pub ask_again_in: Option<Duration>,
}

impl Decision {
    /// Do this, and ask again when something is added.
    pub const fn now(action: Action) -> Self {
        Decision { action, ask_again_in: None }
    }
}

/// When a change's call may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// Once it is visible.
    WhenVisible,
    /// Once it is durable.
    WhenDurable,
}

/// The most that a power cut may take under a policy; `None`: no bound.
///
/// The bound speaks of the changes pending when the policy last answered *hold*. An engine with
/// background threads adds the changes that arrive during a dump; in inline mode it is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossWindow {
    /// Bytes of changes.
    pub bytes: Option<u64>,
    /// Age of the oldest lost change.
    pub age: Option<Duration>,
}

/// Decides when pending changes are dumped to disk.
///
/// An engine asks after every change (cheaply: it may skip asking when the last answer cannot have
/// changed), and again when the time of the last answer has passed. It does not ask while nothing
/// is pending.
///
/// ```
/// use kv_core::{Acknowledge, Action, Decision, LossWindow, Pending, PersistencePolicy};
///
/// /// Sync every hundred changes.
/// #[derive(Debug)]
/// struct EveryHundred;
///
/// impl PersistencePolicy for EveryHundred {
///     fn decide(&self, pending: &Pending) -> Decision {
///         Decision::now(if pending.records >= 100 { Action::WriteAndSync } else { Action::Hold })
///     }
///     fn acknowledge(&self) -> Acknowledge {
///         Acknowledge::WhenVisible
///     }
///     fn loss_window(&self) -> LossWindow {
///         LossWindow::default()
///     }
/// }
/// ```
pub trait PersistencePolicy: Debug + Send + Sync {
    /// The decision about `pending`.
    fn decide(&self, pending: &Pending) -> Decision;

    /// When a change's call may return. The same answer for the life of the policy.
    fn acknowledge(&self) -> Acknowledge;

    /// The most that a power cut may take: a promise that the test suite checks.
    fn loss_window(&self) -> LossWindow;
}

/// Periodic (100 ms) + max-log-size (8 MiB), both with sync: the default of all engines.
pub fn default_persistence() -> AnyOf {
    AnyOf::new(vec![Box::new(Periodic::new(Duration::from_millis(100))), Box::new(MaxLogSize::new(8 << 20))])
}

/// A change is durable when its call returns; concurrent callers share a sync (group commit).
/// Costs one sync per group of concurrent changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Always;

impl PersistencePolicy for Always {
    fn decide(&self, pending: &Pending) -> Decision {
        Decision::now(if pending.records > 0 { Action::WriteAndSync } else { Action::Hold })
    }

    fn acknowledge(&self) -> Acknowledge {
        Acknowledge::WhenDurable
    }

    fn loss_window(&self) -> LossWindow {
        LossWindow { bytes: Some(0), age: Some(Duration::ZERO) }
    }
}

/// Dumps when the oldest pending change has waited for an interval. Costs at most one dump per
/// interval; idle stores are left alone.
#[derive(Clone, Copy, Debug)]
pub struct Periodic {
    interval: Duration,
    action: Action,
}

impl Periodic {
    /// Write and sync once the oldest pending change is `interval` old.
    pub const fn new(interval: Duration) -> Self {
        Periodic { interval, action: Action::WriteAndSync }
    }

    /// The same without the sync: no bound on the loss at a power cut.
    pub const fn without_sync(interval: Duration) -> Self {
        Periodic { interval, action: Action::Write }
    }
}

impl PersistencePolicy for Periodic {
    fn decide(&self, pending: &Pending) -> Decision {
        if pending.records == 0 {
            return Decision::now(Action::Hold);
        }
        // After a write without sync the changes are still pending (not durable); the pace is then
        // set by the last dump.
        let waited = match self.action {
            Action::WriteAndSync => pending.oldest_age,
            Action::Hold | Action::Write => pending.oldest_age.min(pending.since_last_dump),
        };
        match self.interval.checked_sub(waited) {
            None | Some(Duration::ZERO) => Decision::now(self.action),
            remaining => Decision { action: Action::Hold, ask_again_in: remaining },
        }
    }

    fn acknowledge(&self) -> Acknowledge {
        Acknowledge::WhenVisible
    }

    fn loss_window(&self) -> LossWindow {
        match self.action {
            Action::WriteAndSync => LossWindow { bytes: None, age: Some(self.interval) },
            Action::Hold | Action::Write => LossWindow::default(),
        }
    }
}

/// Dumps when the pending changes reach a size.
#[derive(Clone, Copy, Debug)]
pub struct MaxLogSize {
    bytes: u64,
}

impl MaxLogSize {
    /// Write and sync once `bytes` are pending.
    pub const fn new(bytes: u64) -> Self {
        MaxLogSize { bytes }
    }
}

impl PersistencePolicy for MaxLogSize {
    fn decide(&self, pending: &Pending) -> Decision {
        let reached = pending.records > 0 && pending.bytes >= self.bytes;
        Decision::now(if reached { Action::WriteAndSync } else { Action::Hold })
    }

    fn acknowledge(&self) -> Acknowledge {
        Acknowledge::WhenVisible
    }

    fn loss_window(&self) -> LossWindow {
        LossWindow { bytes: Some(self.bytes), age: None }
    }
}

/// Never dumps by itself: only `sync`, `wait_durable` and `close` do. (An engine may still write
/// when its memory for unflushed changes is full.)
#[derive(Clone, Copy, Debug, Default)]
pub struct Manual;

impl PersistencePolicy for Manual {
    fn decide(&self, _pending: &Pending) -> Decision {
        Decision::now(Action::Hold)
    }

    fn acknowledge(&self) -> Acknowledge {
        Acknowledge::WhenVisible
    }

    fn loss_window(&self) -> LossWindow {
        LossWindow::default()
    }
}

/// Several policies at once: the strongest action any of them asks for, the earliest time any of
/// them wants to be asked again, the tightest window.
#[derive(Debug)]
pub struct AnyOf {
    policies: Vec<Box<dyn PersistencePolicy>>,
}

impl AnyOf {
    /// Combines `policies`; none at all behaves as [`Manual`].
    pub fn new(policies: Vec<Box<dyn PersistencePolicy>>) -> Self {
        AnyOf { policies }
    }
}

impl PersistencePolicy for AnyOf {
    fn decide(&self, pending: &Pending) -> Decision {
        self.policies.iter().map(|policy| policy.decide(pending)).fold(
            Decision::now(Action::Hold),
            |sum, one| Decision {
                action: sum.action.max(one.action),
                ask_again_in: earliest(sum.ask_again_in, one.ask_again_in),
            },
        )
    }

    fn acknowledge(&self) -> Acknowledge {
        if self.policies.iter().any(|policy| policy.acknowledge() == Acknowledge::WhenDurable) {
            Acknowledge::WhenDurable
        } else {
            Acknowledge::WhenVisible
        }
    }

    fn loss_window(&self) -> LossWindow {
        self.policies.iter().map(|policy| policy.loss_window()).fold(LossWindow::default(), |sum, one| {
            LossWindow { bytes: earliest(sum.bytes, one.bytes), age: earliest(sum.age, one.age) }
        })
    }
}

/// The smaller of two bounds, where `None` is no bound.
fn earliest<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (bound, None) | (None, bound) => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn pending(bytes: u64, records: u64, age_ms: u64, since_dump_ms: u64) -> Pending {
        Pending { bytes, records, oldest_age: MS(age_ms), since_last_dump: MS(since_dump_ms) }
    }

    fn hold(ms: u64) -> Decision {
        Decision { action: Action::Hold, ask_again_in: Some(MS(ms)) }
    }

    #[test]
    fn decisions() {
        let sync = Decision::now(Action::WriteAndSync);
        let idle = Decision::now(Action::Hold);
        let any = || AnyOf::new(vec![Box::new(Periodic::new(MS(50))), Box::new(MaxLogSize::new(1000))]);
        let table: Vec<(Box<dyn PersistencePolicy>, Pending, Decision)> = vec![
            (Box::new(Always), pending(0, 0, 0, 900), idle),
            (Box::new(Always), pending(1, 1, 0, 0), sync),
            (Box::new(Manual), pending(1 << 40, 1 << 30, 99_999, 99_999), idle),
            (Box::new(Periodic::new(MS(50))), pending(0, 0, 0, 900), idle),
            (Box::new(Periodic::new(MS(50))), pending(9, 1, 0, 900), hold(50)),
            (Box::new(Periodic::new(MS(50))), pending(9, 1, 49, 900), hold(1)),
            (Box::new(Periodic::new(MS(50))), pending(9, 1, 50, 900), sync),
            (Box::new(Periodic::new(MS(50))), pending(9, 1, 51, 0), sync),
            (Box::new(Periodic::without_sync(MS(50))), pending(9, 1, 70, 10), hold(40)),
            (Box::new(Periodic::without_sync(MS(50))), pending(9, 1, 70, 50), Decision::now(Action::Write)),
            (Box::new(MaxLogSize::new(1000)), pending(999, 5, 99_999, 99_999), idle),
            (Box::new(MaxLogSize::new(1000)), pending(1000, 5, 0, 0), sync),
            (Box::new(MaxLogSize::new(0)), pending(0, 0, 0, 0), idle),
            (Box::new(any()), pending(999, 5, 20, 0), hold(30)),
            (
                Box::new(any()),
                pending(1000, 5, 20, 0),
                Decision { action: Action::WriteAndSync, ask_again_in: Some(MS(30)) },
            ),
            (Box::new(any()), pending(1, 1, 50, 0), sync),
            (Box::new(AnyOf::new(vec![])), pending(1, 1, 50, 0), idle),
        ];
        for (policy, pending, expected) in table {
            assert_eq!(policy.decide(&pending), expected, "{policy:?} {pending:?}");
        }
    }

    #[test]
    fn a_combination_acknowledges_and_bounds_like_its_strictest_part() {
        let relaxed = default_persistence();
        assert_eq!(relaxed.acknowledge(), Acknowledge::WhenVisible);
        assert_eq!(relaxed.loss_window(), LossWindow { bytes: Some(8 << 20), age: Some(MS(100)) });
        let strict = AnyOf::new(vec![Box::new(Manual), Box::new(Always), Box::new(MaxLogSize::new(7))]);
        assert_eq!(strict.acknowledge(), Acknowledge::WhenDurable);
        assert_eq!(strict.loss_window(), LossWindow { bytes: Some(0), age: Some(Duration::ZERO) });
        assert_eq!(Periodic::without_sync(MS(5)).loss_window(), LossWindow::default());
    }
}
