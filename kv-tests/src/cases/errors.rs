use super::case;
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::scenario::{Run, Scenario, Trouble, judge};
use crate::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use crate::workload::{Op, random_ops, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SIMULATED: &[Need] = &[Need::SimulatedFs, Need::Inline];

pub(crate) const CASES: &[Case] = &[
    case(
        "errors::required_kv601_every_operation_fails_once",
        Level::Required,
        SIMULATED,
        "Any disk operation that fails once gives a typed error, right reads, and a prefix after reopening.",
        |context| every_operation_fails(context, FaultKind::MutationIo, Repeat::Once),
    ),
    case(
        "errors::required_kv602_every_operation_fails_for_good",
        Level::Required,
        SIMULATED,
        "From any disk operation on, lasting failures give a typed error, right reads, and a prefix after reopening.",
        |context| every_operation_fails(context, FaultKind::MutationIo, Repeat::Always),
    ),
    case(
        "errors::required_kv603_failed_sync_poisons",
        Level::Required,
        SIMULATED,
        "The engine reports a failed sync and is poisoned; no later sync makes up for it.",
        |context| every_operation_fails(context, FaultKind::Sync, Repeat::Once),
    ),
    case(
        "errors::required_kv604_disk_full",
        Level::Required,
        SIMULATED,
        "A full disk is DiskFull: a failed write that poisons, or no change at all, and the store goes on once there is space.",
        |context| every_operation_fails(context, FaultKind::DiskFull, Repeat::Always),
    ),
    case(
        "errors::required_kv605_short_transfers_and_interruptions",
        Level::Required,
        SIMULATED,
        "Short transfers and interruptions are invisible.",
        short_transfers_and_interruptions,
    ),
    case(
        "errors::required_kv606_failed_open_does_no_harm",
        Level::Required,
        &[Need::SimulatedFs],
        "An open that meets EIO at any disk operation reports it, loses nothing, and holds no lock.",
        failed_open_does_no_harm,
    ),
    case(
        "errors::required_kv607_poisoned_store_reads_and_closes",
        Level::Required,
        &[Need::SimulatedFs],
        "A poisoned store still reports its durable LSN, answers close with Poisoned, and frees its directory.",
        poisoned_store_reads_and_closes,
    ),
    case(
        "errors::optional_kv608_a_panic_loses_nothing",
        Level::Optional,
        SIMULATED,
        "After a panic in any disk operation, every change that the engine reports as durable is durable.",
        a_panic_loses_nothing,
    ),
    case(
        "errors::required_kv609_read_errors",
        Level::Required,
        SIMULATED,
        "Any read that fails while a store is used gives a typed error or the right answer, and nothing is lost.",
        |context| {
            every_operation_fails(context, FaultKind::ReadIo, Repeat::Once)?;
            every_operation_fails(context, FaultKind::ReadIo, Repeat::Always)
        },
    ),
    case(
        "errors::required_kv610_failed_recovery_does_no_harm",
        Level::Required,
        SIMULATED,
        "Any disk operation that fails during a recovery gives a typed error, and the next open recovers.",
        failed_recovery_does_no_harm,
    ),
    case(
        "errors::required_kv611_a_failed_close_fails_again",
        Level::Required,
        &[Need::SimulatedFs],
        "A close that failed fails again, and one that succeeded succeeds again.",
        a_failed_close_fails_again,
    ),
    case(
        "errors::required_kv612_the_failure_is_told_where_it_happens",
        Level::Required,
        SIMULATED,
        "The call that meets a failure returns it, and a poisoned store names it as its cause.",
        the_failure_is_told_where_it_happens,
    ),
];

pub(super) fn every_operation_fails(context: &Context, kind: FaultKind, repeat: Repeat) -> CaseResult {
    // Only a run that fills several files opens some in the middle of its work.
    let count = if kind == FaultKind::NoDescriptors { 150 } else { 60 };
    for policy in [Policy::Always, Policy::MaxLogSize(300), Policy::WriteThenSync] {
        let mut ops = random_ops(&mut context.rng(), count, 8);
        ops.insert(40, Op::Reopen);
        for nth in 0.. {
            let fault = Fault { kind, nth, repeat };
            let scenario = Scenario { policy, ops: ops.clone(), trouble: Trouble::Fault(fault) };
            match scenario.check_fault(context, fault) {
                Ok(0) => break,
                Ok(fired) => context.explored().add_faults(fired),
                Err(failure) => return Err(scenario.report(context, failure)),
            }
        }
    }
    ensure!(context.explored().faults() > 3, "the harness is broken: hardly any fault fired");
    Ok(())
}

fn short_transfers_and_interruptions(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for kind in [FaultKind::ShortTransfer, FaultKind::Interrupted] {
        let setup = Setup::tiny(context, Policy::MaxLogSize(300));
        let disk = SimFs::new();
        disk.inject(Fault { kind, nth: 0, repeat: Repeat::Alternate });
        let rig = context.sim_rig(disk.clone(), setup);
        let mut history = History::default();
        for _ in 0..3 {
            let engine = rig.open()?;
            if state_of(&*engine)? != history.state() {
                fail!("{kind:?} changes the recovered state");
            }
            run_ops(&*engine, &random_ops(&mut rng, 100, 8), &mut history)?;
            engine.close()?;
        }
        ensure!(disk.faults_fired() > 5, "the harness is broken: hardly any fault fired");
        context.explored().add_faults(disk.faults_fired());
    }
    Ok(())
}

fn failed_open_does_no_harm(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    let stored = SimFs::new();
    let mut history = History::default();
    let engine = context.sim_rig(stored.clone(), setup).open()?;
    run_ops(&*engine, &random_ops(&mut context.rng(), 80, 8), &mut history)?;
    engine.close()?;
    drop(engine);
    for nth in 0.. {
        let disk = stored.process_death();
        disk.inject(Fault { kind: FaultKind::AnyIo, nth, repeat: Repeat::Once });
        let rig = context.sim_rig(disk.clone(), setup);
        let opened = rig.open();
        let fired = disk.faults_fired();
        context.explored().add_faults(fired);
        disk.heal();
        if let Err(error) = &opened {
            ensure!(matches!(error, Error::Io { .. }), "EIO while opening is answered with: {error}");
        }
        drop(opened);
        let struck = disk.ops().get(usize::try_from(nth).unwrap_or(usize::MAX)).map(ToString::to_string);
        let at = struck.unwrap_or_else(|| "nowhere".to_owned());
        let engine = rig.open().map_err(|error| {
            Failure::new(format!("after an open failed at {at}, the next one works, but: {error}"))
        })?;
        ensure!(state_of(&*engine)? == history.state(), "an open that failed at {at} changed the store");
        if fired == 0 {
            break;
        }
    }
    ensure!(context.explored().faults() > 0, "the harness is broken: no fault fired");
    Ok(())
}

fn poisoned_store_reads_and_closes(context: &Context) -> CaseResult {
    let disk = SimFs::new();
    let rig = context.sim_rig(disk.clone(), Setup::tiny(context, Policy::Manual));
    let engine = rig.open()?;
    let durable = engine.put(b"k", b"durable")?;
    engine.sync()?;
    // An engine may dump earlier than the policy demands: then the put meets the fault.
    disk.inject(Fault { kind: FaultKind::Sync, nth: 0, repeat: Repeat::Once });
    let put = engine.put(b"k", b"visible");
    let first = put.clone().and_then(|_| engine.sync());
    ensure!(disk.faults_fired() == 1, "a sync with something to do changes the disk");
    context.explored().add_faults(1);
    ensure!(
        matches!(first, Err(Error::Io { .. })),
        "the sync that meets EIO is answered with {first}",
        first = first.in_words()
    );
    engine.wait_durable(durable)?;
    let beyond = engine.wait_durable(engine.last_lsn());
    ensure!(
        matches!(beyond, Err(Error::Poisoned { .. })) || engine.last_lsn() == durable,
        "waiting on a poisoned store is answered with {beyond}",
        beyond = beyond.in_words()
    );
    ensure!(engine.durable_lsn() == durable, "durable_lsn stands still on a poisoned store");
    let found = engine.get(b"k")?;
    ensure!(
        found.as_deref() == Some(b"visible".as_slice())
            || (put.is_err() && found.as_deref() == Some(b"durable".as_slice())),
        "a poisoned store reads the visible value, not {found:?}"
    );
    let closed = engine.close();
    ensure!(
        matches!(closed, Err(Error::Poisoned { .. })),
        "closing a poisoned store is answered with {closed}",
        closed = closed.in_words()
    );
    let read = engine.get(b"k");
    ensure!(
        matches!(read, Err(Error::Closed)),
        "a read after that is answered with {read}",
        read = read.in_words()
    );
    // The first handle is still alive: its close freed the directory.
    let again = rig.open()?;
    again.put(b"k", b"recovered")?;
    again.sync()?;
    Ok(())
}

/// A bug panics inside the engine, and the caller continues. The engine must remember the
/// operations that it did not complete.
fn a_panic_loses_nothing(context: &Context) -> CaseResult {
    for policy in [Policy::Always, Policy::MaxLogSize(300)] {
        let setup = Setup::tiny(context, policy);
        let ops = random_ops(&mut context.rng(), 60, 8);
        for nth in 0.. {
            let disk = SimFs::new();
            disk.inject(Fault { kind: FaultKind::Panic, nth, repeat: Repeat::Once });
            let mut history = History::default();
            if let Ok(Ok(engine)) =
                catch_unwind(AssertUnwindSafe(|| context.sim_rig(disk.clone(), setup).open()))
            {
                let _ = catch_unwind(AssertUnwindSafe(|| run_ops(&*engine, &ops, &mut history)));
                if let Ok(Ok(lsn)) = catch_unwind(AssertUnwindSafe(|| engine.sync())) {
                    history.told_durable(lsn);
                }
                history.told_durable(engine.durable_lsn());
                let _ = catch_unwind(AssertUnwindSafe(|| drop(engine)));
            }
            if disk.faults_fired() == 0 {
                break;
            }
            context.explored().add_faults(1);
            let image = disk.power_cut(PowerCut::LOSE_ALL);
            judge(context, setup, &image, &history).map_err(|failure| {
                failure
                    .with("policy", format!("{policy:?}"))
                    .with("panic", format!("at change {nth} to the disk"))
                    .with("operations", ops.iter().map(Op::describe).collect::<Vec<_>>().join("\n"))
                    .with("kept", image.kept().join("\n"))
                    .with_image(disk.power_cut(PowerCut::LOSE_ALL))
            })?;
        }
    }
    ensure!(context.explored().faults() > 20, "the harness is broken: hardly any fault fired");
    Ok(())
}

fn failed_recovery_does_no_harm(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let policy = Policy::MaxLogSize(300);
    let setup = Setup::tiny(context, policy);
    for round in 0..context.scaled(12) {
        let ops = random_ops(&mut rng, 40, 8);
        let Some(run) = Run::until_cut(context, setup, &ops, rng.u64(2..60)) else { continue };
        let cut = context.power_cut(round);
        let repeat = if round % 2 == 0 { Repeat::Once } else { Repeat::Always };
        for nth in 0.. {
            let image = run.disk.power_cut(cut);
            image.inject(Fault { kind: FaultKind::AnyIo, nth, repeat });
            let opened = context.sim_rig(image.clone(), setup).open();
            let fired = image.faults_fired();
            image.heal();
            if let Err(error) = &opened {
                ensure!(matches!(error, Error::Io { .. }), "EIO during recovery is answered with: {error}");
            }
            drop(opened);
            judge(context, setup, &image.process_death(), &run.history).map_err(|failure| {
                failure
                    .with("fault", format!("operation {nth} of the recovery, {repeat:?}"))
                    .with("operations", ops.iter().map(Op::describe).collect::<Vec<_>>().join("\n"))
                    .with("kept", run.disk.power_cut(cut).kept().join("\n"))
                    .with_image(run.disk.power_cut(cut))
            })?;
            if fired == 0 {
                break;
            }
            context.explored().add_faults(fired);
        }
    }
    ensure!(context.explored().faults() > 20, "the harness is broken: hardly any fault fired");
    Ok(())
}

fn a_failed_close_fails_again(context: &Context) -> CaseResult {
    for poisoned_before in [false, true] {
        let disk = SimFs::new();
        let rig = context.sim_rig(disk.clone(), Setup::tiny(context, Policy::Manual));
        let engine = rig.open()?;
        engine.put(b"k", b"v")?;
        disk.inject(Fault { kind: FaultKind::Sync, nth: 0, repeat: Repeat::Once });
        if poisoned_before {
            let synced = engine.sync();
            ensure!(
                synced.is_err(),
                "a sync that meets EIO is answered with {synced}",
                synced = synced.in_words()
            );
        }
        let first = engine.close();
        ensure!(disk.faults_fired() == 1, "making a change durable syncs the disk");
        context.explored().add_faults(1);
        ensure!(first.is_err(), "a close that meets EIO, or comes after one, is answered with Ok");
        disk.heal();
        for _ in 0..2 {
            let again = engine.close();
            ensure!(again.is_err(), "a close that failed with {first:?} is answered with Ok the next time");
        }
        // The failed close has freed the directory.
        let second = rig.open()?;
        second.close()?;
        disk.inject(Fault { kind: FaultKind::AnyIo, nth: 0, repeat: Repeat::Always });
        let again = second.close();
        ensure!(
            again.is_ok(),
            "a close that succeeded is answered with {again} the next time",
            again = again.in_words()
        );
    }
    Ok(())
}

/// A late or different error leads its reader to the wrong place.
fn the_failure_is_told_where_it_happens(context: &Context) -> CaseResult {
    let kinds = [FaultKind::MutationIo, FaultKind::Sync, FaultKind::DiskFull, FaultKind::NoDescriptors];
    for (policy, kind) in
        [Policy::Always, Policy::MaxLogSize(300)].into_iter().flat_map(|p| kinds.map(|kind| (p, kind)))
    {
        let setup = Setup::tiny(context, policy);
        let ops = random_ops(&mut context.rng(), 80, 8);
        for (nth, repeat) in (0..).flat_map(|nth| [(nth, Repeat::Once), (nth, Repeat::Always)]) {
            let fault = Fault { kind, nth, repeat };
            let disk = SimFs::new();
            disk.inject(fault);
            let Run { engine, error, .. } = Run::on(context, disk.clone(), setup, &ops);
            let fired = disk.faults_fired();
            let told = |violated: String| {
                let scenario = Scenario { policy, ops: ops.clone(), trouble: Trouble::Fault(fault) };
                Failure::new(violated).with("scenario", scenario.to_string())
            };
            if let Some(Error::Poisoned { cause }) = &error {
                return Err(told(format!("no call returned the failure that poisoned the store: {cause}")));
            }
            disk.heal();
            if let Some(engine) = engine
                && let Err(Error::Poisoned { cause }) = engine.sync()
            {
                let returned = error.map_or_else(|| "nothing".to_owned(), |error| error.to_string());
                if returned != cause.to_string() {
                    return Err(told(format!(
                        "{cause} poisoned the store, but the call returned {returned}"
                    )));
                }
            }
            if fired == 0 {
                break;
            }
            context.explored().add_faults(fired);
        }
    }
    ensure!(context.explored().faults() > 20, "the harness is broken: hardly any fault fired");
    Ok(())
}
