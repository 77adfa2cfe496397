//! A persistence policy of one's own, tried on a clock that stands still until the program moves
//! it.
//!
//! Run it with `cargo run -p kv-core --example own_policy`.

use kv_core::parts::{Position, Progress};
use kv_core::{
    Acknowledge, Action, Clock, Decision, LossWindow, Lsn, ManualClock, Pending, PersistencePolicy,
};
use std::time::Duration;

/// Dumps after a number of changes, and at the latest when the oldest has waited `patience`.
#[derive(Debug)]
struct Patient {
    patience: Duration,
    records_max: u64,
}

impl PersistencePolicy for Patient {
    fn decide(&self, pending: &Pending) -> Decision {
        if pending.oldest_age >= self.patience || pending.records >= self.records_max {
            return Decision::now(Action::WriteAndSync);
        }
        Decision {
            action: Action::Hold,
            ask_again_in: Some(self.patience.saturating_sub(pending.oldest_age)),
        }
    }

    fn acknowledge(&self) -> Acknowledge {
        Acknowledge::WhenVisible
    }

    fn loss_window(&self) -> LossWindow {
        LossWindow { age: Some(self.patience), bytes: None }
    }
}

#[allow(clippy::print_stdout, reason = "an example shows its results")]
fn main() {
    let policy = Patient { patience: Duration::from_millis(50), records_max: 4 };
    let clock = ManualClock::default();
    let progress = Progress::new(Lsn::ZERO, clock.monotonic());
    let mut end = Position::default();
    for pause_ms in [0, 20, 40, 1, 1, 1, 1] {
        clock.advance(Duration::from_millis(pause_ms));
        end = Position { lsn: end.lsn.next(), changes: end.changes + 1, bytes: end.bytes + 100 };
        progress.changed(&clock);
        let decision = progress.decide(&policy, end, clock.monotonic());
        println!("at {:>3?}, LSN {}: {:?}", clock.monotonic(), end.lsn, decision.action);
        if decision.action == Action::WriteAndSync {
            progress.begin_sync();
            // An engine writes and syncs its log here.
            progress.synced(end, clock.monotonic());
        }
    }
}
