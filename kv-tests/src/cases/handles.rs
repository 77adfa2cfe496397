//! Handles of a store: calls after a close and after a failed one, the changes that a close and
//! a drop save, and the resources that a handle holds.

use super::case;
use crate::failure::{ensure, fail};
use crate::oracle::{History, State, state_of};
use crate::rig::{Policy, Rig, Setup};
use crate::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use crate::workload::{Op, random_ops, run_op, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::{Background, Batch, Engine, Env, Error, Lsn, OpenOptions};
use std::ops::ControlFlow;
use std::sync::{Arc, Barrier};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    case(
        "handles::required_kv431_every_operation_after_close",
        Level::Required,
        &[],
        "After close every operation but close, stats, last_lsn and durable_lsn is Closed, with any argument.",
        every_operation_after_close,
    ),
    case(
        "handles::required_kv432_every_operation_after_a_failed_close",
        Level::Required,
        &[Need::SimulatedFs],
        "A close that fails closes, too: no operation works after it, and the directory is free.",
        every_operation_after_a_failed_close,
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
        operations_during_close,
    ),
    case(
        "handles::required_kv437_borrowed_values_survive_a_close",
        Level::Required,
        &[],
        "A value that a callback reads stays while another thread closes the store.",
        borrowed_values_survive_a_close,
    ),
    case(
        "handles::optional_kv438_idle_operations_after_close",
        Level::Optional,
        &[],
        "After close an empty batch and a read of no key are Closed, too.",
        idle_operations_after_close,
    ),
];

