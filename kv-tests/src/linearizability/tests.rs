use super::checker::{Demand, is_met, order_exists};
use super::minimal::{minimal, nothing_observes, without_key};
use super::*;
use kv_core::Lsn;
use proptest::prelude::*;

fn operation(call: Call, called: u64, returned: Option<(u64, Answer)>) -> Operation {
    Operation { thread: 0, call, called, returned }
}

fn get(key: Key, found: Option<Number>, called: u64, at: u64) -> Operation {
    operation(Call::Get(key), called, Some((at, Answer::Found(found))))
}

fn change(call: Call, lsn: u64, called: u64, at: u64) -> Operation {
    operation(call, called, Some((at, Answer::Changed(Lsn::new(lsn)))))
}

fn put(key: Key, number: Number, lsn: u64, called: u64, at: u64) -> Operation {
    change(Call::Put(key, number), lsn, called, at)
}

fn pending(call: Call, called: u64) -> Operation {
    operation(call, called, None)
}

fn history(operations: impl Into<Vec<Operation>>) -> History {
    History { operations: operations.into(), ..History::default() }
}

fn crashed(operations: impl Into<Vec<Operation>>, durable: u64, recovered: &[(Key, Number)]) -> History {
    let crash = Crash { durable: Lsn::new(durable), recovered: recovered.iter().copied().collect() };
    History { crash: Some(crash), ..history(operations) }
}

/// The first violated demand.
fn missed(history: &History) -> Option<Demand> {
    Demand::ALL.into_iter().find(|demand| !is_met(*demand, history))
}

fn delete(key: Key, called: u64, at: u64, answer: Answer) -> Operation {
    operation(Call::Delete(key), called, Some((at, answer)))
}

#[test]
fn good_histories_are_good() {
    let both = || Call::Batch(vec![(1, Some(5)), (2, Some(5))]);
    let gone = Answer::Changed(Lsn::new(2));
    for good in [
        history([]),
        // Overlapping: the get may see the state before or after the put.
        history([put(1, 7, 1, 1, 4), get(1, None, 2, 3)]),
        history([put(1, 7, 1, 1, 4), get(1, Some(7), 2, 3)]),
        // Two puts overlap; the one with the later call takes effect first.
        history([put(1, 7, 2, 1, 4), put(1, 8, 1, 2, 3), get(1, Some(7), 5, 6)]),
        // A batch between two gets.
        history([change(both(), 1, 1, 8), get(1, None, 2, 3), get(2, Some(5), 4, 5), get(1, Some(5), 6, 7)]),
        history([put(1, 7, 1, 1, 2), delete(1, 3, 6, gone), delete(1, 4, 5, Answer::Absent)]),
        // In flight: visible later, or never.
        history([pending(Call::Put(1, 7), 1), get(1, None, 2, 3), get(1, Some(7), 4, 5)]),
        history([pending(Call::Put(1, 7), 1), get(1, None, 2, 3), get(1, None, 4, 5)]),
        history([put(1, 7, 1, 1, 2), pending(Call::Delete(1), 3), get(1, Some(7), 4, 5), get(1, None, 6, 7)]),
        // A crash takes a tail, or nothing, or the operation in flight.
        crashed([put(1, 7, 1, 1, 2), put(1, 8, 2, 3, 4)], 0, &[]),
        crashed([put(1, 7, 1, 1, 2), put(1, 8, 2, 3, 4)], 1, &[(1, 7)]),
        crashed([put(1, 7, 1, 1, 2), put(1, 8, 2, 3, 4)], 2, &[(1, 8)]),
        crashed([put(1, 7, 1, 1, 2), pending(Call::Put(2, 8), 3)], 1, &[(1, 7), (2, 8)]),
        // An operation in flight may take effect at any time after its call.
        crashed([pending(Call::Put(2, 8), 1), put(1, 7, 1, 2, 3)], 0, &[(2, 8)]),
    ] {
        assert_eq!(missed(&good), None, "{good}");
        judge(&good).unwrap();
    }
}

