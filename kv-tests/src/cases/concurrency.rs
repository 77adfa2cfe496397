use super::{case, gated_close, gated_work};
use crate::failure::ensure;
use crate::oracle::state_of;
use crate::rig::{Policy, Setup};
use crate::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::{Background, Engine, Error, Lsn, Scale};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const CASES: &[Case] = &[
    case(
        "concurrency::stochastic_kv701_readers_see_whole_and_growing_values",
        Level::Stochastic,
        &[],
        "Readers never see a torn or foreign value, or an older one after a newer one.",
        readers_see_whole_and_growing_values,
    ),
    case(
        "concurrency::stochastic_kv702_group_commit_wakes_every_waiter",
        Level::Stochastic,
        &[],
        "Concurrent waiters for durability all return, each with its change durable.",
        group_commit_wakes_every_waiter,
    ),
    case(
        "concurrency::stochastic_kv703_a_failed_sync_wakes_every_waiter",
        Level::Stochastic,
        &[Need::SimulatedFs],
        "When a sync fails, all threads that wait for it return with an error.",
        a_failed_sync_wakes_every_waiter,
    ),
    case(
        "concurrency::stochastic_kv704_lsns_are_unique",
        Level::Stochastic,
        &[],
        "Concurrent changes get different LSNs, in the order of each thread.",
        lsns_are_unique,
    ),
    case(
        "concurrency::stochastic_kv705_power_cut_under_writers",
        Level::Stochastic,
        &[Need::SimulatedFs],
        "A power cut under concurrent writers leaves exactly the changes up to some LSN, with all durable ones.",
        power_cut_under_writers,
    ),
    case(
        "concurrency::stochastic_kv706_what_was_seen_counts_as_visible",
        Level::Stochastic,
        &[],
        "A change that a reader has seen is at or below last_lsn, so the next sync covers it.",
        what_was_seen_counts_as_visible,
    ),
    case(
        "concurrency::required_kv707_a_close_keeps_the_directory",
        Level::Required,
        &[Need::SimulatedFs],
        "A close makes every change durable before it gives the directory away; changes beside it survive or are refused.",
        gated_close::a_close_keeps_the_directory,
    ),
    case(
        "concurrency::required_kv708_two_closes_at_once",
        Level::Required,
        &[Need::SimulatedFs],
        "Each of two concurrent closes returns only when every change is durable.",
        gated_close::two_closes_at_once,
    ),
    case(
        "concurrency::required_kv709_a_drop_during_a_dump",
        Level::Required,
        &[Need::SimulatedFs],
        "Dropping the last handle during a dump loses no change.",
        gated_close::a_drop_during_a_dump,
    ),
    case(
        "concurrency::stochastic_kv710_writers_beside_a_slow_disk",
        Level::Stochastic,
        &[Need::SimulatedFs],
        "Changes during operations of the disk are neither lost nor undone, and a power cut leaves a prefix of them.",
        gated_work::writers_beside_a_slow_disk,
    ),
    case(
        "concurrency::stochastic_kv711_compaction_beside_writers",
        Level::Stochastic,
        &[Need::SimulatedFs, Need::Compact],
        "Changes during a compaction are neither lost nor undone, and a power cut leaves a prefix of them.",
        gated_work::compaction_beside_writers,
    ),
];

/// Runs every closure on its own thread; the first failure counts.
fn all_at_once(work: Vec<Box<dyn FnOnce() -> CaseResult + Send + '_>>) -> CaseResult {
    std::thread::scope(|scope| {
        let threads: Vec<_> = work.into_iter().map(|one| scope.spawn(one)).collect();
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Failure::new("no operation panics, but one did")))
        });
        joined.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Ends the readers if a writer panics: readers that wait for ever would report a deadlock.
struct EndWithPanic<'a>(&'a AtomicBool);

impl Drop for EndWithPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

