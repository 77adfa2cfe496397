//! The end of a store while an operation of its disk is held: cases of the group `concurrency`.

use super::calls::{patience, start};
use super::stage::{SETTLE, Stage, Way, first_missing, value};
use crate::failure::{ensure, fail};
use crate::rig::{Policy, Setup};
use crate::sim::{OpKind, PowerCut, Stop};
use crate::{CaseResult, Context, Failure};
use kv_core::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn setups(context: &Context) -> [Setup; 2] {
    [Policy::Manual, Policy::Always].map(|policy| Setup::tiny(context, policy))
}

/// A store with changes that are not durable, behind a gate that holds operations of these kinds.
fn begin(context: &Context, setup: Setup, holds: fn(OpKind) -> bool) -> Result<Stage, Failure> {
    let mut stage = Stage::new(context, setup)?;
    for _ in 0..5 {
        stage.join(Way::Visible)?;
    }
    stage.drive(|_, _| Ok(false))?;
    stage.gate.shut(holds);
    Ok(stage)
}

/// Lets a close go on step by step. At each step another open is tried, and another caller puts.
fn close_step_by_step(stage: &mut Stage, puts: usize) -> CaseResult {
    let mut put = 0;
    stage.drive(|stage, stop| {
        look_in(stage, stop)?;
        if put < puts {
            put += 1;
            stage.join(Way::Visible)?;
        }
        Ok(false)
    })?;
    stage.gate.open();
    for promise in stage.promises() {
        match &promise.answer {
            Ok(_) => {}
            Err(Error::Closed) if promise.by != "close" => {}
            Err(other) => fail!("beside a close, {} answers: {other}", promise.by),
        }
    }
    stage.check_promises()?;
    stage.check_all_durable("a close")?;
    let again = stage.context.sim_rig(stage.disk.clone(), stage.setup).open();
    ensure!(again.is_ok(), "after a close the store cannot be opened again: {again:?}");
    Ok(())
}

fn look_in(stage: &Stage, stop: &Stop) -> CaseResult {
    stage.try_to_open(&format!("a close, with an operation {stop},")).map(drop)
}

pub(super) fn a_close_keeps_the_directory(context: &Context) -> CaseResult {
    for setup in setups(context) {
        // The close alone, and a close while a sync of another caller is held.
        for syncs in [0, 1] {
            let mut stage = begin(context, setup, OpKind::is_mutation)?;
            for _ in 0..syncs {
                stage.join(Way::Sync)?;
                // The sync is at work before the close begins: its change needs the disk.
                let _ = stage.gate.stop(patience(context));
            }
            stage.close();
            close_step_by_step(&mut stage, 3)?;
        }
    }
    Ok(())
}

pub(super) fn two_closes_at_once(context: &Context) -> CaseResult {
    for setup in setups(context) {
        let mut stage = begin(context, setup, OpKind::is_sync)?;
        stage.close();
        // The first close is at work. Under `Always` it may have nothing to sync.
        let _ = stage.gate.stop(if setup.policy == Policy::Manual { patience(context) } else { SETTLE });
        stage.close();
        close_step_by_step(&mut stage, 1)?;
    }
    Ok(())
}

pub(super) fn a_drop_during_a_dump(context: &Context) -> CaseResult {
    for policy in [Policy::Periodic, Policy::Manual] {
        let setup = Setup::tiny(context, policy);
        let stage = Stage::new(context, setup)?;
        stage.gate.shut(OpKind::is_sync);
        let keys: Vec<String> = (0..20).map(|number| format!("dropped {number}")).collect();
        let (first, rest) = keys.split_at(10);
        put_all(context, &stage, first)?;
        // Gives a background thread time to begin its dump; the next changes come during it.
        let _ = stage.gate.stop(2 * Policy::INTERVAL);
        put_all(context, &stage, rest)?;
        let _ = stage.gate.stop(2 * Policy::INTERVAL);
        let Stage { engine: last, gate, disk, .. } = stage;
        let theirs = disk.clone();
        let dropping = start(context, "the drop of the last handle", move || {
            drop(last);
            theirs.power_cut(PowerCut::LOSE_ALL)
        });
        let begun = Instant::now();
        let image = loop {
            // A drop that waits for nothing returns now.
            if let Some(image) = dropping.within(SETTLE)? {
                break image;
            }
            if let Some(stop) = gate.stop(Duration::from_millis(1)) {
                gate.release(&stop);
            }
            if begun.elapsed() > patience(context) {
                return Err(dropping.stuck("during a dump"));
            }
        };
        if let Some((key, found)) = first_missing(context, setup, &image, &keys.iter().collect::<Vec<_>>())? {
            fail!("dropping the last handle closes the store, but after a power cut {key:?} {found}");
        }
        gate.open();
        let again = context.sim_rig(disk, setup).open();
        ensure!(again.is_ok(), "after the drop of the last handle the store cannot be opened: {again:?}");
    }
    Ok(())
}

/// Puts keys, and lets held operations go if the engine waits for them.
fn put_all(context: &Context, stage: &Stage, keys: &[String]) -> CaseResult {
    let (engine, keys) = (Arc::clone(&stage.engine), keys.to_vec());
    let putting = start(context, "put", move || {
        keys.iter().try_for_each(|key| engine.put(key.as_bytes(), value(key).as_bytes()).map(drop))
    });
    let begun = Instant::now();
    loop {
        if let Some(answer) = putting.within(Duration::from_millis(1))? {
            return Ok(answer?);
        }
        if let Some(stop) = stage.gate.stop(Duration::ZERO) {
            stage.gate.release(&stop);
        }
        if begun.elapsed() > patience(context) {
            return Err(putting.stuck("while a dump was running"));
        }
    }
}
