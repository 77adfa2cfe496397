use super::{Crash, Run, judge, left_by};
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::{Fault, FaultKind, PowerCut, SimFs};
use crate::workload::{Op, run_op};
use crate::{CaseResult, Context, Failure, failure::InWords, failure::ensure};
use kv_core::{Engine, Error};

/// Operations, and one disturbance of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) policy: Policy,
    pub(crate) ops: Vec<Op>,
    pub(crate) trouble: Trouble,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The first crash happens during the operations, each further one during the recovery from the
    /// one before.
    Crashes(Vec<Crash>),
    /// Disk operations fail. The scenario uses the store on, and then opens it again.
    Fault(Fault),
}

impl Scenario {
    pub(crate) fn setup(&self, context: &Context) -> Setup {
        Setup::tiny(context, self.policy)
    }

    /// Runs and judges the scenario. Returns whether its crash or fault happened.
    pub(crate) fn check(&self, context: &Context) -> Result<bool, Failure> {
        match &self.trouble {
            Trouble::Crashes(crashes) => match self.crashed(context) {
                Some((image, history)) => {
                    judge(context, self.setup(context), &image, &left_by(crashes, &history)).map(|()| true)
                }
                None => Ok(false),
            },
            Trouble::Fault(fault) => self.check_fault(context, *fault).map(|fired| fired > 0),
        }
    }

    /// The disk after the last crash, and the history. `None` if one of the crashes does not
    /// happen.
    pub(super) fn crashed(&self, context: &Context) -> Option<(SimFs, History)> {
        let Trouble::Crashes(crashes) = &self.trouble else { return None };
        let (first, further) = crashes.split_first()?;
        let setup = self.setup(context);
        let run = Run::until_cut(context, setup, &self.ops, first.after)?;
        let mut image = first.left.image(&run.disk);
        for crash in further {
            image.cut_after(crash.after);
            drop(context.sim_rig(image.clone(), setup).open());
            if !image.has_lost_power() {
                return None;
            }
            image = crash.left.image(&image);
        }
        Some((image, run.history))
    }

    /// Runs the operations on a disk with a fault, and judges the engine. Returns how often the
    /// fault struck.
    pub(crate) fn check_fault(&self, context: &Context, fault: Fault) -> Result<u64, Failure> {
        let setup = self.setup(context);
        let typed = |error: &Error| match fault.kind {
            kind if kind.is_disk_full() => {
                matches!(error, Error::DiskFull { .. } | Error::Poisoned { .. })
            }
            _ => matches!(error, Error::Io { .. } | Error::Poisoned { .. }),
        };
        let disk = SimFs::new();
        disk.inject(fault);
        let Run { mut history, engine, error, .. } = Run::on(context, disk.clone(), setup, &self.ops);
        let mut fired = disk.faults_fired();
        if let Some(error) = error {
            ensure!(typed(&error), "a failure of the disk is answered with: {error}");
            match engine.as_deref() {
                Some(engine) if fault.kind.may_be_refused() => {
                    disk.heal();
                    if matches!(engine.sync(), Err(Error::Poisoned { .. })) {
                        check_poisoned(engine, &history)?;
                    } else {
                        check_going_on(engine, &mut history, &self.ops)?;
                    }
                }
                Some(engine) if fault.kind != FaultKind::ReadIo => check_poisoned(engine, &history)?,
                _ => {}
            }
        }
        // The close makes changes durable, or fails if the fault strikes it.
        let closed = engine.map(|engine| {
            let closed = engine.close();
            history.told_durable(engine.durable_lsn());
            closed
        });
        fired = fired.max(disk.faults_fired());
        if fired == 0 {
            return Ok(0);
        }
        if let Some(Err(error)) = closed {
            ensure!(typed(&error), "closing on a failing disk is answered with: {error}");
        }
        for cut in [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL, PowerCut::seeded(fired + disk.mutations())] {
            let image = disk.power_cut(cut);
            judge(context, setup, &image, &history).map_err(|failure| {
                failure.with("kept", image.kept().join("\n")).with_image(disk.power_cut(cut))
            })?;
        }
        // Without a reboot the next process reads all written bytes, synced or not. Everything that
        // it then reports as durable must be durable.
        disk.heal();
        let reopened = |check: &dyn Fn(&SimFs) -> CaseResult| {
            check(&disk.process_death()).map_err(|failure| {
                failure
                    .with("where", "opened again without a reboot: reads show bytes that no sync saved")
                    .with_image(disk.process_death())
            })
        };
        reopened(&|image| judge(context, setup, image, &history.after_death()))?;
        reopened(&|image| check_recovered_is_durable(context, setup, image))?;
        Ok(fired)
    }
}

/// Checks that a power cut right after an open takes no change that the open reported as durable.
fn check_recovered_is_durable(context: &Context, setup: Setup, image: &SimFs) -> CaseResult {
    let engine = context.sim_rig(image.clone(), setup).open()?;
    let (state, durable, last) = (state_of(&*engine)?, engine.durable_lsn(), engine.last_lsn());
    let again = context.sim_rig(image.power_cut(PowerCut::LOSE_ALL), setup).open()?;
    ensure!(
        durable < last || state_of(&*again)? == state,
        "a power cut right after an open took changes that the open reported as durable"
    );
    Ok(())
}

/// Checks a poisoned engine: it reads on, refuses changes, and its durable LSN stays.
fn check_poisoned(engine: &dyn Engine, history: &History) -> CaseResult {
    let visible = state_of(engine)?;
    history
        .check_visible(&visible)
        .map_err(|failure| failure.with("where", "reading on after the failure"))?;
    let durable = engine.durable_lsn();
    let present = visible.keys().next();
    let deleted = present.map(|key| engine.delete(key).err());
    for answer in
        [Some(engine.put(b"after", b"x").err()), deleted, Some(engine.sync().err())].into_iter().flatten()
    {
        ensure!(
            matches!(answer, Some(Error::Poisoned { .. })),
            "after a failed write or sync a change or sync is answered with {answer}, not Poisoned",
            answer = answer.in_words()
        );
    }
    ensure!(engine.durable_lsn() == durable, "durable_lsn moved after a failure");
    Ok(())
}

/// Checks an engine that refused a call without being poisoned: the call changed nothing, and the
/// engine accepts changes once the reason for the refusal is gone.
fn check_going_on(engine: &dyn Engine, history: &mut History, ops: &[Op]) -> CaseResult {
    history.refuse();
    history
        .check_visible(&state_of(engine)?)
        .map_err(|failure| failure.with("where", "after a change that was refused"))?;
    let stays_open = |op: &&Op| **op != Op::Reopen;
    for op in ops.iter().filter(stays_open).chain(&[Op::Sync]) {
        run_op(engine, op, history).map_err(|error| {
            Failure::new(format!(
                "once the reason for a refusal is gone, an engine that is not poisoned accepts changes, but: {error}"
            ))
        })?;
    }
    Ok(())
}
