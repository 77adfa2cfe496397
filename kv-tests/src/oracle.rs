//! The judge of recovered states: a state is right if it is the state after a prefix of the history that
//! contains everything that was reported durable.

use crate::{CaseResult, Failure};
use kv_core::{Engine, EngineExt, Lsn};
use std::collections::BTreeMap;

/// A key, and the value it gets; `None` when it goes.
pub(crate) type Effect = (Vec<u8>, Option<Vec<u8>>);

/// Keys and values.
pub(crate) type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// What was done, in log order, and what was promised.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    changes: Vec<(Lsn, Vec<Effect>)>,
    in_flight: Option<Vec<Effect>>,
    durable: Lsn,
}

impl History {
    pub(crate) fn begin(&mut self, effects: Vec<Effect>) {
        self.in_flight = Some(effects);
    }

    /// The operation in flight was answered with this LSN, or changed nothing.
    pub(crate) fn end(&mut self, lsn: Option<Lsn>) {
        let effects = self.in_flight.take().unwrap_or_default();
        if let Some(lsn) = lsn {
            self.changes.push((lsn, effects));
        }
    }

    pub(crate) fn told_durable(&mut self, lsn: Lsn) {
        self.durable = self.durable.max(lsn);
    }

    /// The same history, in which only what is at or below `lsn` is durable.
    pub(crate) fn as_if_durable(&self, lsn: Lsn) -> Self {
        History { durable: lsn, ..self.clone() }
    }

    /// The first LSN that was given out.
    pub(crate) fn first_lsn(&self) -> Option<Lsn> {
        self.changes.first().map(|(lsn, _)| *lsn)
    }

    /// The highest LSN that was given out.
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.changes.last().map_or(self.durable, |(lsn, _)| *lsn)
    }

    /// The state after all changes that were answered.
    pub(crate) fn state(&self) -> State {
        let mut state = State::new();
        self.changes.iter().for_each(|(_, effects)| apply(&mut state, effects));
        state
    }

    /// Whether LSNs grew strictly.
    pub(crate) fn check_order(&self) -> CaseResult {
        for pair in self.changes.windows(2) {
            if let [(before, _), (after, _)] = pair
                && after <= before
            {
                return Err(Failure::new(format!("LSNs grow strictly, but {after} came after {before}")));
            }
        }
        Ok(())
    }

    /// Whether `recovered` is the state after a prefix that holds all that was durable.
    pub(crate) fn check(&self, recovered: &State) -> CaseResult {
        let durable = self.changes.iter().filter(|(lsn, _)| *lsn <= self.durable).count();
        let mut state = State::new();
        let mut too_early = (durable > 0 && state == *recovered).then_some(0);
        if durable == 0 && state == *recovered {
            return Ok(());
        }
        let answered = self.changes.iter().map(|(_, effects)| effects);
        for (before, effects) in answered.chain(&self.in_flight).enumerate() {
            apply(&mut state, effects);
            if state == *recovered {
                if before + 1 >= durable {
                    return Ok(());
                }
                too_early = Some(before + 1);
            }
        }
        let violated = match too_early {
            Some(prefix) => format!(
                "what was reported durable survives, but of {durable} durable changes only {prefix} were recovered"
            ),
            None => "the recovered state is the state after a prefix of the changes, but it is after none"
                .to_owned(),
        };
        Err(Failure::new(violated)
            .with(
                "changes",
                format!("{} answered, {durable} durable (LSN {})", self.changes.len(), self.durable),
            )
            .with("recovered", summary(recovered))
            .with("expected", summary(&self.state())))
    }
}

fn apply(state: &mut State, effects: &[Effect]) {
    for (key, value) in effects {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
}

/// Keys with the numbers of the operations that wrote them.
fn summary(state: &State) -> String {
    let number = |value: &[u8]| value.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let pairs: Vec<String> = state
        .iter()
        .map(|(key, value)| format!("{key:?}: op {} ({} B)", number(value), value.len()))
        .collect();
    pairs.join(", ")
}

/// All keys and values of an engine.
pub(crate) fn state_of(engine: &dyn Engine) -> kv_core::Result<State> {
    Ok(engine.to_sorted_vec()?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pairs: &[(u8, &str)]) -> State {
        pairs.iter().map(|(key, value)| (vec![*key], value.as_bytes().to_vec())).collect()
    }

    fn put(key: u8, value: &str) -> Effect {
        (vec![key], Some(value.as_bytes().to_vec()))
    }

    fn sample() -> History {
        let mut history = History::default();
        for (lsn, effects) in
            [(1, vec![put(1, "a")]), (2, vec![put(1, "b"), put(2, "b")]), (5, vec![(vec![1], None)])]
        {
            history.begin(effects);
            history.end(Some(Lsn::new(lsn)));
        }
        history.begin(vec![put(3, "d")]);
        history
    }

    #[test]
    fn prefixes_are_right_and_nothing_else_is() {
        let history = sample();
        for good in [
            state(&[]),
            state(&[(1, "a")]),
            state(&[(1, "b"), (2, "b")]),
            state(&[(2, "b")]),
            state(&[(2, "b"), (3, "d")]),
        ] {
            history.check(&good).unwrap();
        }
        for bad in [
            state(&[(1, "b")]),
            state(&[(1, "a"), (2, "b")]),
            state(&[(3, "d")]),
            state(&[(1, "x")]),
            state(&[(2, "b"), (9, "z")]),
        ] {
            let failure = history.check(&bad).unwrap_err();
            assert!(failure.violated().contains("prefix"), "{failure}");
        }
    }

    #[test]
    fn a_prefix_without_a_durable_change_is_wrong() {
        let mut history = sample();
        history.told_durable(Lsn::new(4));
        let failure = history.check(&state(&[(1, "a")])).unwrap_err();
        assert!(failure.violated().contains("durable"), "{failure}");
        history.check(&state(&[])).unwrap_err();
        history.check(&state(&[(1, "b"), (2, "b")])).unwrap();
        history.told_durable(Lsn::new(5));
        history.check(&state(&[(1, "b"), (2, "b")])).unwrap_err();
        history.check(&state(&[(2, "b")])).unwrap();
    }

    #[test]
    fn order_is_checked() {
        let mut history = sample();
        history.check_order().unwrap();
        history.end(Some(Lsn::new(5)));
        history.check_order().unwrap_err();
    }
}
