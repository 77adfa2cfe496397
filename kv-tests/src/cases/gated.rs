//! Promises of durability while a sync is held: cases of the group `durability`.

use super::stage::{Stage, Way};
use crate::failure::{InWords, ensure, fail};
use crate::rig::{Policy, Setup};
use crate::sim::{Edge, OpKind};
use crate::{CaseResult, Context, Failure};
use kv_core::Error;

/// Callers that join while syncs are held.
const JOINERS: usize = 5;

/// One caller begins; at each stop of a sync another one joins.
fn join_at_each_stop(context: &Context, setup: Setup, ways: &[Way]) -> CaseResult {
    let mut stage = Stage::new(context, setup)?;
    for _ in 0..3 {
        stage.join(*ways.first().unwrap_or(&Way::Sync))?;
    }
    stage.drive(|_, _| Ok(false))?;
    stage.gate.shut(OpKind::is_sync);
    let mut ways = ways.iter().cycle();
    let mut joined = 0;
    stage.join(*ways.next().unwrap_or(&Way::Sync))?;
    stage.drive(|stage, _| {
        stage.ask()?;
        if joined < JOINERS {
            joined += 1;
            stage.join(*ways.next().unwrap_or(&Way::Sync))?;
        }
        Ok(false)
    })?;
    stage.gate.open();
    for promise in stage.promises() {
        promise.answer.clone()?;
    }
    stage.check_promises().map_err(|failure| failure.with("policy", format!("{setup:?}")))
}

pub(super) fn a_caller_joins_a_sync(context: &Context) -> CaseResult {
    for way in [Way::Sync, Way::WaitDurable, Way::PollDurable] {
        join_at_each_stop(context, Setup::tiny(context, Policy::Manual), &[way])?;
    }
    let mixed = [Way::PollDurable, Way::Sync, Way::WaitDurable];
    join_at_each_stop(context, Setup::tiny(context, Policy::Manual), &mixed)
}

pub(super) fn a_change_comes_during_a_dump(context: &Context) -> CaseResult {
    join_at_each_stop(context, Setup::tiny(context, Policy::Always), &[Way::Put])?;
    join_at_each_stop(context, Setup::tiny(context, Policy::Periodic), &[Way::Watch])?;
    join_at_each_stop(context, Setup::tiny(context, Policy::Periodic), &[Way::Watch, Way::Sync])
}

/// The sync number `nth` after the gate was shut fails while callers join. Returns whether there
/// was one.
fn fail_at(context: &Context, setup: Setup, ways: &[Way], nth: usize) -> Result<bool, Failure> {
    let mut stage = Stage::new(context, setup)?;
    let mut ways = ways.iter().copied().cycle();
    let mut next = || ways.next().unwrap_or(Way::Sync);
    stage.join(next())?;
    stage.drive(|_, _| Ok(false))?;
    stage.gate.shut(OpKind::is_sync);
    let (mut joined, mut syncs, mut failed) = (0, 0, None);
    stage.join(next())?;
    stage.drive(|stage, stop| {
        if joined < 3 {
            joined += 1;
            stage.join(next())?;
        }
        let fails = stop.edge == Edge::Before && syncs == nth;
        syncs += usize::from(stop.edge == Edge::Before);
        if fails {
            failed = Some(stop.to_string());
        }
        Ok(fails)
    })?;
    stage.gate.open();
    let Some(failed) = failed else { return Ok(false) };
    let about =
        |failure: Failure| failure.with("failed", failed.clone()).with("policy", format!("{setup:?}"));
    check_failure(&stage).map_err(about)?;
    Ok(true)
}

/// Checks the answers after a failed sync, and the engine after them.
fn check_failure(stage: &Stage) -> CaseResult {
    stage.check_promises()?;
    let mut told = 0;
    for promise in stage.promises() {
        match &promise.answer {
            Ok(_) => {}
            Err(Error::Io { .. } | Error::Poisoned { .. }) => told += 1,
            Err(other) => fail!("a sync failed, and {} answers: {other}", promise.by),
        }
    }
    // A failed sync may belong to a file that the engine prepares.
    if told == 0 {
        return Ok(());
    }
    let engine = &stage.engine;
    let durable = engine.durable_lsn();
    for (call, answer) in [("put", engine.put(b"late", b"v")), ("sync", engine.sync())] {
        ensure!(
            matches!(answer, Err(Error::Poisoned { .. })),
            "a sync failed and a caller was told, but a later {call} answers {answer} instead of Poisoned",
            answer = answer.in_words()
        );
    }
    let now = engine.durable_lsn();
    ensure!(now == durable, "on a poisoned engine durable_lsn moved from {durable} to {now}");
    ensure!(engine.close().is_err(), "close of a poisoned engine answers Ok");
    stage.check_promises_now()
}

pub(super) fn a_failed_sync_ends_every_call(context: &Context) -> CaseResult {
    let callers: [&[Way]; 4] = [
        &[Way::Sync, Way::WaitDurable, Way::PollDurable],
        &[Way::WaitDurable, Way::PollDurable, Way::Sync],
        &[Way::PollDurable, Way::Sync, Way::WaitDurable],
        &[Way::Put],
    ];
    for ways in callers {
        let policy = if *ways == [Way::Put] { Policy::Always } else { Policy::Manual };
        for nth in 0..4 {
            if !fail_at(context, Setup::tiny(context, policy), ways, nth)? {
                break;
            }
        }
    }
    Ok(())
}
