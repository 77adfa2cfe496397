use super::case;
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::workload::{Op, random_ops, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::{Engine, EngineExt, Error, Limits};
use std::sync::Arc;

pub(crate) const CASES: &[Case] = &[
    case(
        "model::required_kv101_last_put_wins",
        Level::Required,
        &[],
        "A get returns the value of the last put.",
        last_put_wins,
    ),
    case(
        "model::required_kv102_delete_and_put_again",
        Level::Required,
        &[],
        "A deleted key is gone until it is put again; deleting an absent key takes no LSN.",
        delete_and_put_again,
    ),
    case(
        "model::required_kv103_any_bytes",
        Level::Required,
        &[],
        "Keys and values are any bytes, including none.",
        any_bytes,
    ),
    case(
        "model::required_kv104_limits",
        Level::Required,
        &[],
        "Keys and values at their limit are accepted; one byte more is TooLarge and changes nothing.",
        limits,
    ),
    case(
        "model::required_kv105_lsns_grow",
        Level::Required,
        &[],
        "LSNs grow strictly, and durable_lsn never passes last_lsn nor goes back.",
        lsns_grow,
    ),
    case(
        "model::required_kv106_random_operations",
        Level::Required,
        &[],
        "Under every policy random operations, syncs and reopenings give the same answers as a sorted map.",
        random_operations,
    ),
    case(
        "model::required_kv107_shrinking_model",
        Level::Required,
        &[],
        "Operations give the same answers as a sorted map; the suite shrinks a counterexample.",
        shrinking_model,
    ),
    case(
        "model::required_kv108_values_outlive_their_keys",
        Level::Required,
        &[],
        "A Value keeps its bytes after changes of its key and after the close of the engine.",
        values_outlive_their_keys,
    ),
    case(
        "model::required_kv109_reading_many_keys",
        Level::Required,
        &[],
        "Reading many keys equals reading each of them in order, including absent and repeated ones.",
        reading_many_keys,
    ),
    case(
        "model::required_kv110_an_empty_store_keeps_its_lsn",
        Level::Required,
        &[],
        "After a close last_lsn is the same, also for a store that is or became empty.",
        super::lsns::an_empty_store_keeps_its_lsn,
    ),
    case(
        "model::required_kv111_crashes_use_no_lsn_twice",
        Level::Required,
        &[Need::SimulatedFs],
        "After any number of crashes LSNs grow, and last_lsn is that of a change that was given it.",
        super::lsns::crashes_use_no_lsn_twice,
    ),
    case(
        "model::required_kv112_only_changes_take_lsns",
        Level::Required,
        &[],
        "Whatever changes nothing takes no LSN; every put takes one, also of the same value.",
        super::lsns::only_changes_take_lsns,
    ),
    case(
        "model::required_kv113_every_size",
        Level::Required,
        &[],
        "Keys and values of every critical length survive every kind of read and recovery.",
        super::sizes::every_size,
    ),
    case(
        "model::required_kv114_kinds_of_keys",
        Level::Required,
        &[],
        "All one-byte keys, prefixes of one another, zeros and 0xff are distinct keys, also for deletes.",
        super::sizes::kinds_of_keys,
    ),
    case(
        "model::required_kv115_empty_is_not_absent",
        Level::Required,
        &[],
        "An empty value is a value for every call, and survives every recovery.",
        super::sizes::empty_is_not_absent,
    ),
    case(
        "model::required_kv116_limits_are_exact",
        Level::Required,
        &[],
        "Raised and lowered limits, zero included, hold for every call to the byte.",
        super::sizes::limits_are_exact,
    ),
    case(
        "model::required_kv117_large_values",
        Level::Required,
        &[],
        "Values and batches beyond the default limits survive, where the engine accepts such limits.",
        super::sizes::large_values,
    ),
    case(
        "model::required_kv118_more_keys_than_two_bytes_count",
        Level::Required,
        &[],
        "A store of 66,000 keys keeps each of them through deaths, closes and opens.",
        super::sizes::more_keys_than_two_bytes_count,
    ),
    case(
        "model::required_kv119_values_that_look_like_files",
        Level::Required,
        &[Need::SimulatedFs],
        "Values and keys that hold the bytes of the store's own files survive, and are never taken for records.",
        super::lookalikes::values_that_look_like_files,
    ),
    case(
        "model::required_kv120_read_many_in_order_and_once",
        Level::Required,
        &[],
        "read_many visits absent, empty and repeated keys in order, each position once.",
        super::many::in_order_and_once,
    ),
    case(
        "model::required_kv121_read_many_of_thousands",
        Level::Required,
        &[],
        "read_many of thousands of keys visits each, in files or in memory.",
        super::many::more_than_any_group,
    ),
    case(
        "model::required_kv122_read_many_is_refused_as_a_whole",
        Level::Required,
        &[],
        "With a key over the limit at any position read_many visits nothing.",
        super::many::refused_as_a_whole,
    ),
    case(
        "model::required_kv123_waits_at_the_edges",
        Level::Required,
        &[],
        "Zero and every LSN up to last_lsn can be waited for; one beyond is InvalidArgument.",
        super::lsns::waits_at_the_edges,
    ),
];

fn last_put_wins(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    for round in 0..50u8 {
        engine.put(b"a", &[round; 40])?;
        engine.put(b"b", &[round])?;
        ensure!(
            engine.get(b"a")?.as_deref() == Some([round; 40].as_slice()),
            "get does not find put {round} of a"
        );
        ensure!(
            engine.get(b"b")?.as_deref() == Some([round].as_slice()),
            "get does not find put {round} of b"
        );
    }
    ensure!(engine.get(b"c")?.is_none(), "a key that was never put is found");
    let mut visits = 0;
    ensure!(
        engine.read(b"b", &mut |value| visits += usize::from(value == [49]))?,
        "read does not find a key"
    );
    ensure!(visits == 1, "read visits the value {visits} times");
    ensure!(!engine.read(b"c", &mut |_| ())?, "read finds a key that was never put");
    Ok(())
}

fn delete_and_put_again(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    let put = engine.put(b"k", b"1")?;
    ensure!(engine.delete(b"absent")?.is_none(), "deleting an absent key is reported as a change");
    ensure!(engine.last_lsn() == put, "deleting an absent key took an LSN");
    let Some(deleted) = engine.delete(b"k")? else { fail!("deleting a present key is not reported") };
    ensure!(deleted > put, "the delete's LSN {deleted} is not above the put's {put}");
    ensure!(engine.get(b"k")?.is_none(), "a deleted key is found");
    ensure!(engine.delete(b"k")?.is_none(), "a key can be deleted twice");
    engine.put(b"k", b"2")?;
    ensure!(
        engine.get(b"k")?.as_deref() == Some(b"2".as_slice()),
        "a key cannot be put again after its delete"
    );
    Ok(())
}

fn any_bytes(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let samples: [&[u8]; 8] = [b"", b"\0", b"\0\0", b"\xff", b" ", b"\n", b"a b\0c", &[0xff; 60]];
    let engine = rig.open()?;
    for (number, key) in samples.iter().enumerate() {
        let value = samples.get((number + 3) % samples.len()).copied().unwrap_or_default();
        engine.put(key, value)?;
    }
    for reopened in [false, true] {
        let engine = if reopened {
            engine.close()?;
            rig.open()?
        } else {
            Arc::clone(&engine)
        };
        for (number, key) in samples.iter().enumerate() {
            let value = samples.get((number + 3) % samples.len()).copied();
            ensure!(
                engine.get(key)?.as_deref() == value,
                "the value of {key:?} is not the one put (reopened: {reopened})"
            );
        }
        ensure!(engine.to_sorted_vec()?.len() == samples.len(), "a scan finds another number of keys");
    }
    Ok(())
}

fn limits(context: &Context) -> CaseResult {
    let tight = Limits { key_len_max: 7, value_len_max: 9, batch_bytes_max: 16 + Limits::CHANGE_OVERHEAD };
    for limits in [Limits::default(), tight] {
        let rig = context.rig(Setup { limits, ..Setup::tiny(context, Policy::Manual) })?;
        let engine = rig.open()?;
        let (key, value) = (vec![1; limits.key_len_max], vec![2; limits.value_len_max]);
        let (long_key, long_value) = (vec![1; key.len() + 1], vec![2; value.len() + 1]);
        let lsn = engine.put(&key, &value)?;
        let refusals = [
            (engine.put(&long_key, b"").err(), "key", limits.key_len_max),
            (engine.put(b"", &long_value).err(), "value", limits.value_len_max),
            (engine.get(&long_key).err(), "key", limits.key_len_max),
            (engine.delete(&long_key).err(), "key", limits.key_len_max),
        ];
        for (error, expected, maximum) in refusals {
            match error {
                Some(Error::TooLarge { what, len, limit })
                    if (what, len, limit) == (expected, maximum + 1, maximum) => {}
                other => {
                    fail!(
                        "a {expected} of {} bytes is answered with {other}, not TooLarge",
                        maximum + 1,
                        other = other.in_words()
                    )
                }
            }
        }
        ensure!(engine.last_lsn() == lsn, "a refused change took an LSN");
        ensure!(engine.get(&key)?.as_deref() == Some(value.as_slice()), "a pair at the limit is not found");
        ensure!(engine.to_sorted_vec()?.len() == 1, "a refused change changed something");
        engine.close()?;
        let pairs = rig.open()?.to_sorted_vec()?;
        ensure!(pairs == [(key, value)], "a pair at the limit does not survive reopening");
    }
    Ok(())
}

fn lsns_grow(context: &Context) -> CaseResult {
    for policy in Policy::ALL {
        let rig = context.rig(Setup::tiny(context, policy))?;
        let engine = rig.open()?;
        let ops = random_ops(&mut context.rng(), 200, 8);
        let mut history = History::default();
        let mut durable = engine.durable_lsn();
        for op in ops.chunks(5) {
            run_ops(&*engine, op, &mut history)?;
            let now = engine.durable_lsn();
            ensure!(now >= durable, "durable_lsn went back from {durable} to {now}");
            ensure!(now <= engine.last_lsn(), "durable_lsn {now} is beyond last_lsn {}", engine.last_lsn());
            durable = now;
        }
        history.check_order()?;
        ensure!(engine.last_lsn() == history.last_lsn(), "last_lsn is not the LSN of the last change");
    }
    Ok(())
}

fn random_operations(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for _ in 0..context.scaled(6) {
        let ops = random_ops(&mut rng, 400, 24);
        let mut states = Vec::new();
        for policy in Policy::ALL {
            let rig = context.rig(Setup::tiny(context, policy))?;
            let mut history = History::default();
            for part in ops.chunks(100) {
                let engine = rig.open()?;
                run_ops(&*engine, part, &mut history)?;
                rig.advance(Policy::INTERVAL);
                let state = state_of(&*engine)?;
                if state != history.state() {
                    return Err(Failure::new("the engine disagrees with a sorted map")
                        .with("policy", format!("{policy:?}"))
                        .with("operations", format!("{ops:?}")));
                }
                engine.close()?;
            }
            context.explored().history();
            states.push(state_of(&*rig.open()?)?);
        }
        ensure!(states.windows(2).all(|pair| pair.first() == pair.last()), "two policies give two answers");
    }
    Ok(())
}

fn shrinking_model(context: &Context) -> CaseResult {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

    let op = prop_oneof![
        12 => (0..6u8, 4..40usize).prop_map(|(key, len)| Op::Put { key, len }),
        4 => (0..6u8).prop_map(|key| Op::Delete { key }),
        4 => proptest::collection::vec((0..6u8, proptest::option::of(4..20usize)), 0..4)
            .prop_map(Op::Batch),
        4 => Just(Op::Sync),
        1 => Just(Op::Reopen),
    ];
    let cases = u32::try_from(context.scaled(64)).unwrap_or(u32::MAX);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let mut seed = [0; 32];
    seed.iter_mut().zip(context.seed().to_le_bytes().into_iter().cycle()).for_each(|(to, from)| *to = from);
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let result = runner.run(&proptest::collection::vec(op, 0..80), |ops| {
        context.explored().history();
        agrees_with_a_map(context, &ops).map_err(|failure| TestCaseError::fail(failure.violated().to_owned()))
    });
    result.map_err(|error| match error {
        TestError::Fail(reason, ops) => Failure::new(reason.message().to_owned())
            .with("operations", ops.iter().map(Op::describe).collect::<Vec<_>>().join("\n")),
        TestError::Abort(reason) => Failure::new(format!("the harness is broken: {}", reason.message())),
    })
}

/// Runs `ops`, and compares the engine with a map after each session, and after one more open.
fn agrees_with_a_map(context: &Context, ops: &[Op]) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::AnyOf))?;
    let mut history = History::default();
    let is_right = |engine: &dyn Engine, history: &History| -> CaseResult {
        ensure!(state_of(engine)? == history.state(), "the engine disagrees with a sorted map");
        Ok(())
    };
    for session in ops.split(|op| *op == Op::Reopen) {
        let engine = rig.open()?;
        is_right(&*engine, &history)?;
        run_ops(&*engine, session, &mut history)?;
        is_right(&*engine, &history)?;
    }
    is_right(&*rig.open()?, &history)
}

