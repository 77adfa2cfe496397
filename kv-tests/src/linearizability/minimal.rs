use super::checker::{Demand, is_met};
use super::{Answer, Call, History, Key, Number, Operation};
use crate::{CaseResult, Failure};
use std::collections::BTreeSet;

/// Checks that a history meets all demands of the contract. A failure names the first violated
/// demand, and shows the smallest history found that violates it.
pub(crate) fn judge(history: &History) -> CaseResult {
    if is_met(Demand::RecoversDurable, history) {
        return Ok(());
    }
    let missed = Demand::ALL.into_iter().find(|demand| !is_met(*demand, history));
    let demand = missed.unwrap_or(Demand::RecoversDurable);
    let violated = match demand {
        Demand::Linearizable => "operations are linearizable, but no order of these explains the answers",
        Demand::InLogOrder => {
            "changes become visible in the order of their LSNs, but only another order explains the answers"
        }
        Demand::RecoversPrefix => {
            "the recovered state is the state after a prefix of the changes, but no prefix gives it"
        }
        Demand::RecoversDurable => {
            "changes reported as durable survive, but the recovered state is that of a shorter prefix"
        }
    };
    let minimal = minimal(demand, history);
    let kept = format!("{} of {} operations suffice", minimal.operations.len(), history.operations.len());
    Err(Failure::new(violated).with("history", minimal.to_string()).with("shrunk", kept))
}

/// Leaves out keys and operations as long as `demand` is not met.
///
/// It leaves out an operation only if no answer in the rest can come from it. Then an order that
/// explains the whole, without the left-out operations, explains the rest: a wrong rest proves that
/// the whole is wrong.
pub(super) fn minimal(demand: Demand, history: &History) -> History {
    let mut least = history.clone();
    if demand < Demand::RecoversPrefix {
        least.crash = None;
    }
    for key in keys(&least) {
        let without = without_key(key, &least);
        if !is_met(demand, &without) {
            least = without;
        }
    }
    loop {
        let before = least.operations.len();
        for index in (0..before).rev() {
            let mut without = least.clone();
            let left_out = without.operations.remove(index);
            if nothing_observes(&left_out, &without) && !is_met(demand, &without) {
                least = without;
            }
        }
        if least.operations.len() == before {
            return least;
        }
    }
}

fn keys(history: &History) -> BTreeSet<Key> {
    let recovered = history.crash.iter().flat_map(|crash| crash.recovered.keys().copied());
    let named = history.operations.iter().flat_map(Operation::keys);
    history.start.keys().copied().chain(named).chain(recovered).collect()
}

/// The history without the key `key`.
pub(super) fn without_key(key: Key, history: &History) -> History {
    let mut without = history.clone();
    without.start.remove(&key);
    if let Some(crash) = &mut without.crash {
        crash.recovered.remove(&key);
    }
    for operation in &mut without.operations {
        if let Call::Batch(changes) = &mut operation.call {
            changes.retain(|(changed, _)| *changed != key);
        }
    }
    without.operations.retain(|operation| operation.keys().iter().any(|named| *named != key));
    without
}

/// Whether no answer in `rest` can come from an effect of `operation`.
pub(super) fn nothing_observes(operation: &Operation, rest: &History) -> bool {
    operation.effects().into_iter().all(|(key, number)| {
        let recovered = rest.crash.as_ref().is_some_and(|crash| crash.recovered.get(&key).copied() == number);
        !recovered && !rest.operations.iter().any(|other| observes(other, key, number))
    })
}

/// Whether the answer of `operation` can mean that `key` has the value `number`, or none.
fn observes(operation: &Operation, key: Key, number: Option<Number>) -> bool {
    let answer = operation.returned.map(|(_, answer)| answer);
    match operation.call {
        Call::Get(read) => read == key && answer == Some(Answer::Found(number)),
        // The answer tells that there was a value, but not which.
        Call::Delete(gone) => {
            gone == key && answer.is_some_and(|answer| (answer == Answer::Absent) == number.is_none())
        }
        Call::Put(..) | Call::Batch(_) => false,
    }
}
