//! Limits on the loss by a crash: cases of the group `crash`.

use crate::failure::ensure;
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::scenario::judge;
use crate::sim::{PowerCut, SimFs};
use crate::workload::{Op, random_ops, run_op, run_ops};
use crate::{CaseResult, Context};
use kv_core::Lsn;
use std::time::Duration;

pub(super) fn loss_stays_within_the_window(context: &Context) -> CaseResult {
    let limit = 300u64;
    let setup = Setup::tiny(context, Policy::MaxLogSize(limit));
    let disk = SimFs::new();
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    let mut history = History::default();
    for number in 0..200u8 {
        run_op(&*engine, &Op::Put { key: number % 9, len: 20 }, &mut history)?;
        let image = disk.power_cut(PowerCut::LOSE_ALL);
        let recovered = state_of(&*context.sim_rig(image, setup).open()?)?;
        context.explored().crash_state();
        history.check(&recovered)?;
        // The sizes of keys and values only: an engine's overhead may only make it dump earlier.
        let lost = history.lost(&recovered).map_or(u64::MAX, |changes| 21 * changes as u64);
        ensure!(lost < limit, "{lost} bytes are lost under a policy that promises fewer than {limit}");
    }
    Ok(())
}

pub(super) fn periodic_keeps_its_window(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Periodic);
    let disk = SimFs::new();
    let rig = context.sim_rig(disk.clone(), setup);
    let engine = rig.open()?;
    let mut rng = context.rng();
    let mut now = Duration::ZERO;
    let (mut history, mut times) = (History::default(), Vec::new());
    for _ in 0..context.scaled(100) {
        let step = Policy::INTERVAL * rng.u32(0..8) / 4;
        rig.advance(step);
        now += step;
        run_op(&*engine, &Op::Put { key: rng.u8(0..9), len: 8 }, &mut history)?;
        times.push(now);
        let recovered = state_of(&*context.sim_rig(disk.power_cut(PowerCut::LOSE_ALL), setup).open()?)?;
        context.explored().crash_state();
        history.check(&recovered)?;
        let kept = times.len() - history.lost(&recovered).unwrap_or(times.len());
        let oldest_lost = times.get(kept).copied().unwrap_or(now);
        ensure!(
            now.saturating_sub(oldest_lost) < Policy::INTERVAL,
            "after a change at {now:?} a power cut takes one visible since {oldest_lost:?}, under Periodic({:?})",
            Policy::INTERVAL
        );
    }
    Ok(())
}

pub(super) fn durable_survives_power_cut(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for policy in Policy::ALL {
        let setup = Setup::tiny(context, policy);
        for round in 0..context.scaled(20) {
            let disk = SimFs::new();
            let engine = context.sim_rig(disk.clone(), setup).open()?;
            let mut history = History::default();
            run_ops(&*engine, &random_ops(&mut rng, 30, 8), &mut history)?;
            history.told_durable(engine.sync()?);
            run_ops(&*engine, &random_ops(&mut rng, 10, 8), &mut history)?;
            engine.wait_durable(history.last_lsn())?;
            history.told_durable(history.last_lsn());
            let image = disk.power_cut(context.power_cut(round));
            judge(context, setup, &image, &history).map_err(|failure| {
                failure.with("policy", format!("{policy:?}")).with("kept", image.kept().join("\n"))
            })?;
        }
    }
    Ok(())
}

pub(super) fn closed_is_durable(context: &Context) -> CaseResult {
    for policy in Policy::ALL {
        for by_drop in [false, true] {
            let setup = Setup::tiny(context, policy);
            let disk = SimFs::new();
            let engine = context.sim_rig(disk.clone(), setup).open()?;
            let mut history = History::default();
            run_ops(&*engine, &random_ops(&mut context.rng(), 60, 8), &mut history)?;
            if !by_drop {
                engine.close()?;
            }
            drop(engine);
            history.told_durable(history.last_lsn());
            let image = disk.power_cut(PowerCut::LOSE_ALL);
            judge(context, setup, &image, &history).map_err(|failure| {
                let how = if by_drop { "dropped" } else { "closed" };
                failure.with("policy", format!("{policy:?}, {how}")).with("kept", image.kept().join("\n"))
            })?;
        }
    }
    Ok(())
}

pub(super) fn lsns_are_never_reused(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for _ in 0..context.scaled(20) {
        let policy = rng.choice(Policy::ALL).unwrap_or(Policy::Manual);
        let setup = Setup::tiny(context, policy);
        let (mut disk, mut newest) = (SimFs::new(), Lsn::ZERO);
        for round in 0..8 {
            let ops = random_ops(&mut rng, 20, 6);
            context.set_doing(format!("round {round} under {policy:?}: {ops:?}"));
            disk.cut_after(rng.u64(0..60));
            let mut history = History::default();
            if let Ok(engine) = context.sim_rig(disk.clone(), setup).open() {
                let _ = run_ops(&*engine, &ops, &mut history);
            }
            history.check_order()?;
            if let Some(first) = history.first_lsn() {
                ensure!(
                    first > newest,
                    "round {round} under {policy:?}: LSN {first} is used again, {newest} was given out before"
                );
                newest = history.last_lsn();
            }
            context.explored().crash_state();
            disk = disk.power_cut(PowerCut::seeded(rng.u64(..4)));
        }
    }
    Ok(())
}