#[test]
fn bad_histories_are_bad_for_the_right_reason() {
    let both = || Call::Batch(vec![(1, Some(5)), (2, Some(5))]);
    let gone = |lsn| Answer::Changed(Lsn::new(lsn));
    let table = [
        ("stale read", history([put(1, 7, 1, 1, 2), put(1, 8, 2, 3, 4), get(1, Some(7), 5, 6)])),
        ("read of a value never written", history([put(1, 7, 1, 1, 2), get(1, Some(9), 3, 4)])),
        ("read from the future", history([get(1, Some(7), 1, 2), put(1, 7, 1, 3, 4)])),
        ("own write not read", history([put(1, 7, 1, 1, 2), get(1, None, 3, 4)])),
        ("garbage", history([operation(Call::Get(1), 1, Some((2, Answer::Garbage)))])),
        (
            "lost update: read once, never overwritten, then gone",
            history([put(1, 7, 1, 1, 8), put(1, 8, 2, 2, 3), get(1, Some(8), 4, 5), get(1, None, 6, 7)]),
        ),
        (
            "a batch seen in part",
            history([change(both(), 1, 1, 6), get(1, Some(5), 2, 3), get(2, None, 4, 5)]),
        ),
        (
            "new, then old, by two readers",
            history([put(1, 7, 1, 1, 2), put(1, 8, 2, 3, 8), get(1, Some(8), 4, 5), get(1, Some(7), 6, 7)]),
        ),
        ("delete found an absent key", history([delete(1, 1, 2, gone(1))])),
        ("delete missed a present key", history([put(1, 7, 1, 1, 2), delete(1, 3, 4, Answer::Absent)])),
        ("deleted twice", history([put(1, 7, 1, 1, 2), delete(1, 3, 6, gone(2)), delete(1, 4, 5, gone(3))])),
        (
            "in flight: seen, then not",
            history([pending(Call::Put(1, 7), 1), get(1, Some(7), 2, 3), get(1, None, 4, 5)]),
        ),
    ];
    for (what, bad) in table {
        assert_eq!(missed(&bad), Some(Demand::Linearizable), "{what}: {bad}");
        assert!(judge(&bad).unwrap_err().violated().contains("linearizable"));
    }
}

#[test]
fn lsns_are_the_order_of_changes() {
    let table = [
        ("later, with a smaller LSN", history([put(1, 7, 2, 1, 2), put(2, 8, 1, 3, 4)])),
        ("the same LSN twice", history([put(1, 7, 1, 1, 4), put(2, 8, 1, 2, 3)])),
        ("an LSN of before", History { last: Lsn::new(1), ..history([put(1, 7, 1, 1, 2)]) }),
        ("overlapping, the other way round", {
            let puts = [put(1, 7, 1, 1, 4), put(1, 8, 2, 2, 3)];
            history([puts.to_vec(), vec![get(1, Some(7), 5, 6)]].concat())
        }),
        // Each key by itself is right; the log order joins them.
        ("of two keys, the later one seen first", {
            let puts = [put(1, 7, 1, 1, 8), put(2, 8, 2, 2, 7)];
            history([puts.to_vec(), vec![get(2, Some(8), 3, 4), get(1, None, 5, 6)]].concat())
        }),
    ];
    for (what, bad) in table {
        assert_eq!(missed(&bad), Some(Demand::InLogOrder), "{what}: {bad}");
    }
}

#[test]
fn crashes_take_a_tail_and_nothing_durable() {
    let puts = || vec![put(1, 7, 1, 1, 2), put(2, 8, 2, 3, 4), put(1, 9, 3, 5, 6)];
    let both = Call::Batch(vec![(1, Some(5)), (2, Some(5))]);
    let (prefix, durable) = (Demand::RecoversPrefix, Demand::RecoversDurable);
    for (demand, what, bad) in [
        (durable, "a durable change is gone", crashed(puts(), 2, &[(1, 7)])),
        (durable, "everything is gone", crashed(puts(), 1, &[])),
        (prefix, "a later one is kept, an earlier one gone", crashed(puts(), 0, &[(2, 8)])),
        (prefix, "an old value with a newer key", crashed(puts(), 0, &[(1, 9)])),
        (prefix, "a value that no operation wrote", crashed(puts(), 0, &[(3, 3)])),
        (prefix, "half a batch", crashed([change(both, 1, 1, 2)], 0, &[(1, 5)])),
        (prefix, "in flight, and recovered too early", {
            crashed([put(1, 7, 1, 1, 2), pending(Call::Put(2, 8), 3)], 0, &[(2, 8)])
        }),
        // A reader saw the change after the other one. So its place in the log is known, though its
        // LSN is not.
        (prefix, "in flight, seen late, recovered early", {
            let seen = [get(2, None, 4, 5), get(2, Some(8), 6, 7)];
            let mut operations = vec![pending(Call::Put(2, 8), 1), put(1, 7, 1, 2, 3)];
            operations.extend(seen);
            crashed(operations, 0, &[(2, 8)])
        }),
    ] {
        assert_eq!(missed(&bad), Some(demand), "{what}: {bad}");
    }
}

