//! The judge of recovered states. A state is right if it is the state after a prefix of the
//! history, and the prefix holds every change that was reported durable. After the death of the
//! process it also holds every change that was handed to the operating system.

use crate::{CaseResult, Failure};
use kv_core::{Engine, EngineExt, Lsn};
use std::collections::BTreeMap;

/// A key, and its new value; `None` deletes it.
pub(crate) type Effect = (Vec<u8>, Option<Vec<u8>>);

/// Keys and values.
pub(crate) type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// The changes of a run in log order, and the promises of the engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    changes: Vec<(Lsn, Vec<Effect>)>,
    in_flight: Option<Vec<Effect>>,
    durable: Lsn,
    /// The changes up to this LSN survive the death of the process, durable or not.
    written: Lsn,
    /// Whether the process died, and the machine did not.
    is_after_death: bool,
    /// The number of operations begun. It numbers the next operation, and so makes its values
    /// unique.
    begun: usize,
}

impl History {
    /// A history that numbers its operations from `first` on.
    pub(crate) fn numbered_from(first: usize) -> Self {
        History { begun: first, ..History::default() }
    }

    /// The number of the next operation.
    pub(crate) fn next_number(&self) -> usize {
        self.begun
    }

    pub(crate) fn begin(&mut self, effects: Vec<Effect>) {
        self.in_flight = Some(effects);
        self.begun += 1;
    }

    /// The engine answered the operation in flight: with this LSN, or without a change.
    pub(crate) fn end(&mut self, lsn: Option<Lsn>) {
        let effects = self.in_flight.take().unwrap_or_default();
        if let Some(lsn) = lsn {
            self.changes.push((lsn, effects));
        }
    }

    /// The engine refused the operation in flight, and changed nothing.
    pub(crate) fn refuse(&mut self) {
        self.in_flight = None;
    }

    pub(crate) fn told_durable(&mut self, lsn: Lsn) {
        self.durable = self.durable.max(lsn);
    }

    /// All answered changes survive the death of the process.
    pub(crate) fn told_written(&mut self) {
        self.written = self.written.max(self.last_lsn());
    }

    /// The same history for a state that the death of the process left, without a power cut.
    pub(crate) fn after_death(&self) -> Self {
        History { is_after_death: true, ..self.clone() }
    }

    /// The LSN up to which all changes survive.
    fn surviving(&self) -> Lsn {
        if self.is_after_death { self.durable.max(self.written) } else { self.durable }
    }

    /// The same history, in which only the changes at or below `lsn` are durable.
    pub(crate) fn as_if_durable(&self, lsn: Lsn) -> Self {
        History { durable: lsn, ..self.clone() }
    }

