use super::case;
use crate::failure::{InWords, ensure};
use crate::oracle::state_of;
use crate::rig::{Policy, Setup};
use crate::sim::SimFs;
use crate::{Case, CaseResult, Context, Level, Need};
use kv_core::{Batch, Engine, Error, Limits, Scale};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const CASES: &[Case] = &[
    case(
        "batch::required_kv201_all_under_one_lsn",
        Level::Required,
        &[],
        "A batch applies all its changes under one LSN; for a repeated key the last one wins.",
        all_under_one_lsn,
    ),
    case(
        "batch::required_kv202_nothing_to_change",
        Level::Required,
        &[],
        "A batch that changes nothing takes no LSN and returns the last one.",
        nothing_to_change,
    ),
    case(
        "batch::required_kv203_one_bad_entry",
        Level::Required,
        &[],
        "A batch with one entry over its limit, or over the limit as a whole, changes nothing.",
        one_bad_entry,
    ),
    case(
        "batch::stochastic_kv204_visible_at_once",
        Level::Stochastic,
        &[],
        "All changes of a batch become visible at once.",
        visible_at_once,
    ),
    case(
        "batch::required_kv205_nothing_to_change_after_a_crash",
        Level::Required,
        &[Need::SimulatedFs],
        "After a crash, too, a batch that changes nothing takes no LSN and returns last_lsn.",
        nothing_to_change_after_a_crash,
    ),
    case(
        "batch::required_kv206_more_changes_than_two_bytes_count",
        Level::Required,
        &[],
        "A batch of 66,000 puts, and one of as many deletes, applies as a whole and survives.",
        super::batches::more_changes_than_two_bytes_count,
    ),
    case(
        "batch::required_kv207_exactly_at_the_limit",
        Level::Required,
        &[],
        "A batch exactly at its limit is applied and survives; one byte more is TooLarge.",
        super::batches::exactly_at_the_limit,
    ),
    case(
        "batch::required_kv208_every_short_sequence",
        Level::Required,
        &[],
        "Every sequence of up to three puts and deletes of one key has the effect and the LSN of its last one.",
        super::batches::every_short_sequence,
    ),
    case(
        "batch::required_kv209_one_key_many_times",
        Level::Required,
        &[],
        "Of a thousand changes of one key in a batch the last one wins, now and after every recovery.",
        super::batches::one_key_many_times,
    ),
    case(
        "batch::required_kv210_only_deletes",
        Level::Required,
        &[],
        "A batch of deletes removes the present keys among its own, and only these.",
        super::batches::only_deletes,
    ),
];

fn all_under_one_lsn(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    engine.put(b"gone", b"x")?;
    let before = engine.put(b"kept", b"x")?;
    let mut batch = Batch::new();
    batch.put(b"a", b"1").delete(b"gone").put(b"b", b"2").put(b"a", b"3").put(b"c", b"4").delete(b"c");
    let lsn = engine.apply(&batch)?;
    ensure!(lsn > before && engine.last_lsn() == lsn, "the batch's LSN {lsn} is not the last one");
    let expected =
        [(b"a".to_vec(), b"3".to_vec()), (b"b".to_vec(), b"2".to_vec()), (b"kept".to_vec(), b"x".to_vec())];
    ensure!(state_of(&*engine)? == expected.clone().into(), "the batch did not apply as a whole, in order");
    engine.close()?;
    ensure!(state_of(&*rig.open()?)? == expected.into(), "the batch did not survive reopening");
    Ok(())
}

fn nothing_to_change(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    let first = engine.apply(&Batch::new())?;
    ensure!(first == engine.last_lsn(), "an empty batch on an empty store returns {first}");
    let last = engine.put(b"k", b"v")?;
    let mut batch = Batch::new();
    batch.delete(b"x").delete(b"y");
    for batch in [Batch::new(), batch] {
        let lsn = engine.apply(&batch)?;
        let now = engine.last_lsn();
        ensure!(now == last, "a batch that changes nothing moved last_lsn from {last} to {now}");
        ensure!(lsn == last, "a batch that changes nothing returns LSN {lsn}, but last_lsn is {last}");
    }
    Ok(())
}

