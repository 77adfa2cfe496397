//! Scans of a store that changes meanwhile, on one thread: cases of the group `scan`.

use super::calls::start;
use crate::failure::{ensure, fail};
use crate::rig::{Policy, Setup};
use crate::{CaseResult, Context, Failure};
use kv_core::{Batch, Engine, Scale};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Keys that are present during the whole scan.
const STABLE: u16 = 300;
/// Most keys that a scan's callback inserts, so that the scan has an end.
const INSERTS: usize = 450;

fn stable(number: u16) -> Vec<u8> {
    let [high, low] = (number * 100).to_be_bytes();
    vec![b'k', high, low]
}

fn is_stable(key: &[u8]) -> bool {
    key.len() == 3
}

/// Present before the scan, between two stable keys; a plan may remove it.
fn volatile(number: u16) -> Vec<u8> {
    [stable(number).as_slice(), b"volatile"].concat()
}

/// What the callback does at its visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    InsertInFront,
    InsertBefore,
    InsertAfter,
    InsertAtTheEnd,
    InsertManyAtOnce,
    RemoveTheVisited,
    RemoveBefore,
    RemoveAfter,
    RemoveManyAtOnce,
    MoveFromEndToFront,
    Overwrite,
    OverwriteLonger,
    Compact,
}

impl Plan {
    const ALL: [Plan; 13] = [
        Plan::InsertInFront,
        Plan::InsertBefore,
        Plan::InsertAfter,
        Plan::InsertAtTheEnd,
        Plan::InsertManyAtOnce,
        Plan::RemoveTheVisited,
        Plan::RemoveBefore,
        Plan::RemoveAfter,
        Plan::RemoveManyAtOnce,
        Plan::MoveFromEndToFront,
        Plan::Overwrite,
        Plan::OverwriteLonger,
        Plan::Compact,
    ];

    fn name(self) -> &'static str {
        match self {
            Plan::InsertInFront => "inserts keys in front of all others",
            Plan::InsertBefore => "inserts a key before each visited one",
            Plan::InsertAfter => "inserts a key after each visited one",
            Plan::InsertAtTheEnd => "inserts keys behind all others",
            Plan::InsertManyAtOnce => "inserts hundreds of keys at one visit",
            Plan::RemoveTheVisited => "removes the visited keys",
            Plan::RemoveBefore => "removes keys before the visited one",
            Plan::RemoveAfter => "removes keys after the visited one",
            Plan::RemoveManyAtOnce => "removes all volatile keys at one visit",
            Plan::MoveFromEndToFront => "removes a key at the end and inserts one in front",
            Plan::Overwrite => "overwrites keys",
            Plan::OverwriteLonger => "overwrites keys with longer values",
            Plan::Compact => "inserts, removes and compacts",
        }
    }

    /// The changes at visit number `visit`, of `key`.
    fn act(self, engine: &dyn Engine, visit: usize, key: &[u8]) -> CaseResult {
        let number = u16::try_from(visit % usize::from(STABLE)).unwrap_or(0);
        let detail = visit.to_be_bytes();
        let insert = |key: Vec<u8>| -> CaseResult {
            if visit < INSERTS {
                engine.put(&key, b"inserted")?;
            }
            Ok(())
        };
        let named = |first: u8| [&[first], detail.as_slice()].concat();
        let position =
            key.get(1..3).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes) / 100;
        match self {
            Plan::InsertInFront => insert(named(b'a'))?,
            Plan::InsertBefore => {
                // Sorts between the stable key before this one and this one.
                let before = position.wrapping_sub(1) % STABLE;
                insert([stable(before).as_slice(), b"z", &detail].concat())?;
            }
            Plan::InsertAfter => insert([key.get(..3).unwrap_or(key), b"a", &detail].concat())?,
            Plan::InsertAtTheEnd => insert(named(b'z'))?,
            Plan::InsertManyAtOnce if visit == 40 => {
                let mut batch = Batch::new();
                (0..STABLE).for_each(|number| {
                    batch.put(&[stable(number).as_slice(), b"many"].concat(), b"inserted");
                });
                engine.apply(&batch)?;
            }
            Plan::RemoveTheVisited if !is_stable(key) => drop(engine.delete(key)?),
            Plan::RemoveBefore => drop(engine.delete(&volatile(position.saturating_sub(1)))?),
            Plan::RemoveAfter => drop(engine.delete(&volatile((position + 1) % STABLE))?),
            Plan::RemoveManyAtOnce if visit == 40 => {
                let mut batch = Batch::new();
                for number in 0..STABLE {
                    batch.delete(&volatile(number));
                }
                engine.apply(&batch)?;
            }
            Plan::MoveFromEndToFront => {
                engine.delete(&volatile(STABLE - 1 - number))?;
                insert(named(b'a'))?;
            }
            Plan::Overwrite => drop(engine.put(&stable(number * 7 % STABLE), b"overwritten")?),
            Plan::OverwriteLonger => drop(engine.put(&stable(number * 7 % STABLE), &[b'o'; 300])?),
            Plan::Compact if visit.is_multiple_of(60) => {
                insert(named(b'a'))?;
                engine.delete(&volatile(number))?;
                if let Some(compact) = engine.as_compact() {
                    compact.compact()?;
                }
                engine.sync()?;
            }
            Plan::InsertManyAtOnce | Plan::RemoveTheVisited | Plan::RemoveManyAtOnce | Plan::Compact => {}
        }
        Ok(())
    }

    fn may_hold(self, value: &[u8]) -> bool {
        match self {
            Plan::Overwrite => value == b"stable" || value == b"overwritten",
            Plan::OverwriteLonger => value == b"stable" || value == [b'o'; 300],
            _ => value == b"stable",
        }
    }
}

