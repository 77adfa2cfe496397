//! Calls after a close, and after a failed one: cases of the group `handles`.

use crate::failure::{InWords, ensure};
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::{Fault, FaultKind, Repeat, SimFs};
use crate::workload::{Op, run_op};
use crate::{CaseResult, Context, Failure};
use kv_core::{Batch, Engine, Error, Lsn};
use std::ops::ControlFlow;
use std::task::{Poll, Waker};

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
        answers.push(("window", past.window().err()));
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

pub(super) fn every_operation_after_close(context: &Context) -> CaseResult {
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

pub(super) fn idle_operations_after_close(context: &Context) -> CaseResult {
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
pub(super) fn check_lsns(engine: &dyn Engine, lsn: Lsn, when: &str) -> CaseResult {
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

pub(super) fn every_operation_after_a_failed_close(context: &Context) -> CaseResult {
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
            "the drop of a handle whose close failed took the lock of a newer handle: an open beside it is answered with {locked}",
            locked = locked.in_words()
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
