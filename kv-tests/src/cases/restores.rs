//! Restores of past states.

use super::moments::{Kept, long_ops, past_of, reached};
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{State, state_of};
use crate::rig::{Keeps, Policy, Rig, Setup};
use crate::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use crate::{CaseResult, Context, Failure};
use kv_core::fs::FsExt;
use kv_core::{Engine, Error, Lsn, OpenOptions, Target};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory beside the store.
fn beside(rig: &Rig, name: &str) -> PathBuf {
    rig.dir().with_file_name(name)
}

/// Opens the store at `dir`, which must exist.
fn open_existing(context: &Context, rig: &Rig, dir: &Path) -> kv_core::Result<Arc<dyn Engine>> {
    let options = OpenOptions { create_if_missing: false, ..rig.setup.options() };
    context.factory().open(dir, &rig.env(), &options)
}

pub(super) fn a_restore_is_a_store(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let mut kept = Kept::new(context, Policy::MaxLogSize(300), Keeps::All)?;
    for op in long_ops(&mut rng, 60) {
        kept.run(&op)?;
    }
    let before = state_of(&*kept.engine)?;
    for (number, (lsn, state)) in kept.history.states().into_iter().enumerate().step_by(5) {
        let (target, into) = (Target::Lsn(lsn), beside(&kept.rig, &format!("restored{number}")));
        let planned = kept.past()?.plan(&target)?;
        let moment = kept.past()?.restore(&target, &into)?;
        let expected = reached(&kept.past()?.reach()?, lsn);
        ensure!(moment.lsn == expected, "a restore of LSN {lsn} reaches {moment:?}, not LSN {expected}");
        let state = if expected == lsn { state } else { kept.state_at(expected) };
        ensure!(planned.moment == moment, "a plan said {:?}, the restore reached {moment:?}", planned.moment);
        let engine = open_existing(context, &kept.rig, &into)?;
        let found = state_of(&*engine)?;
        ensure!(found == state, "a restore of LSN {lsn} has another state");
        let last = engine.last_lsn();
        ensure!(last <= expected, "a restore of LSN {lsn} is at LSN {last}");
        let new = engine.put(b"new", b"value")?;
        ensure!(new > expected, "a restore of LSN {lsn} gives out LSN {new}");
        engine.close()?;
        let refused = kept.past()?.restore(&target, &into);
        ensure!(
            matches!(refused, Err(Error::InvalidArgument(_))),
            "a restore into a store is answered with {}, not InvalidArgument",
            refused.in_words()
        );
        let engine = open_existing(context, &kept.rig, &into)?;
        ensure!(engine.get(b"new")?.is_some(), "a change of a restored store is gone");
    }
    ensure!(state_of(&*kept.engine)? == before, "a restore changed its source");
    kept.check_every_lsn(Lsn::ZERO)
}

/// A store on a simulated disk, the LSN to restore, and the state there.
fn source(context: &Context) -> Result<(SimFs, Setup, Lsn, State), Failure> {
    let (disk, setup) = (SimFs::new(), Setup { keeps: Keeps::All, ..Setup::tiny(context, Policy::Always) });
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    for number in 0..40_u8 {
        engine.put(&[number % 7], &[number; 60])?;
    }
    let (lsn, state) = (engine.last_lsn(), state_of(&*engine)?);
    for number in 0..40_u8 {
        engine.put(&[number % 5], &[number; 50])?;
    }
    engine.close()?;
    Ok((disk, setup, lsn, state))
}

pub(super) fn a_failed_restore_leaves_no_store(context: &Context) -> CaseResult {
    let (image, setup, lsn, state) = source(context)?;
    let target = Target::Lsn(lsn);
    let judge = |disk: SimFs, answered: bool, after: &str| -> CaseResult {
        let rig = context.sim_rig(disk, setup);
        let into = beside(&rig, "into");
        match open_existing(context, &rig, &into) {
            Ok(engine) => {
                ensure!(state_of(&*engine)? == state, "{after}, a part of a restore passes for a store");
            }
            Err(error) if answered => fail!("{after}, a finished restore does not open: {error}"),
            Err(_) => {}
        }
        let source = rig.open()?;
        let found = state_of(&*past_of(&*source)?.read_at(&target)?.engine)?;
        ensure!(found == state, "{after}, the source of a restore has lost a state");
        Ok(())
    };
    for cut in 0.. {
        let disk = image.process_death();
        let rig = context.sim_rig(disk.clone(), setup);
        let engine = rig.open()?;
        disk.cut_after(cut);
        let answer = past_of(&*engine)?.restore(&target, &beside(&rig, "into"));
        let has_ended = disk.has_lost_power();
        disk.freeze();
        for draw in [0, 1, cut + 2] {
            context.explored().crash_state();
            let left = disk.power_cut(context.power_cut(draw));
            judge(left, answer.is_ok(), &format!("after a power cut at operation {cut}"))?;
        }
        if !has_ended {
            break;
        }
    }
    for kind in [FaultKind::DiskFull, FaultKind::MutationIo, FaultKind::Sync] {
        for nth in 0.. {
            let disk = image.process_death();
            let rig = context.sim_rig(disk.clone(), setup);
            let engine = rig.open()?;
            let fired = disk.faults_fired();
            disk.inject(Fault { kind, nth, repeat: Repeat::Always });
            let answer = past_of(&*engine)?.restore(&target, &beside(&rig, "into"));
            let has_fired = disk.faults_fired() > fired;
            context.explored().add_faults(u64::from(has_fired));
            disk.heal();
            ensure!(answer.is_ok() || has_fired, "without a fault, a restore is answered with {answer:?}");
            // What the restore could not write is none of the source's business.
            let lsn = engine.put(b"new", b"value")?;
            engine.wait_durable(lsn)?;
            drop(engine);
            let after = format!("after {kind:?} at operation {nth}");
            judge(disk.power_cut(PowerCut::KEEP_ALL), answer.is_ok(), &after)?;
            // A directory that a failed restore leaves may be used again, or is refused.
            if answer.is_err()
                && rig.fs().list_if_exists(&beside(&rig, "into"))?.is_none_or(|names| names.is_empty())
            {
                let engine = rig.open()?;
                past_of(&*engine)?.restore(&target, &beside(&rig, "into"))?;
            }
            if !has_fired {
                break;
            }
        }
    }
    Ok(())
}