/// Runs a scan whose callback follows the plan. Returns the number of visits of each key.
fn scan(engine: &dyn Engine, plan: Plan) -> Result<BTreeMap<Vec<u8>, usize>, Failure> {
    let mut visits: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let (mut count, mut result) = (0, Ok(()));
    engine.scan(&mut |key, value| {
        *visits.entry(key.to_vec()).or_default() += 1;
        if is_stable(key) && !plan.may_hold(value) {
            result = Err(Failure::new(format!("a scan shows a value of {key:?} that it never had")));
        }
        let acted = plan.act(engine, count, key);
        count += 1;
        if result.is_ok() {
            result = acted;
        }
        let is_endless = count > 4000;
        if result.is_err() || is_endless { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    result?;
    Ok(visits)
}

fn scan_once(context: &Context, setup: Setup, plan: Plan) -> CaseResult {
    // A real directory lives as long as its rig.
    let rig = context.rig(setup)?;
    let engine = rig.open()?;
    for number in 0..STABLE {
        engine.put(&stable(number), b"stable")?;
        engine.put(&volatile(number), b"volatile")?;
    }
    let theirs = Arc::clone(&engine);
    let running = start(context, "scan", move || scan(&*theirs, plan));
    let visits = running.answer(&format!("while its callback {}", plan.name()))??;
    if let Some((key, count)) = visits.iter().find(|(_, count)| **count > 1) {
        fail!("a scan visits key {key:?} {count} times, while its callback {}", plan.name());
    }
    let missed = (0..STABLE).map(stable).find(|key| !visits.contains_key(key));
    if let Some(key) = missed {
        fail!(
            "a scan does not visit key {key:?}, which is present all the time, while its callback {}",
            plan.name()
        );
    }
    Ok(())
}

pub(super) fn callbacks_change_other_keys(context: &Context) -> CaseResult {
    for scale in [Scale::Normal, Scale::Tiny] {
        let setup = Setup { scale, ..Setup::tiny(context, Policy::Manual) };
        for plan in Plan::ALL {
            scan_once(context, setup, plan)?;
        }
    }
    Ok(())
}

/// Scans up to `stop` visits; returns how many there were.
fn visits_until(engine: &dyn Engine, stop: usize) -> Result<usize, Failure> {
    let mut visits = 0;
    engine.scan(&mut |_, _| {
        visits += 1;
        if visits == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(visits)
}

pub(super) fn a_break_ends_the_scan_only(context: &Context) -> CaseResult {
    const COUNT: usize = 200;
    for scale in [Scale::Normal, Scale::Tiny] {
        // A real directory lives as long as its rig.
        let rig = context.rig(Setup { scale, ..Setup::tiny(context, Policy::Manual) })?;
        let engine = rig.open()?;
        for number in 0..200 {
            engine.put(&stable(number), b"stable")?;
        }
        for stop in [1, 2, 17, 64, 100, COUNT - 1, COUNT, 3] {
            let theirs = Arc::clone(&engine);
            let about = format!("a scan, or a call after it, that was told to stop at visit {stop}");
            start(context, about, move || -> CaseResult {
                let visits = visits_until(&*theirs, stop)?;
                ensure!(visits == stop, "a scan that was told to stop at visit {stop} makes {visits}");
                let mut outer = 0;
                theirs.scan(&mut |_, _| {
                    outer += 1;
                    let inner = visits_until(&*theirs, stop).unwrap_or(0);
                    if inner == stop { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })?;
                ensure!(
                    outer == COUNT,
                    "a scan makes {outer} of {COUNT} visits, with another scan in its callback"
                );
                // Hundreds of keys come and go, so that no part of the store stays as it was.
                for number in 0..STABLE {
                    theirs.put(&volatile(number), b"v")?;
                }
                for number in 0..STABLE {
                    theirs.delete(&volatile(number))?;
                }
                let visits = visits_until(&*theirs, usize::MAX)?;
                ensure!(
                    visits == COUNT,
                    "after a scan that was stopped a whole one makes {visits} of {COUNT} visits"
                );
                Ok(())
            })
            .answer("")??;
        }
    }
    Ok(())
}

pub(super) fn nothing_to_visit(context: &Context) -> CaseResult {
    for scale in [Scale::Normal, Scale::Tiny] {
        let rig = context.rig(Setup { scale, ..Setup::tiny(context, Policy::Manual) })?;
        let engine = rig.open()?;
        let check = |engine: &Arc<dyn Engine>, when: &str| -> CaseResult {
            let theirs = Arc::clone(engine);
            let visits =
                start(context, "scan", move || visits_until(&*theirs, usize::MAX)).answer(when)??;
            ensure!(visits == 0, "a scan {when} makes {visits} visits");
            Ok(())
        };
        check(&engine, "of a new store")?;
        for number in 0..STABLE {
            engine.put(&stable(number), b"stable")?;
        }
        for number in 0..STABLE {
            engine.delete(&stable(number))?;
        }
        check(&engine, "of a store whose keys were all deleted")?;
        engine.close()?;
        drop(engine);
        let engine = rig.open()?;
        check(&engine, "of a store that was closed and opened without keys")?;
        engine.put(b"", b"")?;
        let visits = visits_until(&*engine, usize::MAX)?;
        ensure!(visits == 1, "a scan of a store with the empty key only makes {visits} visits");
    }
    Ok(())
}