fn readers_see_whole_and_growing_values(context: &Context) -> CaseResult {
    let rig = context.real_rig(Setup::tiny(context, Policy::MaxLogSize(300)))?;
    let engine = rig.open()?;
    let rounds = u32::try_from(context.scaled(400)).unwrap_or(u32::MAX);
    let done = AtomicBool::new(false);
    let writing = std::sync::atomic::AtomicUsize::new(2);
    let mut work: Vec<Box<dyn FnOnce() -> CaseResult + Send>> = Vec::new();
    for writer in 0..2u8 {
        let (engine, done, writing) = (&engine, &done, &writing);
        work.push(Box::new(move || {
            let _end = EndWithPanic(done);
            let written = (1..=rounds).try_for_each(|round| -> CaseResult {
                for key in 0..8u8 {
                    let value: Vec<u8> = [writer, key].into_iter().chain(round.to_be_bytes()).collect();
                    engine.put(&[writer, key], &value.repeat(1 + usize::from(key) * 3))?;
                }
                Ok(())
            });
            if writing.fetch_sub(1, Ordering::AcqRel) == 1 || written.is_err() {
                done.store(true, Ordering::Release);
            }
            written
        }));
    }
    for _ in 0..2 {
        let (engine, done) = (&engine, &done);
        work.push(Box::new(move || {
            let mut seen = [[0u32; 8]; 2];
            while !done.load(Ordering::Acquire) {
                for (writer, seen) in (0u8..).zip(&mut seen) {
                    for (key, seen) in (0u8..).zip(seen) {
                        let Some(value) = engine.get(&[writer, key])? else {
                            ensure!(*seen == 0, "a present key is gone");
                            continue;
                        };
                        let unit = value.get(..6).unwrap_or_default();
                        let whole = unit.starts_with(&[writer, key])
                            && value.len() == 6 * (1 + usize::from(key) * 3)
                            && value.chunks(6).all(|chunk| chunk == unit);
                        ensure!(
                            whole,
                            "a reader of {:?} sees a torn or foreign value: {value:?}",
                            [writer, key]
                        );
                        let round = unit.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                        ensure!(round >= *seen, "a reader sees round {round} after round {seen}");
                        *seen = round;
                    }
                }
            }
            Ok(())
        }));
    }
    all_at_once(work)?;
    context.explored().history();
    Ok(())
}

fn group_commit_wakes_every_waiter(context: &Context) -> CaseResult {
    for policy in [Policy::Always, Policy::Manual] {
        let rig = context.real_rig(Setup::tiny(context, policy))?;
        let engine = rig.open()?;
        let rounds = context.scaled(20);
        let work = (0..8u8).map(|thread| -> Box<dyn FnOnce() -> CaseResult + Send> {
            let engine = &engine;
            Box::new(move || {
                for round in 0..rounds {
                    let lsn = engine.put(&[thread], &round.to_le_bytes())?;
                    engine.wait_durable(lsn)?;
                    ensure!(engine.durable_lsn() >= lsn, "a waiter returned before its change was durable");
                }
                Ok(())
            })
        });
        all_at_once(work.collect())?;
        context.explored().history();
    }
    Ok(())
}

fn a_failed_sync_wakes_every_waiter(context: &Context) -> CaseResult {
    for nth in 0..context.scaled(12) {
        let disk = SimFs::new();
        let setup = Setup { background: Background::Threads, ..Setup::tiny(context, Policy::Always) };
        let engine = context.sim_rig(disk.clone(), setup).open()?;
        disk.inject(Fault { kind: FaultKind::Sync, nth, repeat: Repeat::Always });
        let work = (0..6u8).map(|thread| -> Box<dyn FnOnce() -> CaseResult + Send> {
            let engine = &engine;
            Box::new(move || {
                loop {
                    match engine.put(&[thread], b"value") {
                        Ok(lsn) => ensure!(engine.durable_lsn() >= lsn, "put returned before it was durable"),
                        Err(Error::Io { .. } | Error::Poisoned { .. }) => return Ok(()),
                        Err(other) => {
                            return Err(Failure::new(format!("a failed sync is answered with: {other}")));
                        }
                    }
                }
            })
        });
        all_at_once(work.collect())?;
        ensure!(disk.faults_fired() > 0, "the harness is broken: no fault fired");
        context.explored().add_faults(disk.faults_fired());
    }
    Ok(())
}

fn lsns_are_unique(context: &Context) -> CaseResult {
    let rig = context.real_rig(Setup::tiny(context, Policy::MaxLogSize(300)))?;
    let engine = rig.open()?;
    let all = std::sync::Mutex::new(Vec::new());
    let work = (0..4u8).map(|thread| -> Box<dyn FnOnce() -> CaseResult + Send> {
        let (engine, all) = (&engine, &all);
        Box::new(move || {
            let mut mine = Vec::new();
            for number in 0..300u32 {
                mine.push(engine.put(&[thread], &number.to_le_bytes())?);
            }
            ensure!(mine.windows(2).all(|pair| pair.first() < pair.last()), "a thread's LSNs do not grow");
            all.lock().map_err(|_| Failure::new("a thread panicked"))?.extend(mine);
            Ok(())
        })
    });
    all_at_once(work.collect())?;
    let mut all = all.into_inner().map_err(|_| Failure::new("a thread panicked"))?;
    all.sort_unstable();
    ensure!(all.windows(2).all(|pair| pair.first() < pair.last()), "two changes got the same LSN");
    ensure!(all.last() == Some(&engine.last_lsn()), "last_lsn is not the highest LSN given out");
    Ok(())
}

/// The answers to one writer: its change number `n` got `lsns[n]`.
struct Told {
    lsns: Vec<Lsn>,
    durable: Lsn,
}

