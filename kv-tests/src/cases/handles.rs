//! Handles of a store: the changes that a close and a drop save, and the resources that a handle
//! holds.

use super::{case, closed, closing};
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{History, State, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::{PowerCut, SimFs};
use crate::workload::{Op, random_ops, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::{Background, Env, Error, OpenOptions};
use std::sync::Arc;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    case(
        "handles::required_kv431_every_operation_after_close",
        Level::Required,
        &[],
        "After close every operation but close, stats, last_lsn and durable_lsn is Closed, with any argument.",
        closed::every_operation_after_close,
    ),
    case(
        "handles::required_kv432_every_operation_after_a_failed_close",
        Level::Required,
        &[Need::SimulatedFs],
        "A close that fails closes, too: no operation works after it, and the directory is free.",
        closed::every_operation_after_a_failed_close,
    ),
    case(
        "handles::required_kv433_close_and_drop_save_everything",
        Level::Required,
        &[Need::SimulatedFs],
        "After a close or the drop of the last handle a power cut takes nothing, under every policy, with and without threads.",
        close_and_drop_save_everything,
    ),
    case(
        "handles::required_kv434_dropping_a_clone_does_nothing",
        Level::Required,
        &[],
        "While one handle of a store lives, dropping the others does nothing; the last one closes, on any thread.",
        dropping_a_clone_does_nothing,
    ),
    case(
        "handles::required_kv435_nothing_of_a_dropped_store_is_left",
        Level::Required,
        &[],
        "After the last handle is dropped the engine holds neither its policy nor its file system nor its clock.",
        nothing_of_a_dropped_store_is_left,
    ),
    case(
        "handles::stochastic_kv436_operations_during_close",
        Level::Stochastic,
        &[Need::SimulatedFs],
        "An operation during close is answered or Closed; each of two concurrent closes returns once everything is durable.",
        closing::operations_during_close,
    ),
    case(
        "handles::required_kv437_borrowed_values_survive_a_close",
        Level::Required,
        &[],
        "A value that a callback reads stays while another thread closes the store.",
        closing::borrowed_values_survive_a_close,
    ),
    case(
        "handles::optional_kv438_idle_operations_after_close",
        Level::Optional,
        &[],
        "After close an empty batch and a read of no key are Closed, too.",
        closed::idle_operations_after_close,
    ),
];

/// How a handle ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Drop,
    DropElsewhere,
}

fn close_and_drop_save_everything(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let mut backgrounds = vec![Background::Threads];
    backgrounds.extend(context.factory().capabilities().inline.then_some(Background::Inline));
    for policy in Policy::ALL {
        for background in &backgrounds {
            for end in [End::Close, End::Drop, End::DropElsewhere] {
                // The last change: one, or many more than one unit holds.
                for count in [1, 60] {
                    let setup = Setup { background: *background, ..Setup::tiny(context, policy) };
                    context.set_doing(format!("{policy:?}, {background:?}, {end:?}, {count} changes"));
                    let mut ops = random_ops(&mut rng, count - 1, 12);
                    ops.push(Op::Put { key: 13, len: 30 });
                    ended(context, setup, end, &ops).map_err(|failure| {
                        failure.with("end", format!("{policy:?}, {background:?}, {end:?}"))
                    })?;
                }
            }
        }
    }
    Ok(())
}

fn ended(context: &Context, setup: Setup, end: End, ops: &[Op]) -> CaseResult {
    let disk = SimFs::new();
    let rig = context.sim_rig(disk.clone(), setup);
    let engine = rig.open()?;
    let mut history = History::default();
    run_ops(&*engine, ops, &mut history)?;
    // A task waits for the newest change, and is forgotten.
    let mut cx = std::task::Context::from_waker(Waker::noop());
    let last = history.last_lsn();
    if ops.len().is_multiple_of(2) && setup.background == Background::Threads {
        let _ = engine.poll_durable(last, &mut cx);
    }
    let mut held = None;
    match end {
        End::Close => {
            engine.close()?;
            held = Some(engine);
        }
        End::Drop => drop(engine),
        End::DropElsewhere => thread::scope(|scope| {
            scope.spawn(|| drop(engine));
        }),
    }
    if let Some(engine) = &held {
        closed::check_lsns(&**engine, last, "after close")?;
    }
    context.explored().crash_state();
    let image = disk.power_cut(PowerCut::LOSE_ALL);
    let again = context.sim_rig(image, setup).open()?;
    let (state, found) = (state_of(&*again)?, again.last_lsn());
    ensure!(
        state == history.state() && found == last,
        "a power cut after the end of the last handle takes changes: the store was at LSN {last}, and is at {found}, with {} of {} keys as they were",
        same_keys(&state, &history.state()),
        history.state().len()
    );
    let next = rig.open().map_err(|error| {
        Failure::new(format!("the end of the last handle frees the directory, but the next open: {error}"))
    })?;
    ensure!(state_of(&*next)? == history.state(), "a store shows another state after the end of its handle");
    Ok(())
}