/// An operation, and its error.
type Answer = (&'static str, Option<Error>);

/// The answers to every operation that a closed engine refuses. `lsn` is one that it gave out.
fn answers(engine: &dyn Engine, lsn: Lsn) -> Vec<Answer> {
    let (mut put, mut idle) = (Batch::new(), Batch::new());
    put.put(b"a", b"b");
    idle.delete(b"absent");
    let mut cx = std::task::Context::from_waker(Waker::noop());
    let mut poll = |lsn| match engine.poll_durable(lsn, &mut cx) {
        Poll::Ready(answer) => answer.err(),
        Poll::Pending => None,
    };
    let goes_on = &mut |_: &[u8], _: &[u8]| ControlFlow::Continue(());
    let mut answers = vec![
        ("poll_durable of a durable LSN", poll(lsn)),
        ("poll_durable of LSN 0", poll(Lsn::ZERO)),
        ("put", engine.put(b"k", b"v").err()),
        ("put of an empty key and value", engine.put(b"", b"").err()),
        ("delete", engine.delete(b"k").err()),
        ("delete of an absent key", engine.delete(b"absent").err()),
        ("apply", engine.apply(&put).err()),
        ("apply of a delete of an absent key", engine.apply(&idle).err()),
        ("sync", engine.sync().err()),
        ("wait_durable of a durable LSN", engine.wait_durable(lsn).err()),
        ("wait_durable of LSN 0", engine.wait_durable(Lsn::ZERO).err()),
    ];
    answers.extend([
        ("get", engine.get(b"k").err()),
        ("get of an absent key", engine.get(b"absent").err()),
        ("read", engine.read(b"k", &mut |_| ()).err()),
        ("read of an absent key", engine.read(b"absent", &mut |_| ()).err()),
        ("read_many", engine.read_many(&[b"k", b"absent"], &mut |_, _| ()).err()),
        ("scan", engine.scan(goes_on).err()),
    ]);
    if let Some(compact) = engine.as_compact() {
        answers.push(("compact", compact.compact().err()));
    }
    if let Some(checkpoint) = engine.as_checkpoint() {
        answers.push(("checkpoint", checkpoint.checkpoint().err()));
    }
    if let Some(past) = engine.as_point_in_time() {
        answers.push(("recovery_window", past.recovery_window().err()));
    }
    answers
}

/// The answers to operations with keys and values over the limit.
fn answers_to_too_large(engine: &dyn Engine) -> Vec<Answer> {
    let key = vec![7; kv_core::Limits::default().key_len_max + 1];
    let mut batch = Batch::new();
    batch.put(&key, b"v");
    vec![
        ("put of a long key", engine.put(&key, b"v").err()),
        ("delete of a long key", engine.delete(&key).err()),
        ("apply of a long key", engine.apply(&batch).err()),
        ("get of a long key", engine.get(&key).err()),
        ("read of a long key", engine.read(&key, &mut |_| ()).err()),
        ("read_many of a long key", engine.read_many(&[&key], &mut |_, _| ()).err()),
    ]
}

/// The text of an error, or that there is none.
fn told(error: Option<&Error>) -> String {
    error.map_or_else(|| "success".to_owned(), |error| format!("\"{error}\""))
}

fn every_operation_after_close(context: &Context) -> CaseResult {
    for policy in Policy::ALL {
        let setup = Setup::tiny(context, policy);
        for rig in [context.rig(setup)?, context.real_rig(setup)?] {
            let engine = rig.open()?;
            engine.put(b"old", b"v")?;
            engine.sync()?;
            let lsn = engine.put(b"k", b"v")?;
            for round in 0..2 {
                engine.close()?;
                closed_for_all(&*engine, lsn, &format!("{policy:?}, after close {}", round + 1))?;
            }
            // The closed handle lives on beside an open one, and stays closed.
            let second = rig.open()?;
            closed_for_all(&*engine, lsn, &format!("{policy:?}, beside a newer handle"))?;
            ensure!(
                second.get(b"k")?.as_deref() == Some(b"v".as_slice()) && second.last_lsn() == lsn,
                "an operation of a closed handle changed the store"
            );
        }
    }
    Ok(())
}

fn idle_operations_after_close(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    engine.put(b"k", b"v")?;
    engine.close()?;
    for (name, error) in [
        ("apply of an empty batch", engine.apply(&Batch::new()).err()),
        ("read_many of no key", engine.read_many(&[], &mut |_, _| ()).err()),
    ] {
        ensure!(
            matches!(error, Some(Error::Closed)),
            "after close {name} is answered with {}, not Closed",
            told(error.as_ref())
        );
    }
    Ok(())
}

/// Checks that a closed engine refuses everything, and keeps its LSNs.
fn closed_for_all(engine: &dyn Engine, lsn: Lsn, when: &str) -> CaseResult {
    for (name, error) in answers(engine, lsn) {
        ensure!(
            matches!(error, Some(Error::Closed)),
            "{when}: {name} is answered with {}, not Closed",
            told(error.as_ref())
        );
    }
    for (name, error) in answers_to_too_large(engine) {
        ensure!(
            matches!(error, Some(Error::Closed | Error::TooLarge { .. })),
            "{when}: {name} is answered with {}, not Closed or TooLarge",
            told(error.as_ref())
        );
    }
    let beyond = engine.wait_durable(Lsn::new(lsn.get() + 1)).err();
    ensure!(
        matches!(beyond, Some(Error::Closed | Error::InvalidArgument(_))),
        "{when}: wait_durable of an LSN that was never given out is answered with {}",
        told(beyond.as_ref())
    );
    check_lsns(engine, lsn, when)
}

/// Checks the operations that work after close.
fn check_lsns(engine: &dyn Engine, lsn: Lsn, when: &str) -> CaseResult {
    let stats = engine.stats();
    for (name, found) in [
        ("last_lsn", engine.last_lsn()),
        ("durable_lsn", engine.durable_lsn()),
        ("last_lsn in stats", stats.last_lsn),
        ("durable_lsn in stats", stats.durable_lsn),
    ] {
        ensure!(found == lsn, "{when}: the store was closed at LSN {lsn}, but its {name} is {found}");
    }
    Ok(())
}

fn every_operation_after_a_failed_close(context: &Context) -> CaseResult {
    for (kind, policy) in [FaultKind::Sync, FaultKind::MutationIo]
        .into_iter()
        .flat_map(|kind| [Policy::Manual, Policy::MaxLogSize(300)].map(|policy| (kind, policy)))
    {
        let disk = SimFs::new();
        let rig = context.sim_rig(disk.clone(), Setup::tiny(context, policy));
        let engine = rig.open()?;
        let mut history = History::default();
        run_op(&*engine, &Op::Put { key: 1, len: 9 }, &mut history)?;
        let durable = engine.sync()?;
        history.told_durable(durable);
        run_op(&*engine, &Op::Put { key: 2, len: 9 }, &mut history)?;
        disk.inject(Fault { kind, nth: 0, repeat: Repeat::Always });
        let closed = engine.close();
        context.explored().add_faults(disk.faults_fired());
        disk.heal();
        if closed.is_ok() {
            // Everything was durable before.
            continue;
        }
        refused_after_failure(&*engine, durable)?;
        let again = engine.close();
        ensure!(again.is_err(), "a close failed, but the next one succeeds");
        let fresh = rig.open().map_err(|error| {
            Failure::new(format!("a close that fails releases the directory, but the next open: {error}"))
        })?;
        history.check(&state_of(&*fresh)?)?;
        fresh.put(b"new", b"v")?;
        let _ = engine.close();
        drop(engine);
        let locked = rig.open().map(drop);
        ensure!(
            matches!(locked, Err(Error::Locked { .. })),
            "the drop of a handle whose close failed took the lock of a newer handle: an open beside it is answered with {locked:?}"
        );
        fresh.close()?;
    }
    ensure!(context.explored().faults() > 0, "the harness is broken: no fault fired");
    Ok(())
}

/// Checks an engine whose close failed. The answer to a change may name the failure.
fn refused_after_failure(engine: &dyn Engine, durable: Lsn) -> CaseResult {
    let mut all = answers(engine, durable);
    all.extend(answers_to_too_large(engine));
    for (name, error) in all {
        let is_read = ["get", "read", "scan"].iter().any(|read| name.starts_with(read));
        let refused = match &error {
            Some(Error::Closed) => true,
            Some(Error::Poisoned { .. }) => !is_read,
            Some(Error::TooLarge { .. }) => name.contains("long key"),
            _ => false,
        };
        ensure!(refused, "after a close that failed {name} is answered with {}", told(error.as_ref()));
    }
    let (stats, last) = (engine.stats(), engine.last_lsn());
    ensure!(
        engine.durable_lsn() >= durable && engine.durable_lsn() < last && stats.last_lsn == last,
        "a close failed with the change of LSN {last} not durable, but then last_lsn is {last} in the engine and {} in stats, durable_lsn {}",
        stats.last_lsn,
        engine.durable_lsn()
    );
    Ok(())
}

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
        check_lsns(&**engine, last, "after close")?;
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
                "one of two handles was dropped, and another open is answered with {locked:?}, not Locked"
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

fn operations_during_close(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for round in 0..context.scaled(16) {
        let policy = rng.choice(Policy::ALL).unwrap_or(Policy::Manual);
        let setup = Setup { background: Background::Threads, ..Setup::tiny(context, policy) };
        let disk = SimFs::new();
        let rig = context.sim_rig(disk.clone(), setup);
        closed_at_work(context, &rig, &disk, Duration::from_micros(rng.u64(0..3000)))
            .map_err(|failure| failure.with("round", format!("{round}, {policy:?}")))?;
    }
    Ok(())
}

/// Writers, readers, and two threads that close.
fn closed_at_work(context: &Context, rig: &Rig, disk: &SimFs, wait: Duration) -> CaseResult {
    const WRITERS: u8 = 2;
    let engine = rig.open()?;
    let (engine, both) = (&*engine, &Barrier::new(2));
    let (written, images) = thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|key| scope.spawn(move || write_until_closed(engine, key))).collect();
        let others = [
            scope.spawn(|| until_closed("sync", || engine.sync().map(drop))),
            scope.spawn(|| until_closed("scan", || engine.scan(&mut |_, _| ControlFlow::Continue(())))),
            scope.spawn(|| until_closed("wait_durable", || engine.wait_durable(engine.last_lsn()))),
            scope.spawn(|| {
                until_closed("compact", || {
                    let _ = engine.stats();
                    engine
                        .as_compact()
                        .map_or_else(|| engine.get(b"k").map(drop), |compact| compact.compact().map(drop))
                })
            }),
        ];
        thread::sleep(wait);
        let closers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    both.wait();
                    engine.close().map(|()| disk.power_cut(PowerCut::LOSE_ALL))
                })
            })
            .collect();
        let images: Result<Vec<SimFs>, Failure> = closers
            .into_iter()
            .map(|closer| closer.join().map_err(|_| Failure::new("close panics"))?.map_err(Failure::from))
            .collect();
        let mut written = Vec::new();
        for writer in writers {
            written.push(writer.join().map_err(|_| Failure::new("put panics during close"))??);
        }
        for other in others {
            other.join().map_err(|_| Failure::new("an operation panics during close"))??;
        }
        Ok::<_, Failure>((written, images?))
    })?;
    for image in images {
        context.explored().crash_state();
        let again = context.sim_rig(image, rig.setup).open()?;
        for (key, number) in written.iter().enumerate() {
            let key = u8::try_from(key).unwrap_or_default();
            let found =
                again.get(&[key])?.and_then(|value| value.first_chunk().map(|n| u64::from_le_bytes(*n)));
            ensure!(
                // The last put may have been answered with Closed, and be there all the same.
                [*number, number + 1].contains(&found.unwrap_or(0)),
                "a close returned, and a power cut right after it takes changes: of key {key} put {number} was answered, and {found:?} is left"
            );
        }
    }
    Ok(())
}