#[test]
fn a_failure_shows_the_least_history() {
    let mut operations = vec![put(1, 7, 101, 101, 102), put(1, 8, 102, 103, 104), get(1, Some(7), 105, 106)];
    for number in 1..=20u32 {
        let (key, at) = (u8::try_from(number % 3).unwrap(), u64::from(number));
        operations.push(put(key, number + 100, at, at * 4, at * 4 + 1));
        operations.push(get(key, Some(number + 100), at * 4 + 2, at * 4 + 3));
    }
    let failure = judge(&history(operations)).unwrap_err().to_string();
    let expected = "before: nothing (lsn 0)
            thread 0: put k1=#7 -> lsn 101 [101,102]
            thread 0: put k1=#8 -> lsn 102 [103,104]
            thread 0: get k1 -> #7 [105,106]";
    assert!(failure.contains(expected), "{failure}");
    assert!(failure.contains("3 of 43 operations"), "{failure}");
}

/// A simple and slow checker: it tries every sequence.
fn is_met_by_brute_force(demand: Demand, history: &History) -> bool {
    fn extend(demand: Demand, history: &History, sequence: &mut Vec<usize>) -> bool {
        if explains(demand, history, sequence) {
            return true;
        }
        (0..history.operations.len()).any(|next| {
            if sequence.contains(&next) {
                return false;
            }
            sequence.push(next);
            let found = extend(demand, history, sequence);
            sequence.pop();
            found
        })
    }
    extend(demand, history, &mut Vec::new())
}

fn explains(demand: Demand, history: &History, sequence: &[usize]) -> bool {
    let operations: Vec<&Operation> = sequence.iter().map(|index| &history.operations[*index]).collect();
    let all_answered = (0..history.operations.len())
        .all(|index| sequence.contains(&index) || history.operations[index].returned.is_none());
    let in_time = operations.iter().enumerate().all(|(place, operation)| {
        let later = &operations[place + 1..];
        later.iter().all(|later| later.returned.is_none_or(|(at, _)| at > operation.called))
    });
    let lsns: Vec<Lsn> = operations.iter().filter_map(|operation| operation.lsn()).collect();
    let in_log_order = lsns.first().is_none_or(|first| *first > history.last)
        && lsns.windows(2).all(|pair| pair[0] < pair[1]);
    if !all_answered || !in_time || (demand >= Demand::InLogOrder && !in_log_order) {
        return false;
    }
    let mut states = vec![history.start.clone()];
    for operation in &operations {
        let mut state = states.last().unwrap().clone();
        if !operation.fits(&state) {
            return false;
        }
        operation.apply(&mut state);
        states.push(state);
    }
    let Some(crash) = history.crash.as_ref().filter(|_| demand >= Demand::RecoversPrefix) else {
        return true;
    };
    let durable = |operation: &&Operation| operation.lsn().is_some_and(|lsn| lsn <= crash.durable);
    (0..states.len()).any(|prefix| {
        let long_enough = demand < Demand::RecoversDurable || !operations[prefix..].iter().any(durable);
        long_enough && states[prefix] == crash.recovered
    })
}

/// One operation to run: its kind, its key, and the distance of its call and its return from the
/// moment of its effect.
type Step = (u8, Key, u64, u64);

const SPACING: u64 = 1000;

/// Runs the steps one after the other on a map, and widens each to an interval of time.
fn run(steps: &[Step], crash_after: Option<usize>) -> History {
    let (mut state, mut states, mut lsn) = (State::new(), vec![State::new()], 0);
    let mut operations = Vec::new();
    let mut lsns = vec![0];
    for (index, (kind, key, before, after)) in steps.iter().enumerate() {
        let number = Number::try_from(index).unwrap() + 1;
        let call = match kind % 8 {
            0..3 => Call::Get(*key),
            3..5 => Call::Put(*key, number),
            5..7 => Call::Delete(*key),
            _ => Call::Batch(vec![(*key, Some(number)), (key + 1, (kind % 16 > 7).then_some(number))]),
        };
        let moment = (index as u64 + 4) * SPACING;
        let changes = match call {
            Call::Get(_) => false,
            Call::Delete(key) => state.contains_key(&key),
            _ => true,
        };
        lsn += u64::from(changes);
        let answer = match call {
            Call::Get(key) => Answer::Found(state.get(&key).copied()),
            _ if changes => Answer::Changed(Lsn::new(lsn)),
            _ => Answer::Absent,
        };
        let (called, returned) =
            (moment - before * 10 - 1 - index as u64 % 9, moment + after * 10 + index as u64 % 9);
        let done = Operation { thread: index, call, called, returned: Some((returned, answer)) };
        done.apply(&mut state);
        states.push(state.clone());
        lsns.push(lsn);
        operations.push(done);
    }
    let crash = crash_after.map(|prefix| prefix.min(steps.len())).map(|prefix| Crash {
        durable: Lsn::new(lsns[prefix].saturating_sub(prefix as u64 % 2)),
        recovered: states[prefix].clone(),
    });
    History { operations, crash, ..History::default() }
}