fn same_keys(found: &State, expected: &State) -> usize {
    expected.iter().filter(|(key, value)| found.get(*key) == Some(value)).count()
}

fn dropping_a_clone_does_nothing(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        let engine = rig.open()?;
        engine.put(b"k", b"1")?;
        for round in 0..3u8 {
            let clone = Arc::clone(&engine);
            if round % 2 == 0 {
                drop(clone);
            } else {
                thread::scope(|scope| {
                    scope.spawn(|| drop(clone));
                });
            }
            let locked = rig.open().map(drop);
            ensure!(
                matches!(locked, Err(Error::Locked { .. })),
                "one of two handles was dropped, and another open is answered with {locked}, not Locked",
                locked = locked.in_words()
            );
            engine.put(b"k", &[round])?;
            ensure!(
                engine.get(b"k")?.as_deref() == Some(&[round][..]),
                "a put after the drop of a clone is lost"
            );
        }
        let lsn = engine.last_lsn();
        thread::spawn(move || drop(engine)).join().map_err(|_| Failure::new("dropping a handle panics"))?;
        let again = rig.open().map_err(|error| {
            Failure::new(format!("a drop on another thread closes the store, but the next open: {error}"))
        })?;
        ensure!(
            again.get(b"k")?.as_deref() == Some(&[2][..]) && again.last_lsn() == lsn,
            "a drop on another thread lost the last change"
        );
    }
    Ok(())
}

/// How long the threads of an engine may take to end after the drop of the last handle.
const PATIENCE: Duration = Duration::from_secs(5);

fn nothing_of_a_dropped_store_is_left(context: &Context) -> CaseResult {
    let policies = [Policy::Manual, Policy::AnyOf, Policy::Always];
    for (policy, closes) in policies.into_iter().flat_map(|policy| [(policy, false), (policy, true)]) {
        let setup = Setup::tiny(context, policy);
        for rig in [context.rig(setup)?, context.real_rig(setup)?] {
            let (env, options) = (rig.env(), rig.setup.options());
            let before = holders(&env, &options);
            for round in 0..3 {
                let engine = context.factory().open(rig.dir(), &env, &options)?;
                let mut history = History::numbered_from(round * 1000);
                run_ops(&*engine, &random_ops(&mut context.rng(), 30, 8), &mut history)?;
                // A second open fails, and must leave nothing behind either.
                let second = context.factory().open(rig.dir(), &env, &options).map(drop);
                ensure!(second.is_err(), "a second open of an open store succeeds");
                if closes {
                    engine.close()?;
                }
                drop(engine);
                let how = if closes { "closed and dropped" } else { "dropped" };
                all_returned(&env, &options, before, how)?;
            }
        }
    }
    Ok(())
}

/// How many handles there are of the policy, the file system and the clock.
fn holders(env: &Env, options: &OpenOptions) -> [usize; 3] {
    [Arc::strong_count(&options.persistence), Arc::strong_count(&env.fs), Arc::strong_count(&env.clock)]
}

/// Waits until the environment and the options of an engine have no more holders than before.
fn all_returned(env: &Env, options: &OpenOptions, before: [usize; 3], how: &str) -> CaseResult {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = holders(env, options);
        let mut held = ["policy", "file system", "clock"].into_iter().zip(now.into_iter().zip(before));
        let Some((what, (now, before))) = held.find(|(_, (now, before))| now > before) else { return Ok(()) };
        if Instant::now() > end {
            fail!(
                "a {how} engine leaves nothing behind, but {} s later something of it holds its {what}: {} handles too many",
                PATIENCE.as_secs(),
                now - before
            );
        }
        thread::sleep(Duration::from_millis(1));
    }
}