/// Puts 1, 2, 3 … under `key`; returns the last number that the engine took.
fn write_until_closed(engine: &dyn Engine, key: u8) -> Result<u64, Failure> {
    for number in 1u64.. {
        match engine.put(&[key], &number.to_le_bytes()) {
            Ok(_) => {}
            Err(Error::Closed) => return Ok(number - 1),
            Err(error) => fail!("a put during close is answered with \"{error}\", not Closed"),
        }
    }
    Ok(0)
}

fn until_closed(name: &str, operation: impl Fn() -> kv_core::Result<()>) -> CaseResult {
    loop {
        match operation() {
            Ok(()) => thread::yield_now(),
            Err(Error::Closed) => return Ok(()),
            Err(error) => fail!("a {name} during close is answered with \"{error}\", not Closed"),
        }
    }
}

fn borrowed_values_survive_a_close(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        let engine = rig.open()?;
        for key in 0..20u8 {
            engine.put(&[key], &[key; 150])?;
        }
        let changed = thread::scope(|scope| {
            let (mut closer, mut changed, mut visited) = (None, None, 0);
            let scanned = engine.scan(&mut |key, value| {
                let before = value.to_vec();
                visited += 1;
                if closer.is_none() {
                    closer = Some(scope.spawn(|| engine.close()));
                    // The close may wait for this callback, or free what it reads.
                    thread::sleep(Duration::from_millis(30));
                }
                if value != before || key.first().is_none_or(|key| before != [*key; 150]) {
                    changed = Some(key.to_vec());
                }
                ControlFlow::Continue(())
            });
            if !matches!(scanned, Ok(()) | Err(Error::Closed)) {
                fail!("a scan during close is answered with {scanned:?}, not Closed");
            }
            ensure!(
                scanned.is_err() || visited == 20,
                "a scan succeeds while another thread closes the store, but visits {visited} of 20 keys"
            );
            match closer.map(thread::ScopedJoinHandle::join) {
                Some(Ok(answer)) => answer?,
                _ => fail!("a scan visits no key, or close panics"),
            }
            Ok::<_, Failure>(changed)
        })?;
        ensure!(
            changed.is_none(),
            "another thread closed the store, and the value of key {changed:?} changed under the callback"
        );
    }
    Ok(())
}