    /// The LSN of the last answered change.
    pub(crate) fn last_change(&self) -> Lsn {
        self.changes.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn)
    }

    /// The first LSN that the engine gave out.
    pub(crate) fn first_lsn(&self) -> Option<Lsn> {
        self.changes.first().map(|(lsn, _)| *lsn)
    }

    /// The highest LSN that the engine gave out.
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.changes.last().map_or(self.durable, |(lsn, _)| *lsn)
    }

    /// The state after all answered changes.
    pub(crate) fn state(&self) -> State {
        let mut state = State::new();
        self.changes.iter().for_each(|(_, effects)| apply(&mut state, effects));
        state
    }

    /// The state after each answered change, with its LSN. The first one is the empty state.
    pub(crate) fn states(&self) -> Vec<(Lsn, State)> {
        let (mut states, mut state) = (vec![(Lsn::ZERO, State::new())], State::new());
        for (lsn, effects) in &self.changes {
            apply(&mut state, effects);
            states.push((*lsn, state.clone()));
        }
        states
    }

    /// Checks that LSNs grew strictly.
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

    /// Checks that a reader may see this state: after all answered changes, with or without the one
    /// in flight.
    pub(crate) fn check_visible(&self, seen: &State) -> CaseResult {
        let mut state = self.state();
        let answered = state == *seen;
        apply(&mut state, self.in_flight.as_deref().unwrap_or_default());
        if answered || state == *seen {
            return Ok(());
        }
        Err(Failure::new("reads still show the visible state, but these show another")
            .with("seen", summary(seen))
            .with("expected", summary(&self.state())))
    }

    /// Checks that `last` can be the LSN of the newest change in `recovered`, which is the state
    /// after a prefix.
    pub(crate) fn check_last_lsn(&self, recovered: &State, last: Lsn) -> CaseResult {
        let mut possible: Vec<Lsn> = Vec::new();
        let mut state = State::new();
        if state == *recovered {
            possible.push(Lsn::ZERO);
        }
        for (lsn, effects) in &self.changes {
            apply(&mut state, effects);
            if state == *recovered {
                possible.push(*lsn);
            }
        }
        apply(&mut state, self.in_flight.as_deref().unwrap_or_default());
        // The caller never learns the LSN of the operation in flight.
        let answered = self.changes.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn);
        let in_flight = self.in_flight.is_some() && state == *recovered && last > answered;
        if in_flight || possible.contains(&last) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "last_lsn is that of the newest recovered change, one of {possible:?}, but it is {last}"
        )))
    }

    /// The highest number of answered changes that `recovered` can lack; `None` if it is the state
    /// after no prefix.
    pub(crate) fn lost(&self, recovered: &State) -> Option<usize> {
        let mut state = State::new();
        let mut longest = (state == *recovered).then_some(0);
        for (position, (_, effects)) in self.changes.iter().enumerate() {
            apply(&mut state, effects);
            if state == *recovered {
                longest = Some(position + 1);
            }
        }
        longest.map(|longest| self.changes.len() - longest)
    }

    /// Checks that `recovered` is the state after a prefix that holds all changes that survive.
    pub(crate) fn check(&self, recovered: &State) -> CaseResult {
        let up_to = |lsn: Lsn| self.changes.iter().filter(|(change, _)| *change <= lsn).count();
        let surviving = up_to(self.surviving());
        let mut state = State::new();
        let mut too_early = (surviving > 0 && state == *recovered).then_some(0);
        if surviving == 0 && state == *recovered {
            return Ok(());
        }
        let answered = self.changes.iter().map(|(_, effects)| effects);
        for (before, effects) in answered.chain(&self.in_flight).enumerate() {
            apply(&mut state, effects);
            if state == *recovered {
                if before + 1 >= surviving {
                    return Ok(());
                }
                too_early = Some(before + 1);
            }
        }
        let durable = up_to(self.durable);
        let violated = match too_early {
            Some(prefix) if prefix >= durable => format!(
                "changes of an engine that is process-safe, or that a Write handed to the operating system, survive the death of the process, but of {surviving} such changes only {prefix} were recovered"
            ),
            Some(prefix) => format!(
                "changes reported as durable survive, but of {durable} durable changes only {prefix} were recovered"
            ),
            None => "the recovered state is the state after a prefix of the changes, but no prefix gives it"
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

/// The keys, each with the number of the operation that wrote it.
pub(crate) fn summary(state: &State) -> String {
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

    #[test]
    fn the_last_lsn_is_that_of_a_prefix_that_fits() {
        let history = sample();
        history.check_last_lsn(&state(&[(1, "b"), (2, "b")]), Lsn::new(2)).unwrap();
        history.check_last_lsn(&state(&[]), Lsn::ZERO).unwrap();
        history.check_last_lsn(&state(&[(2, "b"), (3, "d")]), Lsn::new(6)).unwrap();
        for (recovered, last) in [(state(&[(1, "a")]), 2), (state(&[(2, "b"), (3, "d")]), 5), (state(&[]), 9)]
        {
            history.check_last_lsn(&recovered, Lsn::new(last)).unwrap_err();
        }
    }

    #[test]
    fn readers_see_all_that_was_answered_and_perhaps_the_last_call() {
        let history = sample();
        history.check_visible(&state(&[(2, "b")])).unwrap();
        history.check_visible(&state(&[(2, "b"), (3, "d")])).unwrap();
        history.check_visible(&state(&[(1, "b"), (2, "b")])).unwrap_err();
        assert_eq!(history.lost(&state(&[(2, "b")])), Some(0));
        assert_eq!(history.lost(&state(&[(1, "a")])), Some(2));
        assert_eq!(history.lost(&state(&[(9, "a")])), None);
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
    fn what_was_written_survives_a_death_and_no_power_cut() {
        let mut history = sample();
        history.told_written();
        history.check(&state(&[(1, "a")])).unwrap();
        let after_death = history.after_death();
        let failure = after_death.check(&state(&[(1, "a")])).unwrap_err();
        assert!(failure.violated().contains("of 3 such changes only 1"), "{failure}");
        after_death.check(&state(&[(2, "b")])).unwrap();
        after_death.check(&state(&[(2, "b"), (3, "d")])).unwrap();
    }

    #[test]
    fn order_is_checked() {
        let mut history = sample();
        history.check_order().unwrap();
        history.end(Some(Lsn::new(5)));
        history.check_order().unwrap_err();
    }
}