/// Damages a history, or leaves it as it is.
fn mutate(history: &mut History, (what, index, by): (u8, usize, u64)) {
    let count = history.operations.len();
    let other = history.operations[(index + 1) % count].clone();
    let operation = &mut history.operations[index % count];
    match (what % 6, &mut operation.returned) {
        (0, returned) if !matches!(operation.call, Call::Get(_)) => *returned = None,
        (1, Some((_, Answer::Found(found)))) => {
            *found = (by % 4 > 0).then_some(Number::try_from(by % 7).unwrap());
        }
        (2, Some((_, answer))) if matches!(operation.call, Call::Delete(_)) => {
            let changed = Answer::Changed(Lsn::new(by % 6));
            *answer = if *answer == Answer::Absent { changed } else { Answer::Absent };
        }
        (3, Some((_, Answer::Changed(lsn)))) => *lsn = other.lsn().unwrap_or(Lsn::new(by % 6)),
        (4, Some((at, _))) => *at = at.saturating_sub(by * 20).max(operation.called + 1),
        (5, _) => {
            if let Some(crash) = &mut history.crash {
                crash.durable = Lsn::new(by % 6);
                if by % 3 == 0 {
                    crash.recovered.insert(1, Number::try_from(by % 7).unwrap());
                }
            }
        }
        _ => {}
    }
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..32u8, 0..2u8, 0..300u64, 0..300u64), 1..=count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn real_histories_are_accepted(steps in steps(60), crash in prop::option::of(0..60usize)) {
        let history = run(&steps, crash);
        prop_assert_eq!(missed(&history), None, "{}", history);
    }

    #[test]
    fn operations_in_flight_may_have_happened(steps in steps(30), unanswered in prop::collection::vec(0..30usize, 3)) {
        let mut history = run(&steps, Some(30));
        for index in unanswered {
            mutate(&mut history, (0, index, 0));
        }
        prop_assert_eq!(missed(&history), None, "{}", history);
    }

    #[test]
    fn the_search_agrees_with_brute_force(
        steps in steps(5),
        crash in prop::option::of(0..6usize),
        mutations in prop::collection::vec((0..6u8, 0..5usize, 0..60u64), 0..4),
    ) {
        let mut history = run(&steps, crash);
        for mutation in mutations {
            mutate(&mut history, mutation);
        }
        for demand in Demand::ALL {
            let expected = is_met_by_brute_force(demand, &history);
            prop_assert_eq!(is_met(demand, &history), expected, "{:?} of {}", demand, history);
        }
    }

    #[test]
    fn parts_and_the_whole_agree(
        steps in steps(9),
        mutations in prop::collection::vec((0..5u8, 0..9usize, 0..60u64), 0..4),
    ) {
        let mut history = run(&steps, None);
        for mutation in mutations {
            mutate(&mut history, mutation);
        }
        let whole = order_exists(Demand::Linearizable, &history);
        prop_assert_eq!(is_met(Demand::Linearizable, &history), whole, "{}", history);
    }

    #[test]
    fn the_least_history_is_as_wrong_as_the_whole(
        steps in steps(12),
        crash in prop::option::of(0..12usize),
        mutations in prop::collection::vec((0..6u8, 0..12usize, 0..60u64), 1..4),
    ) {
        let mut history = run(&steps, crash);
        for mutation in mutations {
            mutate(&mut history, mutation);
        }
        let Some(demand) = missed(&history) else { return Ok(()) };
        let least = minimal(demand, &history);
        prop_assert!(!is_met(demand, &least), "{}", least);
        prop_assert!(least.operations.len() <= history.operations.len());
    }

    /// Leaving operations out never makes a good history bad.
    #[test]
    fn a_right_history_stays_right_when_shrunk(
        steps in steps(20),
        crash in prop::option::of(0..20usize),
        key in 0..6u8,
        left_out in prop::collection::vec(0..20usize, 0..30),
    ) {
        let mut history = without_key(key, &run(&steps, crash));
        for index in left_out {
            let mut without = history.clone();
            if index < without.operations.len() {
                let operation = without.operations.remove(index);
                if nothing_observes(&operation, &without) {
                    history = without;
                }
            }
        }
        prop_assert_eq!(missed(&history), None, "{}", history);
    }
}
