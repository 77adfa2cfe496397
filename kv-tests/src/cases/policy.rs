//! What a policy is asked, and whether the engine obeys its answers. The cases here use inline mode
//! and a manual clock, those in `asking.rs` threads and the time of the system.

use super::obeying::batch;
use super::{asking, case, obeying};
use crate::modelled::Modelled;
use crate::recorder::Recorder;
use crate::rig::Policy;
use crate::sim::PowerCut;
use crate::{Case, CaseResult, Context, Level, Need};
use fastrand::Rng;
use kv_core::{Action, Batch, Compact, Decision, Engine, Lsn, Result, Scale};
use std::task::{self, Poll, Waker};
use std::time::Duration;

const SIMULATED: &[Need] = &[Need::SimulatedFs, Need::Inline];

pub(crate) const CASES: &[Case] = &[
    case(
        "policy::required_kv821_every_question_is_true",
        Level::Required,
        SIMULATED,
        "The policy is asked after every put, delete and batch, and told exactly what is pending.",
        every_question_is_true,
    ),
    case(
        "policy::required_kv822_an_idle_store_asks_nothing",
        Level::Required,
        SIMULATED,
        "The policy is not asked while no change is pending.",
        an_idle_store_asks_nothing,
    ),
    case(
        "policy::required_kv823_durable_changes_are_not_pending",
        Level::Required,
        SIMULATED,
        "After a sync, a dump, a close or a recovery only the changes that came later are pending.",
        durable_changes_are_not_pending,
    ),
    case(
        "policy::required_kv824_written_changes_are_still_pending",
        Level::Required,
        SIMULATED,
        "After a Write the changes are still pending, and as old as before; the time since the last dump restarts.",
        written_changes_are_still_pending,
    ),
    case(
        "policy::required_kv825_answers_are_obeyed",
        Level::Required,
        SIMULATED,
        "When a change's call returns, the Write or WriteAndSync that the policy demanded is done.",
        answers_are_obeyed,
    ),
    case(
        "policy::required_kv826_when_durable_waits_whatever_is_decided",
        Level::Required,
        &[],
        "Under WhenDurable a change is durable when its call returns, also if the policy holds.",
        obeying::when_durable_waits_whatever_is_decided,
    ),
    case(
        "policy::required_kv827_limits_are_met_exactly",
        Level::Required,
        SIMULATED,
        "The change that reaches the limit of bytes or of age sets off the dump.",
        obeying::limits_are_met_exactly,
    ),
    case(
        "policy::optional_kv828_hold_holds",
        Level::Optional,
        &[],
        "Under a policy that holds, a few small changes do not become durable by themselves, also after some time.",
        obeying::hold_holds,
    ),
    case(
        "policy::required_kv831_asked_again_when_the_time_has_passed",
        Level::Required,
        &[],
        "The engine asks again after the time that the policy named, though nothing changes.",
        asking::asked_again_when_the_time_has_passed,
    ),
    case(
        "policy::required_kv832_a_sooner_time_counts",
        Level::Required,
        &[],
        "When a later change makes the policy name a sooner time, the engine asks sooner.",
        asking::a_sooner_time_counts,
    ),
    case(
        "policy::required_kv833_asked_again_and_again",
        Level::Required,
        &[],
        "The engine asks after each time that the policy names, also after a Write.",
        asking::asked_again_and_again,
    ),
    case(
        "policy::stochastic_kv834_changes_during_a_dump_stay_pending",
        Level::Stochastic,
        &[],
        "A change that arrives during a dump is pending after it, and the policy is asked about it.",
        asking::changes_during_a_dump_stay_pending,
    ),
    case(
        "policy::required_kv835_an_idle_thread_asks_nothing",
        Level::Required,
        &[],
        "Once everything is durable the thread does not ask, though the time of the last answer passes.",
        asking::an_idle_thread_asks_nothing,
    ),
];

fn poll_durable(engine: &dyn Engine, lsn: Lsn) -> Result<()> {
    // In inline mode the poll syncs, and is ready at once.
    match engine.poll_durable(lsn, &mut task::Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => Ok(()),
    }
}

type Sync = fn(&dyn Engine) -> Result<()>;

/// The ways in which a caller makes everything durable.
const SYNCS: [(&str, Sync); 3] = [
    ("sync", |engine| engine.sync().map(drop)),
    ("wait_durable", |engine| engine.wait_durable(engine.last_lsn())),
    ("poll_durable", |engine| poll_durable(engine, engine.last_lsn())),
];

