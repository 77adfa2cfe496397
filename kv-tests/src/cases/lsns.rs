//! Which changes take an LSN, and what reopening and crashes make of it.

use crate::executor;
use crate::failure::{InWords, ensure};
use crate::oracle::state_of;
use crate::rig::{Policy, Setup};
use crate::sim::SimFs;
use crate::{CaseResult, Context, Failure};
use kv_core::{Batch, Engine, EngineExt, Error, Lsn, OpenOptions};
use std::time::Duration;

/// A history after which the store is empty, and its newest LSN.
type Emptying = (&'static str, fn(&dyn Engine) -> kv_core::Result<Lsn>);

const EMPTYINGS: [Emptying; 6] = [
    ("no change at all", |_| Ok(Lsn::ZERO)),
    ("a put and a delete", |engine| {
        engine.put(b"k", b"v")?;
        Ok(engine.delete(b"k")?.unwrap_or_default())
    }),
    ("two batches", |engine| {
        engine.apply(Batch::new().put(b"a", b"1").put(b"b", b"2"))?;
        engine.apply(Batch::new().delete(b"a").delete(b"b"))
    }),
    ("a put and a batch that overwrites and deletes", |engine| {
        engine.put(b"k", b"v")?;
        engine.apply(Batch::new().put(b"k", b"w").delete(b"k"))
    }),
    ("many puts and deletes", |engine| {
        let mut newest = Lsn::ZERO;
        for key in 0..100u8 {
            engine.put(&[key], &[key; 80])?;
        }
        for key in 0..100u8 {
            newest = engine.delete(&[key])?.unwrap_or(newest);
        }
        Ok(newest)
    }),
    ("puts, deletes and a compaction", |engine| {
        for key in 0..20u8 {
            engine.put(&[key], &[key; 80])?;
        }
        let mut newest = Lsn::ZERO;
        for key in 0..20u8 {
            newest = engine.delete(&[key])?.unwrap_or(newest);
        }
        engine.as_compact().map(kv_core::Compact::compact).transpose()?;
        Ok(newest)
    }),
];

pub(super) fn an_empty_store_keeps_its_lsn(context: &Context) -> CaseResult {
    let can_read = context.factory().capabilities().read_only;
    for policy in [Policy::Manual, Policy::MaxLogSize(300)] {
        for (how, empty) in EMPTYINGS {
            for closes in [true, false] {
                let rig = context.rig(Setup::tiny(context, policy))?;
                let engine = rig.open()?;
                let newest = empty(&*engine)?;
                if closes {
                    engine.close()?;
                }
                drop(engine);
                for number in 1..=3 {
                    if can_read {
                        let reader =
                            rig.open_with(&OpenOptions { read_only: true, ..rig.setup.options() })?;
                        check_lsn(&*reader, newest, &format!("{how}, a close and an open for reading only"))?;
                    }
                    let engine = rig.open()?;
                    check_lsn(&*engine, newest, &format!("{how}, {number} closes and {number} opens"))?;
                    ensure!(
                        engine.durable_lsn() == newest,
                        "after a close everything is durable, but after {how} durable_lsn is {}, not {newest}",
                        engine.durable_lsn()
                    );
                    let idle = engine.apply(&Batch::new())?;
                    ensure!(
                        idle == newest,
                        "an empty batch after {how} and an open returns {idle}, not {newest}"
                    );
                    if number == 2 && closes {
                        engine.close()?;
                    }
                }
                let next = rig.open()?.put(b"k", b"v")?;
                ensure!(next > newest, "after {how} and opens a put has LSN {next}, not one above {newest}");
            }
        }
    }
    Ok(())
}

fn check_lsn(engine: &dyn Engine, newest: Lsn, after: &str) -> CaseResult {
    let last = engine.last_lsn();
    ensure!(
        last == newest,
        "last_lsn is the same after an orderly close, but after {after} it is {last}, not {newest}"
    );
    let count = state_of(engine)?.len();
    ensure!(count == 0, "after {after} the store is not empty: it holds {count} keys");
    Ok(())
}

/// What happens between two crashes, and whether all of it is durable.
type Run = (&'static str, bool, fn(&dyn Engine) -> kv_core::Result<Vec<Lsn>>);

const RUNS: [Run; 6] = [
    ("nothing", true, |_| Ok(Vec::new())),
    ("a put without a sync", false, |engine| Ok(vec![engine.put(b"k", b"1")?])),
    ("a synced put", true, |engine| {
        let lsn = engine.put(b"k", b"2")?;
        engine.sync()?;
        Ok(vec![lsn])
    }),
    ("a synced put, and one without a sync", false, |engine| {
        let first = engine.put(b"k", b"3")?;
        engine.sync()?;
        Ok(vec![first, engine.put(b"l", b"3")?])
    }),
    ("a synced delete", true, |engine| {
        let put = engine.put(b"k", b"4")?;
        let mut lsns: Vec<Lsn> = [engine.delete(b"k")?, engine.delete(b"l")?].into_iter().flatten().collect();
        engine.sync()?;
        lsns.insert(0, put);
        Ok(lsns)
    }),
    ("a synced put, and a delete without a sync", false, |engine| {
        let put = engine.put(b"k", b"5")?;
        engine.sync()?;
        Ok([Some(put), engine.delete(b"k")?, engine.delete(b"l")?].into_iter().flatten().collect())
    }),
];

pub(super) fn crashes_use_no_lsn_twice(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for _ in 0..context.scaled(8) {
        let setup = Setup::tiny(context, Policy::Manual);
        let (mut disk, mut given) = (SimFs::new(), Vec::new());
        let mut told: Vec<&str> = Vec::new();
        for number in 0..12u64 {
            let engine = context.sim_rig(disk.clone(), setup).open()?;
            let recovered = engine.last_lsn();
            let Some((name, is_durable, run)) = rng.choice(&RUNS) else { continue };
            told.push(name);
            let lsns = run(&*engine)?;
            for lsn in lsns {
                let newest = given.last().copied().unwrap_or(Lsn::ZERO);
                let story = || {
                    Failure::new(format!(
                        "LSNs are never used twice, but LSN {lsn} came after {newest}, which a crash may have taken"
                    ))
                };
                if lsn <= newest.max(recovered) {
                    return Err(story().with("between crashes", told.join("; ")));
                }
                given.push(lsn);
            }
            let newest = engine.last_lsn();
            disk = match rng.u8(..3) {
                0 => disk.process_death(),
                1 => disk.power_cut(context.power_cut(0)),
                _ => disk.power_cut(context.power_cut(2 + number)),
            };
            context.explored().crash_state();
            let engine = context.sim_rig(disk.process_death(), setup).open()?;
            let last = engine.last_lsn();
            let is_known = last == Lsn::ZERO || given.contains(&last);
            let is_right = is_known && last <= newest && (!is_durable || last == newest);
            if !is_right {
                let fact = told.join("; ");
                return Err(Failure::new(format!(
                    "after a crash last_lsn is that of the newest recovered change, but it is {last}; before \
                     the crash it was {newest}"
                ))
                .with("between crashes", fact));
            }
        }
        context.explored().history();
    }
    Ok(())
}

type Idle = (&'static str, fn(&dyn Engine) -> kv_core::Result<Option<Lsn>>);

/// Calls that change nothing where only `k` is present. A delete answers `None`.
const IDLE: [Idle; 10] = [
    ("a delete of an absent key", |engine| engine.delete(b"absent")),
    ("a delete of the absent empty key", |engine| engine.delete(b"")),
    ("a delete of an absent key that begins like a present one", |engine| engine.delete(b"k\0")),
    ("an empty batch", |engine| engine.apply(&Batch::new()).map(Some)),
    ("a batch that deletes an absent key", |engine| engine.apply(Batch::new().delete(b"absent")).map(Some)),
    ("a batch that deletes an absent key twice", |engine| {
        engine.apply(Batch::new().delete(b"absent").delete(b"absent")).map(Some)
    }),
    ("a batch that puts and deletes an absent key", |engine| {
        engine.apply(Batch::new().put(b"absent", b"1").delete(b"absent")).map(Some)
    }),
    ("a batch that deletes, puts and deletes an absent key", |engine| {
        engine.apply(Batch::new().delete(b"absent").put(b"absent", b"1").delete(b"absent")).map(Some)
    }),
    ("a batch that puts and deletes two absent keys", |engine| {
        let mut batch = Batch::new();
        batch.put(b"a", b"1").put(b"b", b"2").delete(b"b").delete(b"a").delete(b"");
        engine.apply(&batch).map(Some)
    }),
    ("a batch that deletes a hundred absent keys", |engine| {
        let mut batch = Batch::new();
        for key in 0..100u8 {
            batch.delete(&[b'a', key]);
        }
        engine.apply(&batch).map(Some)
    }),
];

/// Calls that change something where only `k` is present, with the value `v`; it is again
/// afterwards.
const CHANGES: [Idle; 5] = [
    ("a put of the same value", |engine| engine.put(b"k", b"v").map(Some)),
    ("a batch that puts the same value", |engine| engine.apply(Batch::new().put(b"k", b"v")).map(Some)),
    ("a batch that deletes a present key and puts it again", |engine| {
        engine.apply(Batch::new().delete(b"k").put(b"k", b"v")).map(Some)
    }),
    ("a batch that deletes an absent key and puts another", |engine| {
        engine.apply(Batch::new().delete(b"absent").put(b"k", b"v")).map(Some)
    }),
    ("a batch that puts and deletes a present key", |engine| {
        let lsn = engine.apply(Batch::new().put(b"k", b"w").delete(b"k"))?;
        engine.put(b"k", b"v")?;
        Ok(Some(lsn))
    }),
];

pub(super) fn only_changes_take_lsns(context: &Context) -> CaseResult {
    for policy in [Policy::Manual, Policy::Always] {
        let rig = context.rig(Setup::tiny(context, policy))?;
        let engine = rig.open()?;
        check_idle(&*engine, "a new store")?;
        engine.put(b"k", b"v")?;
        check_idle(&*engine, "a store with one key")?;
        engine.close()?;
        let engine = rig.open()?;
        check_idle(&*engine, "a store opened again")?;
        for (what, change) in CHANGES {
            let before = engine.last_lsn();
            let lsn = change(&*engine)?.unwrap_or_default();
            ensure!(
                lsn > before && lsn <= engine.last_lsn(),
                "{what} is a change, but it returns LSN {lsn}; last_lsn was {before} before and is {} now",
                engine.last_lsn()
            );
            let found = engine.get(b"k")?;
            ensure!(found.as_deref() == Some(&b"v"[..]), "after {what} the key has the value {found:?}");
            check_idle(&*engine, what)?;
        }
        engine.delete(b"k")?;
        check_idle(&*engine, "a store that became empty")?;
    }
    Ok(())
}

fn check_idle(engine: &dyn Engine, place: &str) -> CaseResult {
    for (what, call) in IDLE {
        let (last, durable) = (engine.last_lsn(), engine.durable_lsn());
        let (state, changes) = (state_of(engine)?, engine.stats().changes);
        let answer = call(engine)?;
        ensure!(
            answer.is_none_or(|lsn| lsn == last) && (answer.is_some() || what.starts_with("a delete")),
            "{what} in {place} changes nothing, but answers {answer}; last_lsn is {last}",
            answer = answer.in_words()
        );
        ensure!(
            !(what.starts_with("a delete") && answer.is_some()),
            "{what} in {place} deletes nothing, but is answered with {answer}",
            answer = answer.in_words()
        );
        ensure!(
            engine.last_lsn() == last,
            "{what} in {place} takes no LSN, but last_lsn moved from {last} to {}",
            engine.last_lsn()
        );
        ensure!(engine.durable_lsn() >= durable, "{what} in {place} moved durable_lsn back from {durable}");
        ensure!(state_of(engine)? == state, "{what} in {place} changed the state");
        let counted = engine.stats().changes;
        ensure!(counted == changes, "{what} in {place} counts as a change: {counted} instead of {changes}");
    }
    Ok(())
}

pub(super) fn waits_at_the_edges(context: &Context) -> CaseResult {
    for policy in [Policy::Manual, Policy::Always] {
        let rig = context.rig(Setup::tiny(context, policy))?;
        let engine = rig.open()?;
        check_waits(&*engine, "a new store")?;
        let first = engine.put(b"a", b"1")?;
        check_waits(&*engine, "a put")?;
        engine.delete(b"a")?;
        engine.apply(Batch::new().put(b"b", b"2").put(b"c", b"3"))?;
        check_waits(&*engine, "a delete and a batch")?;
        engine.close()?;
        let engine = rig.open()?;
        check_waits(&*engine, "a close and an open")?;
        engine.wait_durable(first)?;
        engine.put(b"d", b"4")?;
        engine.wait_durable(first)?;
        check_waits(&*engine, "an open and a put")?;
    }
    Ok(())
}

/// Waits for the LSN that is next, for zero, and for all that is visible.
fn check_waits(engine: &dyn Engine, after: &str) -> CaseResult {
    let last = engine.last_lsn();
    let poll = |lsn: Lsn| {
        executor::run(engine.durable(lsn), Duration::from_secs(20)).ok_or_else(|| {
            Failure::new(format!("after {after} nothing wakes the task that waits for LSN {lsn}"))
        })
    };
    for beyond in [last.get() + 1, last.get() + 1000, u64::MAX] {
        let beyond = Lsn::new(beyond);
        for (call, answer) in [("wait_durable", engine.wait_durable(beyond)), ("poll_durable", poll(beyond)?)]
        {
            ensure!(
                matches!(answer, Err(Error::InvalidArgument(_))),
                "after {after} {call} of LSN {beyond}, beyond last_lsn {last}, answers {answer}, not InvalidArgument",
                answer = answer.in_words()
            );
        }
    }
    engine.wait_durable(Lsn::ZERO)?;
    poll(Lsn::ZERO)??;
    let synced = engine.sync()?;
    ensure!(
        synced == last,
        "after {after} sync returns {synced}, but it makes everything up to {last} durable"
    );
    let again = engine.sync()?;
    ensure!(again == last, "after {after} a sync of nothing returns {again}, but {last} is durable");
    engine.wait_durable(last)?;
    poll(last)??;
    let durable = engine.durable_lsn();
    ensure!(durable == last, "after {after} and a sync durable_lsn is {durable}, not {last}");
    Ok(())
}
