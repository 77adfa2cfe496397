//! The search for an order that explains a history.
//!
//! The algorithm is Wing and Gong's ("Testing and Verifying Concurrent Objects", JPDC 1993). It
//! begins with the start state and takes one operation after the other: one that no other operation
//! must precede, and whose answer is right in the current state. It gives up a path when no such
//! operation is left. It finds an order if there is one. Three rules keep the search short:
//!
//! - It visits a *position* (the set of taken operations, and the state) once, as in Lowe's
//!   "Testing for Linearizability", CCPE 2017. It remembers whole positions instead of hashes, so
//!   two positions never count as one.
//! - It takes a read as soon as its answer is right. A read changes nothing, so any order that
//!   takes it later could take it now.
//! - In log order, a change waits for all changes of smaller LSN. Then only operations without a
//!   known LSN leave a choice; without them the search is linear.
//!
//! Without regard to LSNs, a history can be split into parts that share no keys. It is linearizable
//! if and only if each part is (Herlihy and Wing's locality; Horn and Kroening, "Faster
//! Linearizability Checking via P-Compositionality", FORTE 2015). The log order joins all keys:
//! there each part may be right and the whole wrong.

use super::{History, Key, Operation, State};
use kv_core::Lsn;
use std::collections::{BTreeMap, HashSet};

/// A demand on a history. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Demand {
    /// Some order of the operations explains the answers.
    Linearizable,
    /// In that order the changes are sorted by LSN.
    InLogOrder,
    /// The recovered state is the state after some prefix of that order.
    RecoversPrefix,
    /// That prefix holds every change that was reported durable.
    RecoversDurable,
}

impl Demand {
    pub(super) const ALL: [Demand; 4] =
        [Demand::Linearizable, Demand::InLogOrder, Demand::RecoversPrefix, Demand::RecoversDurable];
}

/// Whether `history` meets the demand. Demands on a crash hold where there was none.
pub(super) fn is_met(demand: Demand, history: &History) -> bool {
    match demand {
        Demand::Linearizable => parts(history).iter().all(|part| order_exists(demand, part)),
        _ => order_exists(demand, history),
    }
}

/// A step of the search.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Position {
    /// Whether each operation is taken, by index.
    taken: Vec<bool>,
    state: State,
    /// LSN of the last taken change with a known LSN.
    last: Lsn,
    /// Whether the state after some long enough prefix was the recovered one.
    recovers: bool,
}

/// The limits that the untaken operations set for the next one.
struct Frontier {
    /// The next operation was called before this time: the first return of an untaken operation.
    returns: u64,
    /// The next change with a known LSN has this one. `None`: all of them are taken.
    lsn: Option<Lsn>,
    /// Whether all answered operations are taken.
    complete: bool,
}

pub(super) fn order_exists(demand: Demand, history: &History) -> bool {
    let operations = &history.operations;
    let mut open = vec![Position {
        taken: vec![false; operations.len()],
        state: history.start.clone(),
        last: history.last,
        recovers: demand < Demand::RecoversPrefix || history.crash.is_none(),
    }];
    let mut visited = HashSet::new();
    while let Some(mut position) = open.pop() {
        let frontier = position.take_reads(operations);
        position.compare_with_recovered(demand, history, &frontier);
        if visited.contains(&position) {
            continue;
        }
        if frontier.complete && position.recovers {
            return true;
        }
        let next = |(index, operation)| position.after(index, operation, demand, &frontier);
        open.extend(operations.iter().enumerate().filter_map(next));
        visited.insert(position);
    }
    false
}

impl Position {
    fn frontier(&self, operations: &[Operation]) -> Frontier {
        let mut frontier = Frontier { returns: u64::MAX, lsn: None, complete: true };
        for (operation, taken) in operations.iter().zip(&self.taken) {
            if let (false, Some((at, _))) = (taken, operation.returned) {
                frontier.returns = frontier.returns.min(at);
                frontier.lsn = frontier.lsn.into_iter().chain(operation.lsn()).min();
                frontier.complete = false;
            }
        }
        frontier
    }

    /// Takes the reads that may be next and have the right answer.
    fn take_reads(&mut self, operations: &[Operation]) -> Frontier {
        loop {
            let frontier = self.frontier(operations);
            let mut found = false;
            for (operation, taken) in operations.iter().zip(&mut self.taken) {
                let may = !*taken && operation.only_reads() && operation.called < frontier.returns;
                if may && operation.fits(&self.state) {
                    (*taken, found) = (true, true);
                }
            }
            if !found {
                return frontier;
            }
        }
    }

    fn compare_with_recovered(&mut self, demand: Demand, history: &History, frontier: &Frontier) {
        if let Some(crash) = &history.crash {
            let durable_missing = frontier.lsn.is_some_and(|lsn| lsn <= crash.durable);
            let long_enough = demand < Demand::RecoversDurable || !durable_missing;
            self.recovers |= long_enough && self.state == crash.recovered;
        }
    }

    /// The position after the change `operation`, if it may be next.
    fn after(
        &self,
        index: usize,
        operation: &Operation,
        demand: Demand,
        frontier: &Frontier,
    ) -> Option<Position> {
        let taken = self.taken.get(index).copied().unwrap_or(true);
        if taken || operation.only_reads() || operation.called > frontier.returns {
            return None;
        }
        let mut last = self.last;
        if let (Some(lsn), true) = (operation.lsn(), demand >= Demand::InLogOrder) {
            if frontier.lsn != Some(lsn) || lsn <= self.last {
                return None;
            }
            last = lsn;
        }
        if !operation.fits(&self.state) {
            return None;
        }
        let mut next = Position { last, ..self.clone() };
        operation.apply(&mut next.state);
        next.taken.get_mut(index).into_iter().for_each(|taken| *taken = true);
        Some(next)
    }
}

/// Splits a history into parts such that no two share a key.
fn parts(history: &History) -> Vec<History> {
    // A union-find forest: each key leads to another one of its part, and the root leads to itself.
    let mut leads_to: BTreeMap<Key, Key> = BTreeMap::new();
    let root = |leads_to: &BTreeMap<Key, Key>, mut key: Key| {
        while let Some(next) = leads_to.get(&key).filter(|next| **next != key) {
            key = *next;
        }
        key
    };
    for operation in &history.operations {
        let keys = operation.keys();
        for key in &keys {
            let one = root(&leads_to, *key);
            let other = root(&leads_to, *keys.first().unwrap_or(key));
            leads_to.insert(one, other);
        }
    }
    let mut parts: BTreeMap<Key, History> = BTreeMap::new();
    for operation in &history.operations {
        let key = operation.keys().first().map_or(0, |key| root(&leads_to, *key));
        let part = parts.entry(key).or_default();
        part.start.clone_from(&history.start);
        part.operations.push(operation.clone());
    }
    parts.into_values().collect()
}