/// One of each kind of change. Some time passes between them.
fn one_of_each(store: &mut Modelled) -> CaseResult {
    let step = Duration::from_millis(3);
    store.put(b"", b"")?;
    store.advance(step);
    store.put(b"a", &[1; 300])?;
    store.put(b"a", &[2; 300])?;
    store.advance(step);
    store.delete(b"absent")?;
    store.delete(b"")?;
    store.advance(step);
    store.put(&[b'k'; 60], b"v")?;
    store.delete(&[b'k'; 60])?;
    store.advance(step);
    store.apply(&batch(&[(b"a", Some(&[3; 50])), (b"b", Some(&[4; 500])), (b"c", Some(b""))]))?;
    store.advance(step);
    store.apply(&batch(&[(b"a", None), (b"b", Some(b"b")), (b"absent", None), (b"b", Some(b"c"))]))?;
    store.apply(&batch(&[(b"b", None), (b"c", None)]))?;
    store.apply(&batch(&[(b"absent", None), (b"new", Some(b"v")), (b"new", None)]))?;
    store.apply(&Batch::new())?;
    store.advance(step);
    store.put(b"b", &[5; 1000])
}

/// One random change, after some time.
fn random_change(store: &mut Modelled, rng: &mut Rng) -> CaseResult {
    store.advance(Duration::from_millis(rng.u64(0..4)));
    let key = |rng: &mut Rng| vec![rng.u8(0..12); rng.usize(1..40)];
    let value = |rng: &mut Rng| vec![rng.u8(..); rng.usize(0..90)];
    match rng.u8(0..10) {
        0..5 => store.put(&key(rng), &value(rng)),
        5..8 => store.delete(&[rng.u8(0..12)]),
        _ => {
            let mut batch = Batch::new();
            for _ in 0..rng.usize(0..5) {
                if rng.bool() {
                    batch.put(&[rng.u8(0..12)], &value(rng));
                } else {
                    batch.delete(&[rng.u8(0..12)]);
                }
            }
            store.apply(&batch)
        }
    }
}

fn every_question_is_true(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for scale in [Scale::Normal, Scale::Tiny] {
        let mut store = Modelled::open(context, scale, Recorder::always(Action::Hold))?;
        store.advance(Duration::from_millis(7));
        one_of_each(&mut store)?;
        for _ in 0..context.scaled(60) {
            random_change(&mut store, &mut rng)?;
        }
        store.reopen()?;
        store.advance(Duration::from_millis(7));
        one_of_each(&mut store)?;
        context.explored().history();
    }
    Ok(())
}

/// The calls that neither change anything nor find anything pending.
fn idle_calls(store: &mut Modelled) -> CaseResult {
    let step = Duration::from_mins(1);
    store.advance(step);
    store.idle("get", |engine| engine.get(b"present"))?;
    store.idle("scan", |engine| engine.scan(&mut |_, _| std::ops::ControlFlow::Continue(())))?;
    store.idle("delete of an absent key", |engine| engine.delete(b"absent"))?;
    store.advance(step);
    store.idle("empty batch", |engine| engine.apply(&Batch::new()))?;
    store.idle("batch that deletes absent keys", |engine| {
        engine.apply(&batch(&[(b"absent", None), (b"absent too", None)]))
    })?;
    store.idle("put that is too large", |engine| engine.put(&[0; 10_000], b""))?;
    store.idle("batch that is too large", |engine| {
        engine.apply(&batch(&[(b"new", Some(b"v")), (&[0; 10_000], Some(b""))]))
    })?;
    for (name, sync) in SYNCS {
        store.advance(step);
        store.sync(name, sync)?;
    }
    store.idle("compact", |engine| engine.as_compact().map(Compact::compact))?;
    store.idle("stats", |engine| engine.stats())
}

fn an_idle_store_asks_nothing(context: &Context) -> CaseResult {
    for action in [Action::Hold, Action::Write, Action::WriteAndSync] {
        let script = move |_: &_| Decision { action, ask_again_in: Some(Policy::INTERVAL) };
        let mut store = Modelled::open(context, Scale::Tiny, Recorder::new(script))?;
        idle_calls(&mut store)?;
        for (name, sync) in SYNCS {
            store.put(b"present", b"v")?;
            store.sync(name, sync)?;
            idle_calls(&mut store)?;
        }
        store.put(b"present", b"w")?;
        store.reopen()?;
        idle_calls(&mut store)?;
        store.put(b"present", b"x")?;
        store.crash(None)?;
        idle_calls(&mut store)?;
        store.crash(Some(PowerCut::KEEP_ALL))?;
        idle_calls(&mut store)?;
    }
    Ok(())
}

