//! Promises that follow from a policy's answers: cases of the group `policy`.

use crate::failure::ensure;
use crate::modelled::Modelled;
use crate::recorder::{Recorder, hold_for};
use crate::rig::{Policy, Setup};
use crate::sim::{PowerCut, SimFs};
use crate::{CaseResult, Context};
use kv_core::{
    Acknowledge, Action, AnyOf, Background, Batch, Decision, Lsn, MaxLogSize, OpenOptions, Periodic,
    PersistencePolicy, Scale,
};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn when_durable_waits_whatever_is_decided(context: &Context) -> CaseResult {
    let named = hold_for(Duration::from_hours(1));
    for answer in [Decision::now(Action::Hold), Decision::now(Action::Write), named] {
        for background in [context.quiet_background(), Background::Threads] {
            let setup = Setup { background, ..Setup::tiny(context, Policy::Manual) };
            let recorder = Recorder::new(move |_| answer).acknowledging(Acknowledge::WhenDurable);
            let rig = context.rig(setup)?;
            let engine =
                rig.open_with(&OpenOptions { persistence: Arc::new(recorder), ..setup.options() })?;
            let check = |what: &str, lsn: Lsn| -> CaseResult {
                let durable = engine.durable_lsn();
                ensure!(
                    durable >= lsn,
                    "under WhenDurable a {what} is durable when its call returns, but its LSN is {lsn} and durable_lsn {durable}; the policy answers {:?}, {background:?}",
                    answer.action
                );
                Ok(())
            };
            for number in 0..6u8 {
                check("put", engine.put(&[number], &[number; 40])?)?;
                check("batch", engine.apply(&batch(&[(b"a", Some(&[number])), (b"b", Some(b""))]))?)?;
                if let Some(lsn) = engine.delete(&[number])? {
                    check("delete", lsn)?;
                }
            }
        }
    }
    if context.factory().capabilities().simulated_fs {
        check_after_cuts(context)?;
    }
    Ok(())
}

/// Under `WhenDurable` and `Hold` the worst power cut takes no answered change.
fn check_after_cuts(context: &Context) -> CaseResult {
    for background in [context.quiet_background(), Background::Threads] {
        let (disk, setup) = (SimFs::new(), Setup { background, ..Setup::tiny(context, Policy::Manual) });
        let recorder = Recorder::always(Action::Hold).acknowledging(Acknowledge::WhenDurable);
        let rig = context.sim_rig(disk.clone(), setup);
        let engine = rig.open_with(&OpenOptions { persistence: Arc::new(recorder), ..setup.options() })?;
        let found = |key: &[u8]| -> std::result::Result<_, crate::Failure> {
            context.explored().crash_state();
            let image = disk.power_cut(PowerCut::LOSE_ALL);
            Ok(context.sim_rig(image, Setup::tiny(context, Policy::Manual)).open()?.get(key)?)
        };
        for number in 0..4u8 {
            engine.put(b"k", &[number])?;
            let put = found(b"k")?;
            ensure!(put.as_deref() == Some(&[number][..]), "a power cut takes a put that was answered");
            engine.apply(&batch(&[(b"a", None), (b"b", Some(&[number]))]))?;
            let put = found(b"b")?;
            ensure!(put.as_deref() == Some(&[number][..]), "a power cut takes a batch that was answered");
            engine.delete(b"k")?;
            ensure!(found(b"k")?.is_none(), "a power cut takes a delete that was answered");
        }
    }
    Ok(())
}

/// A store under the policy that `inner` decides like.
fn under(
    context: &Context,
    inner: impl PersistencePolicy + 'static,
) -> std::result::Result<Modelled, crate::Failure> {
    Modelled::open(context, Scale::Normal, Recorder::new(move |pending| inner.decide(pending)))
}

pub(super) fn limits_are_met_exactly(context: &Context) -> CaseResult {
    limits_of_bytes(context)?;
    limits_of_age(context)
}

