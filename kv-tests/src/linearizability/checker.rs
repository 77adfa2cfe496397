//! The search for an order that explains a history.
//!
//! It is Wing and Gong's ("Testing and Verifying Concurrent Objects", JPDC 1993): begin with the state before,
//! take any operation that no other one must precede, and whose answer is right, apply it, go on; give up a path where
//! none is left to take. It finds an order if there is one. Three things keep it short:
//!
//! - A *position* (the operations taken, and the state) is visited once, as in Lowe's "Testing for
//!   Linearizability", CCPE 2017. Whole positions are remembered, not hashes of them, so nothing is taken for visited
//!   that was not.
//! - An operation that only reads is taken as soon as its answer is right: it changes nothing, so whatever
//!   order takes it later could as well take it now.
//! - In log order a change waits for all changes of smaller LSN. Only operations that nobody heard the LSN of
//!   are then left to choice, and the search is linear without them.
//!
//! Without regard to LSNs a history is linearizable if and only if each part of it is, where no operation
//! names keys of two parts (Herlihy and Wing's locality; Horn and Kroening, "Faster Linearizability Checking
//! via P-Compositionality", FORTE 2015). The log order joins all keys: there the parts may be right
//! and the whole wrong.

use super::{History, Key, Operation, State};
use kv_core::Lsn;
use std::collections::{BTreeMap, HashSet};

/// What is demanded of a history. Each demands also what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Demand {
    /// Some order of the operations explains the answers.
    Linearizable,
    /// In it the changes stand in the order of their LSNs.
    InLogOrder,
    /// After some prefix of it the state is what was recovered.
    RecoversPrefix,
    /// That prefix holds every change that was reported durable.
    RecoversDurable,
}

impl Demand {
    pub(super) const ALL: [Demand; 4] =
        [Demand::Linearizable, Demand::InLogOrder, Demand::RecoversPrefix, Demand::RecoversDurable];
}

/// Whether `history` is as demanded. Demands on a crash mean nothing where there was none.
pub(super) fn is_met(demand: Demand, history: &History) -> bool {
    match demand {
        Demand::Linearizable => parts(history).iter().all(|part| order_exists(demand, part)),
        _ => order_exists(demand, history),
    }
}

/// How far an order has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Position {
    /// Of the operations, by index.
    taken: Vec<bool>,
    state: State,
    /// LSN of the last change taken that has one.
    last: Lsn,
    /// Whether the state was once, at a prefix long enough, what was recovered.
    recovers: bool,
}

/// What the operations that are not taken yet allow to be taken next.
struct Frontier {
    /// Only what was called before this.
    returns: u64,
    /// Only the change of this LSN; none is left if `None`.
    lsn: Option<Lsn>,
    /// Whether all that was answered is taken.
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

    /// Takes whatever only reads, may be taken and is right.
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

    /// The position after the change `operation`, if that may be next.
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

/// Splits a history into parts of which no two share a key.
fn parts(history: &History) -> Vec<History> {
    // Each key leads to another one of its part; the last leads to itself.
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