fn values_outlive_their_keys(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        let engine = rig.open()?;
        let mut held = Vec::new();
        for key in 0..20u8 {
            engine.put(&[key], &[key; 150])?;
            held.push((key, engine.get(&[key])?));
        }
        for round in 0..20u8 {
            for key in 0..20u8 {
                engine.put(&[key], &[100 + round; 150])?;
            }
        }
        for key in 0..20u8 {
            engine.delete(&[key])?;
        }
        if let Some(compact) = engine.as_compact() {
            compact.compact()?;
        }
        engine.close()?;
        drop(engine);
        for (key, value) in held {
            ensure!(
                value.as_deref() == Some([key; 150].as_slice()),
                "a held value changed after its key was deleted"
            );
        }
    }
    Ok(())
}

fn reading_many_keys(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for _ in 0..context.scaled(10) {
        let rig = context.rig(Setup::tiny(context, Policy::AnyOf))?;
        let mut history = History::default();
        for part in random_ops(&mut rng, 300, 40).chunks(100) {
            let engine = rig.open()?;
            run_ops(&*engine, part, &mut history)?;
            let state = history.state();
            let present: Vec<&Vec<u8>> = state.keys().collect();
            for len in [0, 1, 2, 15, 16, 17, 64, 200] {
                let keys: Vec<Vec<u8>> = (0..len)
                    .map(|number| match rng.choice(&present) {
                        Some(key) if rng.u8(..3) > 0 => (*key).clone(),
                        _ => format!("absent {number}").into_bytes(),
                    })
                    .collect();
                let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                let mut visited = Vec::new();
                engine.read_many(&keys, &mut |position, value| {
                    visited.push((position, value.map(<[u8]>::to_vec)));
                })?;
                let expected: Vec<_> = keys.iter().map(|key| state.get(*key).cloned()).enumerate().collect();
                ensure!(visited == expected, "read_many of {len} keys visits {visited:?}, not {expected:?}");
            }
            engine.close()?;
        }
        context.explored().history();
    }

    let limits = Limits { key_len_max: 3, ..Limits::default() };
    let rig = context.rig(Setup { limits, ..Setup::tiny(context, Policy::Manual) })?;
    let engine = rig.open()?;
    engine.put(b"key", b"value")?;
    let mut visits = 0;
    let refused = engine.read_many(&[b"key", b"long"], &mut |_, _| visits += 1);
    ensure!(
        matches!(refused, Err(Error::TooLarge { what: "key", len: 4, limit: 3 })),
        "a long key among others is answered with {refused}, not TooLarge",
        refused = refused.in_words()
    );
    ensure!(visits == 0, "keys are visited though one of them is refused");
    engine.close()?;
    let closed = engine.read_many(&[b"key"], &mut |_, _| ());
    ensure!(
        matches!(closed, Err(Error::Closed)),
        "after close read_many is answered with {closed}",
        closed = closed.in_words()
    );
    Ok(())
}
