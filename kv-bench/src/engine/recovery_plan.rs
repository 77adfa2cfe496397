//! The experiments on deaths of the process and on the next open. Plain data.

use super::names;
use crate::experiment::Case;
use crate::failure::Failure;
use crate::load::Shape;
use crate::subjects::{Policy, SubjectName};
use crate::tasks::bare_read::BareRead;
use crate::tasks::checkpoint::Checkpoint;
use crate::tasks::opening::{Before, Opening};
use crate::tasks::recovery::Recovery;
use crate::tasks::survival::Survival;
use crate::tasks::tail::Tail;
use crate::tasks::utilization::record_len;

/// Threads that write until their process is killed, and keys of each.
const KILLED_THREADS: u64 = 2;
const KILLED_KEYS: u64 = 5000;
/// Checkpoints while keys are overwritten.
const CHECKPOINTS: u64 = 5;

type Cases = Result<Vec<Case>, Failure>;

/// For each experiment its name, the length of its values, the number of its keys, and its cases.
pub(super) fn all(keys: u64, kills: u64, shape: impl Fn(usize) -> Shape) -> Vec<(String, usize, u64, Cases)> {
    let mut all = Vec::new();
    for policy in names::POLICIES {
        let keys = KILLED_THREADS * KILLED_KEYS;
        all.push((names::kill(policy), 100, keys, kill(policy, shape(100), kills)));
    }
    for (value_len, threads) in names::SPEEDS {
        all.push((names::tail(value_len, threads), value_len, keys, tail(shape(value_len), keys, threads)));
    }
    let (many, shape) = (10 * keys, shape(100));
    all.extend([
        (names::OPENING.to_owned(), 100, many, opening(shape, many)),
        (names::CHECKPOINT.to_owned(), 100, many, checkpoint(shape, many)),
        (names::RECOVERY.to_owned(), 100, keys, replay(shape, keys)),
    ]);
    all
}

fn kill(policy: Policy, shape: Shape, kills: u64) -> Cases {
    let (threads, keys) = (KILLED_THREADS, KILLED_KEYS);
    Ok(vec![Case::new(names::LOG, &Survival { policy, shape, kills, threads, keys })?])
}

fn tail(shape: Shape, keys: u64, threads: u64) -> Cases {
    let case = |(name, is_shared)| Case::new(name, &Tail { shape, keys, threads, is_shared });
    [(names::LOG, true), (names::WITHOUT_TAIL, false)].into_iter().map(case).collect()
}

fn opening(shape: Shape, keys: u64) -> Cases {
    let mut cases = Vec::new();
    for (name, before, reads) in [
        (names::LOG, Before::KilledAfterCheckpoint, false),
        (names::REPLAY, Before::Killed, false),
        (names::CLOSED, Before::Closed, false),
        (names::READ_MEANWHILE, Before::KilledAfterCheckpoint, true),
    ] {
        cases.push(Case::new(name, &Opening { shape, keys, before, reads })?);
    }
    let bytes = keys * record_len(shape);
    for (name, is_direct) in [(names::BARE_READ, false), (names::BARE_DIRECT_READ, true)] {
        cases.push(Case::new(name, &BareRead { bytes, is_direct })?);
    }
    Ok(cases)
}

fn checkpoint(shape: Shape, keys: u64) -> Cases {
    Ok(vec![Case::new(names::LOG, &Checkpoint { shape, keys, checkpoints: CHECKPOINTS })?])
}

/// Under `Manual` the naive engine snapshots at the sync only, so its recovery reads one snapshot.
fn replay(shape: Shape, keys: u64) -> Cases {
    let case = |subject: SubjectName, policy| {
        let recovery = Recovery { setup: subject.under(policy), shape, keys, checkpoints: false };
        Case::new(subject.label(), &recovery)
    };
    Ok(vec![case(SubjectName::Log, Policy::Default)?, case(SubjectName::Naive, Policy::Manual)?])
}