/// The engine may dump earlier, and the rest is then below the limit. So the case checks after each
/// change that the rest is.
fn limits_of_bytes(context: &Context) -> CaseResult {
    const LIMIT: u64 = 300;
    const KEY: usize = 60;
    let size = || MaxLogSize::new(LIMIT);
    let any = || AnyOf::new(vec![Box::new(Periodic::new(Duration::from_hours(1))), Box::new(size())]);
    for round in 0..2 {
        let mut store = if round == 0 { under(context, size()) } else { under(context, any()) }?;
        let below = |store: &Modelled, how: &str| -> CaseResult {
            let bytes = store.pending_bytes();
            ensure!(
                bytes < LIMIT,
                "{how} reach the {LIMIT} bytes of MaxLogSize, but {bytes} B of keys and values are not durable when the call returns"
            );
            Ok(())
        };
        store.put(&[1; KEY], &[1; 240])?;
        below(&store, "a key of 60 B and a value of 240 B")?;
        for value in 0..3 {
            store.put(b"k", &[value; 99])?;
            below(&store, "three puts of 100 B to one key")?;
        }
        for key in 0..5 {
            store.put(&[key; KEY], &[0; 240])?;
        }
        for key in 0..5 {
            store.delete(&[key; KEY])?;
            below(&store, "five deletes of 60 B")?;
        }
        store.apply(&batch(&[(&[1; KEY], Some(&[0; 90])), (&[2; KEY], Some(&[0; 90]))]))?;
        below(&store, "the two puts of a batch, of 150 B each,")?;
        for key in 0..5 {
            store.put(&[key; KEY], &[0; 240])?;
        }
        let deletes = [[0; KEY], [1; KEY], [2; KEY], [3; KEY], [4; KEY]];
        let deletes: Vec<(&[u8], Option<&[u8]>)> = deletes.iter().map(|key| (&key[..], None)).collect();
        store.apply(&batch(&deletes))?;
        below(&store, "the five deletes of a batch, of 60 B each,")?;
    }
    Ok(())
}

fn limits_of_age(context: &Context) -> CaseResult {
    let last = Duration::from_nanos(1);
    let almost = Policy::INTERVAL.saturating_sub(last);
    let periodic = Periodic::new(Policy::INTERVAL);
    let any = AnyOf::new(vec![Box::new(periodic), Box::new(MaxLogSize::new(1 << 30))]);
    for mut store in [under(context, periodic)?, under(context, any)?] {
        let younger = |store: &Modelled| -> CaseResult {
            let age = store.oldest_age();
            ensure!(
                age < Policy::INTERVAL,
                "a change was {age:?} old when the last one came, but is not durable when that one's call returns, under Periodic({:?})",
                Policy::INTERVAL
            );
            Ok(())
        };
        for first in [b"a", b"b", b"c"] {
            store.put(first, b"1")?;
            store.advance(almost);
            store.put(b"k", b"2")?;
            younger(&store)?;
            store.advance(last);
            store.delete(first)?;
            younger(&store)?;
            store.advance(last);
            store.apply(&batch(&[(b"x", Some(b"y")), (b"z", Some(b""))]))?;
            store.advance(Policy::INTERVAL);
            store.apply(&batch(&[(b"x", None), (b"z", None)]))?;
            younger(&store)?;
        }
    }
    let mut store = under(context, Periodic::without_sync(Policy::INTERVAL))?;
    for number in 0..4 {
        for key in [b"k", b"l"] {
            store.put(key, &[number])?;
            if store.answered() == Action::Write {
                store.check_disk(None)?;
            }
            store.advance(Policy::INTERVAL);
        }
    }
    Ok(())
}

pub(super) fn hold_holds(context: &Context) -> CaseResult {
    for background in [context.quiet_background(), Background::Threads] {
        let setup = Setup { background, scale: Scale::Normal, ..Setup::tiny(context, Policy::Manual) };
        let rig = context.rig(setup)?;
        let engine = rig.open()?;
        for life in 0..2 {
            let before = engine.sync()?;
            for number in 0..6u8 {
                engine.put(b"k", &[number])?;
                engine.put(&[number], b"v")?;
                engine.delete(b"k")?;
                rig.advance(Duration::from_mins(1));
            }
            if background == Background::Threads {
                std::thread::sleep(Duration::from_millis(60));
                engine.put(b"k", b"late")?;
            }
            let durable = engine.durable_lsn();
            ensure!(
                durable == before,
                "under Manual a few small changes wait for the caller, but durable_lsn moved from {before} to {durable} ({background:?}, sync number {life})"
            );
        }
    }
    Ok(())
}

/// A batch of puts, and of deletes where there is no value.
pub(super) fn batch(changes: &[(&[u8], Option<&[u8]>)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        };
    }
    batch
}