fn durable_changes_are_not_pending(context: &Context) -> CaseResult {
    /// More than an engine may add to one change.
    fn fill(store: &mut Modelled) -> CaseResult {
        (0..100u8).try_for_each(|number| {
            store.advance(Duration::from_millis(1));
            store.put(&[number], &[number; 1000])
        })?;
        store.delete(&[99])
    }
    let ask = |store: &mut Modelled| -> CaseResult {
        for _ in 0..2 {
            store.advance(Duration::from_millis(9));
            store.put(b"k", b"v")?;
            store.delete(b"k")?;
        }
        Ok(())
    };
    let mut store = Modelled::open(context, Scale::Normal, Recorder::always(Action::Hold))?;
    for (name, sync) in SYNCS {
        fill(&mut store)?;
        store.advance(Duration::from_millis(5));
        store.sync(name, sync)?;
        ask(&mut store)?;
    }
    for change in [
        |store: &mut Modelled| store.put(b"k", b"v"),
        |store: &mut Modelled| store.delete(b"k"),
        |store: &mut Modelled| store.apply(&batch(&[(b"x", Some(b"y")), (b"z", Some(b""))])),
    ] {
        fill(&mut store)?;
        store.put(b"k", b"v")?;
        store.recorder.answer(|_| Decision::now(Action::WriteAndSync));
        store.advance(Duration::from_millis(5));
        change(&mut store)?;
        store.recorder.answer(|_| Decision::now(Action::Hold));
        ask(&mut store)?;
    }
    for again in [
        Modelled::reopen,
        |store: &mut Modelled| store.crash(None),
        |store: &mut Modelled| store.crash(Some(PowerCut::KEEP_ALL)),
        |store: &mut Modelled| store.crash(Some(PowerCut::LOSE_ALL)),
    ] {
        fill(&mut store)?;
        // A crash leaves these changes, and recovery makes them durable.
        store.recorder.answer(|_| Decision::now(Action::Write));
        store.put(b"k", b"v")?;
        store.recorder.answer(|_| Decision::now(Action::Hold));
        store.advance(Duration::from_millis(5));
        again(&mut store)?;
        ask(&mut store)?;
    }
    Ok(())
}

fn written_changes_are_still_pending(context: &Context) -> CaseResult {
    for (writes, holds) in [(1, 1), (1, 3), (3, 1), (1, 20)] {
        let mut number = 0;
        let script = move |_: &_| {
            number += 1;
            let writes = number % (writes + holds) < writes;
            Decision::now(if writes { Action::Write } else { Action::Hold })
        };
        let mut store = Modelled::open(context, Scale::Normal, Recorder::new(script))?;
        for (name, sync) in SYNCS {
            one_of_each(&mut store)?;
            for number in 0..20 {
                store.advance(Duration::from_millis(2));
                store.put(&[number], &[number; 20])?;
            }
            store.sync(name, sync)?;
            store.advance(Duration::from_millis(2));
        }
    }
    Ok(())
}

fn answers_are_obeyed(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for round in 0..context.scaled(12) {
        let scale = if round % 4 == 0 { Scale::Normal } else { Scale::Tiny };
        let mut store = Modelled::open(context, scale, Recorder::always(Action::Hold))?;
        for _ in 0..40 {
            let action = match rng.u8(0..8) {
                0 => Action::WriteAndSync,
                1..4 => Action::Write,
                _ => Action::Hold,
            };
            store.recorder.answer(move |_| Decision::now(action));
            random_change(&mut store, &mut rng)?;
            match store.answered() {
                Action::Hold => {}
                Action::Write => store.check_disk(None)?,
                Action::WriteAndSync => store.check_disk(Some(PowerCut::LOSE_ALL))?,
            }
        }
        let sync = usize::try_from(round).unwrap_or(0) % (SYNCS.len() + 1);
        match SYNCS.get(sync) {
            Some((name, sync)) => store.sync(name, sync)?,
            None => store.reopen()?,
        }
        store.check_disk(Some(PowerCut::LOSE_ALL))?;
        context.explored().history();
    }
    Ok(())
}