fn one_bad_entry(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    let rig = context.rig(setup)?;
    let engine = rig.open()?;
    let last = engine.put(b"k", b"v")?;
    let mut long_key = Batch::new();
    long_key.put(b"a", b"1").delete(b"k").put(&vec![0; setup.limits.key_len_max + 1], b"");
    let mut long_value = Batch::new();
    long_value.put(b"a", b"1").put(b"b", &vec![0; setup.limits.value_len_max + 1]);
    let mut too_much = Batch::new();
    for key in 0..=setup.limits.batch_bytes_max / setup.limits.value_len_max {
        too_much.put(&key.to_le_bytes(), &vec![0; setup.limits.value_len_max]);
    }
    for (batch, expected) in [(long_key, "key"), (long_value, "value"), (too_much, "batch")] {
        let answer = engine.apply(&batch);
        ensure!(
            matches!(answer, Err(Error::TooLarge { what, .. }) if what == expected),
            "a {expected} over its limit is answered with {answer}",
            answer = answer.in_words()
        );
        ensure!(engine.last_lsn() == last, "a refused batch took an LSN");
        ensure!(state_of(&*engine)?.len() == 1, "a refused batch changed something");
    }
    drop(engine);
    many_small_changes(context)
}

/// Each change counts with its overhead, in every engine's format.
fn many_small_changes(context: &Context) -> CaseResult {
    let batch_bytes_max = 20 * (1 + Limits::CHANGE_OVERHEAD);
    let limits = Limits { key_len_max: 7, value_len_max: 9, batch_bytes_max };
    let rig = context.rig(Setup { limits, ..Setup::tiny(context, Policy::Manual) })?;
    let engine = rig.open()?;
    let mut batch = Batch::new();
    for key in 0..20u8 {
        batch.put(&[key], b"");
    }
    let lsn = engine.apply(&batch)?;
    batch.delete(b"");
    let answer = engine.apply(&batch);
    let len = batch_bytes_max + Limits::CHANGE_OVERHEAD;
    ensure!(
        matches!(answer, Err(Error::TooLarge { what: "batch", len: told, limit }) if (told, limit) == (len, batch_bytes_max)),
        "a batch of {len} bytes, overhead included, is answered with {answer}; the limit is {batch_bytes_max}",
        answer = answer.in_words()
    );
    ensure!(engine.last_lsn() == lsn, "a refused batch took an LSN");
    ensure!(state_of(&*engine)?.len() == 20, "a batch at the limit is missing");
    Ok(())
}

fn visible_at_once(context: &Context) -> CaseResult {
    let setup = Setup { scale: Scale::Normal, ..Setup::tiny(context, Policy::Manual) };
    let rig = context.real_rig(setup)?;
    let engine = rig.open()?;
    let rounds = u32::try_from(context.scaled(3000)).unwrap_or(u32::MAX);
    let keys: Vec<[u8; 1]> = (0..8u8).map(|key| [key]).collect();
    let done = AtomicBool::new(false);
    let number = |engine: &dyn Engine, key: &[u8]| -> kv_core::Result<u32> {
        Ok(engine
            .get(key)?
            .and_then(|value| value.first_chunk().map(|b| u32::from_le_bytes(*b)))
            .unwrap_or(0))
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> CaseResult {
            for round in 1..=rounds {
                let mut batch = Batch::new();
                for key in &keys {
                    batch.put(key, &round.to_le_bytes());
                }
                engine.apply(&batch)?;
            }
            Ok(())
        });
        let reader = scope.spawn(|| -> CaseResult {
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                for pair in keys.windows(2) {
                    for key in pair {
                        let now = number(&*engine, key)?;
                        ensure!(now >= last, "batch {last} was seen under one key, then {now} under another");
                        last = now;
                    }
                }
            }
            Ok(())
        });
        let written = writer.join();
        done.store(true, Ordering::Release);
        let read = reader.join();
        context.explored().history();
        match (written, read) {
            (Ok(written), Ok(read)) => written.and(read),
            _ => Err(crate::Failure::new("no operation panics, but one did")),
        }
    })
}

/// LSNs that a crash skipped were never visible: no call may return or wait for one.
fn nothing_to_change_after_a_crash(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    let disk = SimFs::new();
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    let put = engine.put(b"k", b"v")?;
    engine.sync()?;
    let image = disk.process_death();
    context.explored().crash_state();
    let engine = context.sim_rig(image, setup).open()?;
    ensure!(
        engine.last_lsn() == put,
        "after a crash last_lsn is {}, but the newest change has {put}",
        engine.last_lsn()
    );
    let mut absent = Batch::new();
    absent.delete(b"absent");
    for batch in [Batch::new(), absent] {
        let lsn = engine.apply(&batch)?;
        ensure!(
            lsn == engine.last_lsn(),
            "a batch that changes nothing returns last_lsn ({}), but after a crash it returned {lsn}",
            engine.last_lsn()
        );
    }
    Ok(())
}
