//! Threads on few keys: an order must explain their answers, and it must be the order of the LSNs.
//!
//! The seed determines the operations. The machine determines how threads interleave, so a replay
//! may differ. Many short rounds with a common start meet more interleavings than few long ones.
//! Their histories are small enough to read.

use super::histories::{Mix, number, read_all, run, value};
use super::{case, crowd, shuffle};
use crate::failure::{InWords, ensure, fail};
use crate::linearizability::{Call, Crash, History, Key, Number, Operation, State, judge};
use crate::oracle::state_of;
use crate::rig::{Policy, Setup};
use crate::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use fastrand::Rng;
use kv_core::{Acknowledge, Background, Engine, Error, Lsn, Scale};
use std::thread;

pub(crate) const CASES: &[Case] = &[
    case(
        "linearizability::stochastic_kv751_single_keys",
        Level::Stochastic,
        &[],
        "Concurrent gets, puts and deletes of a few keys are linearizable, with changes in the order of LSNs.",
        |context| live(context, Mix { keys: 2, batches: false }),
    ),
    case(
        "linearizability::stochastic_kv752_batches",
        Level::Stochastic,
        &[],
        "Concurrent batches, gets, puts and deletes are linearizable, with changes in the order of LSNs.",
        |context| live(context, Mix { keys: 4, batches: true }),
    ),
    case(
        "linearizability::stochastic_kv753_power_cut_under_threads",
        Level::Stochastic,
        &[Need::SimulatedFs],
        "A crash under concurrent changes leaves a prefix of the order that readers saw, with all durable changes.",
        power_cut_under_threads,
    ),
    case(
        "linearizability::stochastic_kv754_close_under_threads",
        Level::Stochastic,
        &[],
        "A close under concurrent operations saves the answered changes, and refuses the others without effect.",
        close_under_threads,
    ),
    case(
        "linearizability::stochastic_kv755_waiters_under_a_failing_disk",
        Level::Stochastic,
        &[Need::SimulatedFs],
        "Concurrent syncs and waits all return when the disk fails: Ok if durable, otherwise with the failure.",
        waiters_under_a_failing_disk,
    ),
    case(
        "linearizability::stochastic_kv756_batches_over_many_keys",
        Level::Stochastic,
        &[],
        "A batch over keys that lie far apart becomes visible at once.",
        crowd::batches_over_many_keys,
    ),
    case(
        "linearizability::stochastic_kv757_lsns_beside_what_is_visible",
        Level::Stochastic,
        &[],
        "last_lsn goes with the visible changes, and durable_lsn never decreases and is at most last_lsn.",
        crowd::lsns_beside_what_is_visible,
    ),
    case(
        "linearizability::stochastic_kv758_keys_stay_while_others_come_and_go",
        Level::Stochastic,
        &[],
        "Readers find every stable key, with values that never go back, while threads insert and remove keys around it and compact.",
        |context| shuffle::keys_stay_while_others_come_and_go(context, shuffle::Beside::Reads),
    ),
];

fn live(context: &Context, mix: Mix) -> CaseResult {
    let mut rng = context.rng();
    let simulated = context.factory().capabilities().simulated_fs;
    for policy in Policy::ALL {
        for scale in [Scale::Tiny, Scale::Normal] {
            let setup = Setup { background: Background::Threads, scale, ..Setup::tiny(context, policy) };
            let rig = context.rig(setup)?;
            let engine = rig.open()?;
            let mut state = State::new();
            // Real syncs are slow.
            let rounds = context.scaled(if simulated { 300 } else { 15 });
            for round in 0..rounds {
                let (start, last) = (state, engine.last_lsn());
                let first = u32::try_from(round * 100).unwrap_or(0);
                let seen = run(&*engine, &mix.draw(&mut rng, first), || {})?;
                let mut history = History { start, last, ..History::default() };
                for seen in seen {
                    seen.error.map_or(Ok(()), Err)?;
                    history.operations.extend(seen.operations);
                }
                state = read_all(&*engine, mix, &mut history.operations)?;
                context.explored().history();
                judge(&history).map_err(|failure| in_round(failure, setup, round))?;
            }
        }
    }
    Ok(())
}