fn power_cut_under_writers(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for _ in 0..context.scaled(40) {
        let policy = rng.choice(Policy::ALL).unwrap_or(Policy::Always);
        let setup = Setup { background: Background::Threads, ..Setup::tiny(context, policy) };
        let disk = SimFs::new();
        let engine = context.sim_rig(disk.clone(), setup).open()?;
        disk.cut_after(disk.mutations() + rng.u64(1..60));
        let told: Vec<Told> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let engine = &*engine;
                    scope.spawn(move || write_until_cut(engine, writer))
                })
                .collect();
            writers.into_iter().filter_map(|writer| writer.join().ok()).collect()
        });
        ensure!(told.len() == 3, "no operation panics, but one did when the power went");
        drop(engine);
        context.explored().crash_state();
        let image = disk.power_cut(PowerCut::seeded(rng.u64(..)));
        check_cut(context, setup, &image, &told).map_err(|failure| {
            failure
                .with("policy", format!("{policy:?}, with threads: a replay may differ"))
                .with("kept", image.kept().join("\n"))
        })?;
    }
    Ok(())
}

/// Puts 0, 1, 2, ... under the writer's key until an error, with a sync now and then.
fn write_until_cut(engine: &dyn Engine, writer: u8) -> Told {
    let mut told = Told { lsns: Vec::new(), durable: Lsn::ZERO };
    for number in 0..400u32 {
        let value = number.to_le_bytes().repeat(20);
        let Ok(lsn) = engine.put(&[writer], &value) else { break };
        told.lsns.push(lsn);
        if number % 20 == 19 {
            match engine.sync() {
                Ok(durable) => told.durable = told.durable.max(durable),
                Err(_) => break,
            }
        }
        told.durable = told.durable.max(engine.durable_lsn());
    }
    told
}

/// Checks that some LSN divides the changes: those up to it are present, those beyond are absent.
/// The last change of each writer, with unknown LSN, may be present or absent.
fn check_cut(context: &Context, setup: Setup, image: &SimFs, told: &[Told]) -> CaseResult {
    let engine = context.sim_rig(image.clone(), setup).open()?;
    let state = state_of(&*engine)?;
    let durable = told.iter().map(|told| told.durable).max().unwrap_or_default();
    let (mut newest_there, mut oldest_missing) = (Lsn::ZERO, None::<Lsn>);
    for (writer, told) in (0u8..).zip(told) {
        let there = match state.get([writer].as_slice()) {
            None => 0,
            Some(value) => {
                let number = value.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).unwrap_or_default();
                ensure!(
                    *value == number.to_le_bytes().repeat(20),
                    "a recovered value is one that was written"
                );
                number as usize + 1
            }
        };
        ensure!(there <= told.lsns.len() + 1, "every recovered change is one that was written");
        newest_there =
            newest_there.max(told.lsns.iter().take(there).next_back().copied().unwrap_or_default());
        if let Some(missing) = told.lsns.get(there) {
            oldest_missing = Some(oldest_missing.map_or(*missing, |oldest| oldest.min(*missing)));
        }
    }
    if let Some(missing) = oldest_missing {
        ensure!(
            missing > durable,
            "LSN {durable} was reported durable, but the change of LSN {missing} is gone"
        );
        ensure!(
            missing > newest_there,
            "no prefix: the change of LSN {missing} is gone, but that of LSN {newest_there} is present"
        );
    }
    Ok(())
}

/// One writer. A reader notes each change that it saw, with the `last_lsn` right after.
fn what_was_seen_counts_as_visible(context: &Context) -> CaseResult {
    const PUTS: u64 = 60_000;
    let setup = Setup {
        background: Background::Threads,
        scale: Scale::Normal,
        ..Setup::tiny(context, Policy::Manual)
    };
    for _ in 0..context.scaled(3) {
        let rig = context.rig(setup)?;
        let engine = rig.open()?;
        engine.put(b"k", &0u64.to_le_bytes())?;
        let (mut given_out, mut noted) = (Vec::new(), Vec::new());
        let done = AtomicBool::new(false);
        let read = || -> Result<Vec<(u64, Lsn)>, Failure> {
            let mut noted = Vec::new();
            while !done.load(Ordering::Acquire) {
                let mut number = 0;
                engine.read(b"k", &mut |value| {
                    number = value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                })?;
                noted.push((number, engine.last_lsn()));
            }
            Ok(noted)
        };
        std::thread::scope(|scope| -> CaseResult {
            let reader = scope.spawn(read);
            let written = (1..=PUTS).try_for_each(|number| -> CaseResult {
                given_out.push(engine.put(b"k", &number.to_le_bytes())?);
                Ok(())
            });
            done.store(true, Ordering::Release);
            noted = reader.join().map_err(|_| Failure::new("no operation panics, but one did"))??;
            written
        })?;
        for (number, last) in noted {
            let index = usize::try_from(number).unwrap_or(usize::MAX).wrapping_sub(1);
            if let Some(lsn) = given_out.get(index) {
                ensure!(
                    *lsn <= last,
                    "a reader saw the change of LSN {lsn}, but last_lsn was {last} afterwards"
                );
            }
        }
        context.explored().history();
    }
    Ok(())
}
