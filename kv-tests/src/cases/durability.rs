use super::{case, futures, gated};
use crate::failure::ensure;
use crate::recorder::{Recorder, hold_for};
use crate::rig::{Policy, Setup};
use crate::{Case, CaseResult, Context, Level, Need};
use kv_core::{Action, Background, Decision, OpenOptions, Pending};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    case(
        "durability::required_kv801_always_is_durable_on_return",
        Level::Required,
        &[],
        "Under Always a change is durable when its call returns.",
        always_is_durable_on_return,
    ),
    case(
        "durability::required_kv802_sync_covers_what_was_visible",
        Level::Required,
        &[],
        "sync and wait_durable return once every change visible before is durable.",
        sync_covers_what_was_visible,
    ),
    case(
        "durability::optional_kv803_manual_waits_for_the_caller",
        Level::Optional,
        &[Need::Inline],
        "Under Manual a small change does not become durable by itself.",
        manual_waits_for_the_caller,
    ),
    case(
        "durability::required_kv806_periodic_dumps_by_itself",
        Level::Required,
        &[],
        "Under Periodic a change becomes durable without any further call.",
        periodic_dumps_by_itself,
    ),
    case(
        "durability::required_kv807_a_policy_may_become_impatient",
        Level::Required,
        &[],
        "When a later change makes the policy ask for an earlier check, the engine checks earlier.",
        a_policy_may_become_impatient,
    ),
    case(
        "durability::required_kv808_a_future_waits_for_durability",
        Level::Required,
        &[],
        "Under every policy a future is ready when its LSN is durable, without any further call.",
        futures::a_future_waits_for_durability,
    ),
    case(
        "durability::required_kv809_futures_share_syncs",
        Level::Required,
        &[Need::SimulatedFs],
        "Futures that wait at the same time share syncs.",
        futures::futures_share_syncs,
    ),
    case(
        "durability::required_kv810_a_failing_disk_ends_every_future",
        Level::Required,
        &[Need::SimulatedFs],
        "After a failed sync every future that waits for it ends with an error.",
        futures::a_failing_disk_ends_every_future,
    ),
    case(
        "durability::required_kv811_a_dropped_future_leaves_nothing",
        Level::Required,
        &[],
        "Repeated polls and dropped futures do not make the engine's memory grow.",
        futures::a_dropped_future_leaves_nothing,
    ),
    case(
        "durability::stochastic_kv812_futures_among_threads",
        Level::Stochastic,
        &[],
        "Futures and threads that wait for durability all end, each with its LSN durable.",
        futures::futures_among_threads,
    ),
    case(
        "durability::required_kv813_a_waker_may_hold_the_last_handle",
        Level::Required,
        &[],
        "A waker may hold the last handle of the store; dropping the waker closes the store.",
        futures::a_waker_may_hold_the_last_handle,
    ),
    case(
        "durability::required_kv816_a_caller_joins_a_sync",
        Level::Required,
        &[Need::SimulatedFs],
        "A caller that joins while a sync is running returns only when its own change is durable.",
        gated::a_caller_joins_a_sync,
    ),
    case(
        "durability::required_kv817_a_change_comes_during_a_dump",
        Level::Required,
        &[Need::SimulatedFs],
        "A change during a dump counts as durable only when a sync has covered it.",
        gated::a_change_comes_during_a_dump,
    ),
    case(
        "durability::required_kv818_a_failed_sync_ends_every_call",
        Level::Required,
        &[Need::SimulatedFs],
        "When a sync fails, every call that waits returns: with the failure, or Ok if its change is durable.",
        gated::a_failed_sync_ends_every_call,
    ),
];

fn always_is_durable_on_return(context: &Context) -> CaseResult {
    for rig in [
        context.rig(Setup::tiny(context, Policy::Always))?,
        context.real_rig(Setup::tiny(context, Policy::Always))?,
    ] {
        let engine = rig.open()?;
        for number in 0..60u8 {
            let lsn = engine.put(&[number % 7], &[number; 50])?;
            ensure!(
                engine.durable_lsn() >= lsn,
                "put returned with LSN {lsn}, durable is {}",
                engine.durable_lsn()
            );
            if let Some(lsn) = engine.delete(&[number % 5])? {
                ensure!(engine.durable_lsn() >= lsn, "delete returned before it was durable");
            }
        }
    }
    Ok(())
}

fn sync_covers_what_was_visible(context: &Context) -> CaseResult {
    for policy in Policy::ALL {
        let rig = context.rig(Setup::tiny(context, policy))?;
        let engine = rig.open()?;
        for number in 0..40u8 {
            let lsn = engine.put(&[number], &[number; 70])?;
            if number % 3 == 0 {
                let reached = engine.sync()?;
                ensure!(reached >= lsn, "sync after LSN {lsn} reached only {reached}");
            } else {
                engine.wait_durable(lsn)?;
            }
            ensure!(
                engine.durable_lsn() >= lsn,
                "durable_lsn does not show the LSN that just became durable"
            );
        }
    }
    Ok(())
}

fn manual_waits_for_the_caller(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    let before = engine.durable_lsn();
    engine.put(b"k", b"v")?;
    ensure!(engine.durable_lsn() == before, "one small change became durable under Manual");
    Ok(())
}

fn periodic_dumps_by_itself(context: &Context) -> CaseResult {
    let setup = Setup { background: Background::Threads, ..Setup::tiny(context, Policy::Periodic) };
    let rig = context.real_rig(setup)?;
    let engine = rig.open()?;
    // A watchdog against a deadlock, not a limit on speed.
    let patience = context.settings().timeout.min(Duration::from_mins(1)) / 2;
    for number in 0..3u8 {
        let lsn = engine.put(b"k", &[number])?;
        let start = Instant::now();
        while engine.durable_lsn() < lsn {
            ensure!(
                start.elapsed() < patience,
                "after {} s, LSN {lsn} is still not durable",
                patience.as_secs()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Waits an hour until a hundred bytes are pending, and then an interval from the first question
/// about them.
fn impatient() -> impl FnMut(&Pending) -> Decision {
    let mut due = None;
    move |pending| {
        if pending.bytes < 100 {
            return hold_for(Duration::from_hours(1));
        }
        let now = Instant::now();
        let due = *due.get_or_insert(now + Policy::INTERVAL);
        if now < due { hold_for(due - now) } else { Decision::now(Action::WriteAndSync) }
    }
}

fn a_policy_may_become_impatient(context: &Context) -> CaseResult {
    let setup = Setup { background: Background::Threads, ..Setup::tiny(context, Policy::Manual) };
    let rig = context.real_rig(setup)?;
    let policy = Arc::new(Recorder::new(impatient()));
    let engine = rig.open_with(&OpenOptions { persistence: policy, ..setup.options() })?;
    let patience = context.settings().timeout.min(Duration::from_mins(1)) / 2;
    engine.put(b"first", b"v")?;
    // Gives the engine time to fall asleep. The case is valid without that, too.
    std::thread::sleep(2 * Policy::INTERVAL);
    // One change only. Of several, the engine could dump some before the last ones arrive, and the
    // rest would be below the policy's limit.
    let lsn = engine.put(b"second", &[2; 200])?;
    let start = Instant::now();
    while engine.durable_lsn() < lsn {
        ensure!(
            start.elapsed() < patience,
            "the policy wants to be asked after {:?}, but {} s later LSN {lsn} is still not durable",
            Policy::INTERVAL,
            patience.as_secs()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