fn in_round(failure: Failure, setup: Setup, round: u64) -> Failure {
    let Setup { policy, scale, .. } = setup;
    failure.with(
        "round",
        format!("{round} under {policy:?}, {scale:?} units, with threads: a replay may differ"),
    )
}

/// Threads, tiny units and any policy.
fn draw_setup(context: &Context, rng: &mut Rng) -> Setup {
    let policy = rng.choice(Policy::ALL).unwrap_or(Policy::Always);
    Setup { background: Background::Threads, ..Setup::tiny(context, policy) }
}

fn power_cut_under_threads(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let mix = Mix { keys: 4, batches: true };
    for round in 0..context.scaled(200) {
        let setup = draw_setup(context, &mut rng);
        let mut disk = SimFs::new();
        // Each life begins with the disk of the life before.
        for life in 0..3 {
            let engine = context.sim_rig(disk.clone(), setup).open()?;
            let start = recovered(&*engine)?;
            let mut history = History { start, last: engine.last_lsn(), ..History::default() };
            let calls = mix.draw(&mut rng, life * 100);
            let syncs = rng.u8(0..4);
            disk.cut_after(disk.mutations() + rng.u64(0..25));
            let durable = run_until_cut(&*engine, setup.policy, &calls, syncs, &mut history)?;
            // Reads after the cut tell which changes in flight were visible. They may fail, if they
            // need the disk.
            let _ = read_all(&*engine, mix, &mut history.operations);
            disk.freeze();
            drop(engine);
            context.explored().history();
            let mut images = vec![disk.process_death()];
            images.extend((0..3).map(|_| disk.power_cut(PowerCut::seeded(rng.u64(..)))));
            disk = images.last().map(SimFs::process_death).unwrap_or_default();
            for image in images {
                context.explored().crash_state();
                let kept = image.kept().join("\n");
                let engine = context.sim_rig(image, setup).open()?;
                history.crash = Some(Crash { durable, recovered: recovered(&*engine)? });
                judge(&history).map_err(|failure| in_round(failure.with("kept", kept), setup, round))?;
            }
        }
    }
    Ok(())
}

/// Runs the threads' calls, with syncs in between, and adds the answers to the history. Returns the
/// highest LSN that was reported durable.
fn run_until_cut(
    engine: &dyn Engine,
    policy: Policy,
    calls: &[Vec<Call>],
    syncs: u8,
    history: &mut History,
) -> Result<Lsn, Failure> {
    let mut durable = Lsn::ZERO;
    let seen = run(engine, calls, || {
        for _ in 0..syncs {
            thread::yield_now();
            durable = durable.max(engine.sync().unwrap_or_default());
        }
    })?;
    for seen in seen {
        let typed = matches!(seen.error, None | Some(Error::Io { .. } | Error::Poisoned { .. }));
        ensure!(typed, "a disk without power is answered with {:?}", seen.error);
        durable = durable.max(seen.durable);
        history.operations.extend(seen.operations);
    }
    if policy.build().acknowledge() == Acknowledge::WhenDurable {
        durable = durable.max(history.operations.iter().filter_map(Operation::lsn).max().unwrap_or_default());
    }
    Ok(durable.max(engine.durable_lsn()))
}

/// The state of a store, as numbers.
fn recovered(engine: &dyn Engine) -> Result<State, Failure> {
    let mut numbers = State::new();
    for (key, bytes) in state_of(engine)? {
        match (key.as_slice(), number(&bytes)) {
            ([key], Some(number)) => numbers.insert(*key, number),
            _ => fail!("a recovered value is one that was written, not {bytes:?} under {key:?}"),
        };
    }
    Ok(numbers)
}

