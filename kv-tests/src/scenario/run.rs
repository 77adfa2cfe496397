use crate::oracle::{History, state_of};
use crate::rig::Setup;
use crate::sim::{PowerCut, SimFs};
use crate::workload::{Op, run_op};
use crate::{CaseResult, Context, Failure, failure::ensure};
use kv_core::{Engine, EngineExt, Error, Lsn};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The result of running operations.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) disk: SimFs,
    pub(crate) history: History,
    /// The durable LSNs that the engine told after each operation.
    pub(crate) told: BTreeSet<Lsn>,
    /// `None` after a failed open.
    pub(crate) engine: Option<Arc<dyn Engine>>,
    pub(crate) error: Option<Error>,
}

impl Run {
    /// Runs `ops` on `disk` until one fails.
    pub(crate) fn on(context: &Context, disk: SimFs, setup: Setup, ops: &[Op]) -> Self {
        let (history, told) = Default::default();
        let mut run = Run { disk: disk.clone(), history, told, engine: None, error: None };
        let rig = context.sim_rig(disk, setup);
        match rig.open() {
            Ok(engine) => run.engine = Some(engine),
            Err(error) => run.error = Some(error),
        }
        for op in ops {
            let Some(engine) = &run.engine else { break };
            let result = if *op == Op::Reopen {
                let closed = engine.close();
                run.history.told_durable(engine.durable_lsn());
                if closed.is_ok() {
                    run.history.told_durable(run.history.last_lsn());
                }
                run.engine = None;
                closed.and_then(|()| rig.open()).map(|engine| run.engine = Some(engine))
            } else {
                run_op(&**engine, op, &mut run.history).inspect(|()| {
                    // An engine need not report every failure: the process is dead by then.
                    if context.hands_over(setup) && !run.disk.has_stopped() {
                        run.history.told_written();
                    }
                })
            };
            if let Some(engine) = &run.engine {
                run.told.insert(engine.durable_lsn());
            }
            if let Err(error) = result {
                run.error = Some(error);
                break;
            }
        }
        if let Some(engine) = &run.engine {
            run.history.told_durable(engine.durable_lsn());
        }
        run
    }

    /// Runs `ops` on a disk that loses power after `cut` changes, then closes the store. `None`
    /// when the whole run, its close included, makes fewer changes.
    pub(crate) fn until_cut(context: &Context, setup: Setup, ops: &[Op], cut: u64) -> Option<Self> {
        let disk = SimFs::new();
        disk.cut_after(cut);
        let mut run = Run::on(context, disk, setup, ops);
        // Dropping the last handle closes the store; the close cannot report an error.
        run.engine = None;
        run.disk.has_lost_power().then_some(run)
    }
}

/// Recovers from `image` and judges the recovered state; then uses the store, and opens it once
/// more.
pub(crate) fn judge(context: &Context, setup: Setup, image: &SimFs, history: &History) -> CaseResult {
    context.explored().crash_state();
    let rig = context.sim_rig(image.clone(), setup);
    let in_recovery = |error: Error| Failure::new(format!("an engine recovers from a crash, but: {error}"));
    let engine = rig.open().map_err(in_recovery)?;
    let state = state_of(&*engine)?;
    history.check(&state)?;
    history.check_last_lsn(&state, engine.last_lsn())?;
    ensure!(
        engine.durable_lsn() == engine.last_lsn(),
        "recovered changes are durable, but durable_lsn is {} and last_lsn {}",
        engine.durable_lsn(),
        engine.last_lsn()
    );
    let lsn = engine.put_durable(b"new", b"value")?;
    ensure!(
        lsn > history.last_lsn(),
        "LSN {lsn} is used again: the engine gave out {} before",
        history.last_lsn()
    );
    // A crash, not a close: the second recovery has work to do, too.
    let after = image.power_cut(PowerCut::LOSE_ALL);
    drop(engine);
    let again = context.sim_rig(after, setup).open().map_err(in_recovery)?;
    let found = state_of(&*again)?;
    let mut expected = state;
    ensure!(
        expected == found || found.contains_key(b"new".as_slice()),
        "a change that wait_durable made durable survives, but after the next power cut a put of LSN {lsn} is gone"
    );
    expected.insert(b"new".to_vec(), b"value".to_vec());
    ensure!(found == expected, "the second recovery gives another state than the first");
    Ok(())
}
