//! Checkpoints on request: cases of the group `crash`.

use crate::failure::ensure;
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::{PowerCut, SimFs};
use crate::workload::{Op, random_ops, run_op, run_ops};
use crate::{CaseResult, Context, Failure};
use kv_core::{Engine, Lsn};

/// Changes between two checkpoints.
const CHANGES_BETWEEN: usize = 20;

fn checkpoint(engine: &dyn Engine) -> kv_core::Result<Lsn> {
    match engine.as_checkpoint() {
        Some(checkpoint) => checkpoint.checkpoint(),
        None => Err(kv_core::Error::Unsupported("a checkpoint on request")),
    }
}

/// Opens the disk, and checks the state against a history that is durable up to `durable`. Then
/// goes on, closes, and checks again what an open finds.
fn check(context: &Context, disk: &SimFs, setup: Setup, history: &History, durable: Lsn) -> CaseResult {
    context.explored().crash_state();
    let rig = context.sim_rig(disk.clone(), setup);
    let engine = rig.open()?;
    let recovered = state_of(&*engine)?;
    history.as_if_durable(durable).check(&recovered)?;
    // Every second key goes. A deleted one must not come back.
    let keys: Vec<Vec<u8>> = recovered.into_keys().collect();
    for key in keys.iter().step_by(2) {
        engine.delete(key)?;
    }
    engine.close()?;
    let engine = rig.open()?;
    let left: Vec<Vec<u8>> = state_of(&*engine)?.into_keys().collect();
    let expected: Vec<_> = keys.iter().skip(1).step_by(2).cloned().collect();
    ensure!(left == expected, "after deletes, a close and an open the keys are {left:?}, not {expected:?}");
    Ok(())
}

/// A store with a checkpoint and changes behind it.
fn prepared(
    context: &Context,
    setup: Setup,
    ops: &[Op],
) -> Result<(SimFs, std::sync::Arc<dyn Engine>, History), Failure> {
    let disk = SimFs::new();
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    let mut history = History::default();
    for part in ops.chunks(CHANGES_BETWEEN) {
        checkpoint(&*engine)?;
        run_ops(&*engine, part, &mut history)?;
    }
    Ok((disk, engine, history))
}

pub(super) fn changes_are_durable(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for policy in Policy::ALL {
        let setup = Setup::tiny(context, policy);
        let count = usize::try_from(context.scaled(100)).unwrap_or(100);
        let disk = SimFs::new();
        let engine = context.sim_rig(disk.clone(), setup).open()?;
        let mut history = History::default();
        for (number, op) in random_ops(&mut rng, count, 12).iter().enumerate() {
            run_op(&*engine, op, &mut history)?;
            if number % 9 != 0 {
                continue;
            }
            let (last, lsn) = (engine.last_lsn(), checkpoint(&*engine)?);
            let durable = engine.durable_lsn();
            ensure!(
                lsn >= last && durable >= lsn,
                "a checkpoint at LSN {last} says {lsn}, and changes up to {durable} are durable"
            );
            for cut in [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL] {
                check(context, &disk.power_cut(cut), setup, &history, lsn).map_err(|failure| {
                    failure.with("policy", format!("{policy:?}")).with("where", format!("operation {number}"))
                })?;
            }
        }
    }
    Ok(())
}

pub(super) fn a_crash_at_every_operation(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for policy in [Policy::Manual, Policy::MaxLogSize(300)] {
        let setup = Setup::tiny(context, policy);
        let ops = random_ops(&mut rng, 4 * CHANGES_BETWEEN, 12);
        let (disk, engine, _) = prepared(context, setup, &ops)?;
        let before = disk.mutations();
        checkpoint(&*engine)?;
        let operations = disk.mutations() - before;
        drop(engine);
        for operation in 0..=operations {
            let (disk, engine, history) = prepared(context, setup, &ops)?;
            let durable = engine.durable_lsn();
            disk.cut_after(disk.mutations() + operation);
            // The disk refuses everything behind the cut.
            let _cut = checkpoint(&*engine);
            for (name, crash) in [
                ("nothing unsynced is kept", disk.power_cut(PowerCut::LOSE_ALL)),
                ("everything is kept", disk.power_cut(PowerCut::KEEP_ALL)),
                ("a part is kept", disk.power_cut(PowerCut::seeded(operation))),
                ("the process died", disk.process_death()),
            ] {
                check(context, &crash, setup, &history, durable).map_err(|failure| {
                    let at = format!("operation {operation} of a checkpoint, {name}");
                    failure.with("policy", format!("{policy:?}")).with("where", at)
                })?;
            }
        }
    }
    Ok(())
}