fn close_under_threads(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let mix = Mix { keys: 4, batches: true };
    let simulated = context.factory().capabilities().simulated_fs;
    for round in 0..context.scaled(if simulated { 600 } else { 20 }) {
        let setup = draw_setup(context, &mut rng);
        let disk = simulated.then(SimFs::new);
        let rig = match &disk {
            Some(disk) => context.sim_rig(disk.clone(), setup),
            None => context.rig(setup)?,
        };
        let engine = rig.open()?;
        let (calls, pause) = (mix.draw(&mut rng, 0), rng.u32(0..2000));
        let mut closed = Ok(());
        let seen = run(&*engine, &calls, || {
            (0..pause).for_each(|_| std::hint::spin_loop());
            closed = engine.close();
        })?;
        closed?;
        let mut history = History::default();
        for seen in seen {
            let typed = matches!(seen.error, None | Some(Error::Closed));
            ensure!(typed, "an operation during close is answered with {:?}", seen.error);
            history.operations.extend(seen.operations);
        }
        // The disk after the worst power cut. Opening `again` shows that the directory is free.
        let again = rig.open()?;
        let left = match &disk {
            Some(disk) => context.sim_rig(disk.power_cut(PowerCut::LOSE_ALL), setup).open()?,
            None => again,
        };
        read_all(&*left, mix, &mut history.operations)?;
        context.explored().history();
        judge(&history).map_err(|failure| in_round(failure, setup, round))?;
    }
    Ok(())
}

fn waiters_under_a_failing_disk(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for round in 0..context.scaled(100) {
        let disk = SimFs::new();
        let setup = Setup { background: Background::Threads, ..Setup::tiny(context, Policy::Manual) };
        let engine = context.sim_rig(disk.clone(), setup).open()?;
        let kind = FaultKind::Sync;
        let repeat = if rng.bool() { Repeat::Once } else { Repeat::Always };
        disk.inject(Fault { kind, nth: rng.u64(0..20), repeat });
        let told = thread::scope(|scope| {
            let waiters: Vec<_> = (0..5)
                .map(|waiter| {
                    let engine = &*engine;
                    scope.spawn(move || wait_until_failure(engine, waiter))
                })
                .collect();
            let joined = waiters.into_iter().map(|waiter| {
                waiter.join().unwrap_or_else(|_| Err(Failure::new("no operation panics, but one did")))
            });
            joined.collect::<Result<Vec<_>, _>>()
        })?;
        ensure!(disk.faults_fired() > 0, "the harness is broken: no fault fired");
        context.explored().add_faults(disk.faults_fired());
        let durable = engine.durable_lsn();
        engine.wait_durable(durable)?;
        // A sync that fails once may belong to a file that the engine prepares, and then takes no
        // change with it.
        if repeat == Repeat::Always || told.iter().any(|&durable| durable < CHANGES) {
            let again = engine.sync();
            ensure!(
                matches!(again, Err(Error::Poisoned { .. })),
                "a sync after a failed one answers {again}",
                again = again.in_words()
            );
        }
        disk.freeze();
        drop(engine);
        context.explored().crash_state();
        let state = recovered(&*context.sim_rig(disk.power_cut(PowerCut::LOSE_ALL), setup).open()?)?;
        for (waiter, told) in (0..).zip(told) {
            let there = state.get(&waiter).copied().unwrap_or(0);
            if there < told {
                let lost =
                    format!("change {told} of thread {waiter} was durable, but only {there} was recovered");
                return Err(
                    in_round(Failure::new(lost), setup, round).with("fault", format!("{kind:?}, {repeat:?}"))
                );
            }
        }
    }
    Ok(())
}

/// More changes than a waiter makes before the disk fails.
const CHANGES: Number = 500;

/// Puts 1, 2, 3, ... under the waiter's key, and makes each durable by a sync or a wait, until a
/// call fails. Returns the last durable number.
fn wait_until_failure(engine: &dyn Engine, waiter: Key) -> Result<Number, Failure> {
    for number in 1..=CHANGES {
        let answer = engine.put(&[waiter], &value(number)).and_then(|lsn| {
            if (number + u32::from(waiter)) % 3 == 0 {
                engine.sync()?;
            } else {
                engine.wait_durable(lsn)?;
            }
            Ok(lsn)
        });
        match answer {
            Ok(lsn) => {
                ensure!(engine.durable_lsn() >= lsn, "a waiter returned before its change was durable");
            }
            Err(Error::Io { .. } | Error::Poisoned { .. }) => return Ok(number - 1),
            Err(other) => fail!("a failing disk is answered with: {other}"),
        }
    }
    Ok(CHANGES)
}
