use super::case;
use crate::failure::ensure;
use crate::rig::{Policy, Setup};
use crate::{Case, CaseResult, Context, Level, Need};
use kv_core::Background;
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
        "Under Manual little becomes durable by itself.",
        manual_waits_for_the_caller,
    ),
    case(
        "durability::required_kv806_periodic_dumps_by_itself",
        Level::Required,
        &[],
        "Under Periodic a change becomes durable without any further call.",
        periodic_dumps_by_itself,
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
            ensure!(engine.durable_lsn() >= lsn, "durable_lsn does not show what was just made durable");
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
    // A watchdog against a deadlock, not a demand on speed.
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
