//! Changes that the operating system has, and that are not synced: cases of the group `crash`.

use super::sweeps::{crash_everywhere, mutations_of, overwriting, three_cuts};
use crate::executor::run;
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::scenario::{Left, judge};
use crate::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use crate::workload::{Op, random_ops, run_op, run_ops};
use crate::{CaseResult, Context, Failure};
use kv_core::{Background, Engine, EngineExt, Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The policies that write every change at once.
const WRITES: [Policy; 2] = [Policy::Write, Policy::WriteThenSync];

pub(super) fn a_write_survives_a_death(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for policy in WRITES {
        let setup = Setup::tiny(context, policy);
        let disk = SimFs::new();
        let rig = context.sim_rig(disk.clone(), setup);
        let mut history = History::default();
        for life in 0..3 {
            let engine = rig.open()?;
            let ops = random_ops(&mut rng, usize::try_from(context.scaled(40)).unwrap_or(40), 8);
            for (number, op) in ops.iter().enumerate() {
                run_op(&*engine, op, &mut history)?;
                history.told_written();
                context.explored().crash_state();
                let recovered = state_of(&*context.sim_rig(disk.process_death(), setup).open()?)?;
                history.after_death().check(&recovered).map_err(|failure| {
                    failure
                        .with("policy", format!("{policy:?}"))
                        .with("where", format!("open {life}, operation {number}: {}", op.describe()))
                })?;
            }
            engine.close()?;
        }
    }
    Ok(())
}

/// A way to make everything durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Sync,
    Wait,
    Poll,
    Close,
    Drop,
}

impl Way {
    fn go(self, context: &Context, engine: Arc<dyn Engine>) -> std::result::Result<Result<()>, Failure> {
        let last = engine.last_lsn();
        Ok(match self {
            Way::Sync => engine.sync().map(drop),
            Way::Wait => engine.wait_durable(last),
            Way::Poll => match run(engine.durable(last), patience(context)) {
                Some(answer) => answer,
                None => fail!("the future that waits for LSN {last} was never woken"),
            },
            Way::Close => engine.close(),
            Way::Drop => {
                drop(engine);
                Ok(())
            }
        })
    }
}

/// A watchdog against a lost wake-up, not a limit on speed.
fn patience(context: &Context) -> Duration {
    context.settings().timeout.min(Duration::from_mins(1)) / 2
}

pub(super) fn a_later_sync_covers_writes(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let changes = |count: usize, rng: &mut _| -> Vec<Op> {
        random_ops(rng, count, 8).into_iter().filter(|op| *op != Op::Sync).collect()
    };
    for (policy, background) in [
        (Policy::Write, context.quiet_background()),
        (Policy::WriteThenSync, context.quiet_background()),
        (Policy::Write, Background::Threads),
    ] {
        for way in [Way::Sync, Way::Wait, Way::Poll, Way::Close, Way::Drop] {
            for count in [1, 3, 100] {
                let setup = Setup { background, ..Setup::tiny(context, policy) };
                let disk = SimFs::new();
                let rig = context.sim_rig(disk.clone(), setup);
                let mut history = History::default();
                let mut ops = vec![Op::Put { key: 9, len: 20 }];
                ops.extend(changes(count, &mut rng));
                // A second life, and a second sync in the same life.
                for round in 0..2 {
                    let engine = rig.open()?;
                    run_ops(&*engine, &ops, &mut history)?;
                    if background == Background::Threads && count < 100 {
                        // Gives the thread time to write.
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    way.go(context, Arc::clone(&engine))??;
                    if way == Way::Drop {
                        drop(engine);
                    }
                    history.told_durable(history.last_lsn());
                    context.explored().crash_state();
                    let image = disk.power_cut(PowerCut::LOSE_ALL);
                    judge(context, Setup::tiny(context, policy), &image, &history).map_err(|failure| {
                        failure
                            .with("policy", format!("{policy:?}, {background:?}"))
                            .with("after", format!("{way:?} number {round}, {} changes", ops.len()))
                            .with("kept", image.kept().join("\n"))
                    })?;
                }
            }
        }
    }
    Ok(())
}

pub(super) fn a_thread_writes(context: &Context) -> CaseResult {
    for policy in WRITES {
        let setup = Setup { background: Background::Threads, ..Setup::tiny(context, policy) };
        let disk = SimFs::new();
        let engine = context.sim_rig(disk.clone(), setup).open()?;
        let mut history = History::default();
        let ops = [
            Op::Put { key: 1, len: 9 },
            Op::Put { key: 2, len: 9 },
            Op::Delete { key: 1 },
            Op::Batch(vec![(1, Some(8)), (2, None), (3, Some(60))]),
            Op::Put { key: 2, len: 400 },
            Op::Delete { key: 3 },
        ];
        for op in ops {
            run_op(&*engine, &op, &mut history)?;
            let start = Instant::now();
            loop {
                context.explored().crash_state();
                let left = context.sim_rig(disk.process_death(), Setup::tiny(context, policy)).open()?;
                if state_of(&*left)? == history.state() {
                    break;
                }
                ensure!(
                    start.elapsed() < patience(context),
                    "the policy answers every question with Write, but {} s after a {} the death of the process still loses it",
                    patience(context).as_secs(),
                    op.describe()
                );
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    Ok(())
}

pub(super) fn a_failed_sync_after_a_write_poisons(context: &Context) -> CaseResult {
    for way in [Way::Sync, Way::Wait, Way::Poll, Way::Close] {
        let disk = SimFs::new();
        let setup = Setup::tiny(context, Policy::Write);
        let engine = context.sim_rig(disk.clone(), setup).open()?;
        let mut history = History::default();
        run_op(&*engine, &Op::Put { key: 1, len: 9 }, &mut history)?;
        history.told_durable(engine.sync()?);
        run_op(&*engine, &Op::Put { key: 2, len: 9 }, &mut history)?;
        history.told_written();
        let durable = engine.durable_lsn();
        if durable == engine.last_lsn() {
            // Each Write of this engine syncs, too.
            continue;
        }
        disk.inject(Fault { kind: FaultKind::Sync, nth: 0, repeat: Repeat::Once });
        let first = way.go(context, Arc::clone(&engine))?;
        context.explored().add_faults(disk.faults_fired());
        ensure!(
            disk.faults_fired() > 0,
            "a {way:?} makes a written change durable, but it syncs nothing and is answered with {first}",
            first = first.in_words()
        );
        let is_told = match first {
            Err(Error::Io { .. }) => true,
            // Each of several tasks that wait may get either, so a single one, too.
            Err(Error::Poisoned { .. }) => way == Way::Poll,
            _ => false,
        };
        ensure!(
            is_told,
            "the {way:?} that meets EIO after a Write is answered with {first}",
            first = first.in_words()
        );
        let now = engine.durable_lsn();
        ensure!(now == durable, "durable_lsn moved from {durable} to {now} by a sync that failed");
        if way != Way::Close {
            for (name, answer) in [
                ("put", engine.put(b"k", b"v").map(drop)),
                ("sync", engine.sync().map(drop)),
                ("close", engine.close()),
            ] {
                ensure!(
                    matches!(answer, Err(Error::Poisoned { .. })),
                    "after a failed sync a {name} is answered with {answer}, not Poisoned",
                    answer = answer.in_words()
                );
            }
        }
        for image in [disk.power_cut(PowerCut::LOSE_ALL), disk.power_cut(PowerCut::KEEP_ALL)] {
            judge(context, setup, &image, &history)
                .map_err(|failure| failure.with("after", format!("{way:?}")))?;
        }
        judge(context, setup, &disk.process_death(), &history.after_death())?;
    }
    Ok(())
}

pub(super) fn compaction_between_write_and_sync(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for policy in [Policy::Write, Policy::WriteThenSync] {
        let mut ops = overwriting(&mut rng, 150);
        for place in [30, 80, 81, 120] {
            ops.insert(place, Op::Sync);
        }
        let total = mutations_of(context, Setup::tiny(context, policy), &ops)?;
        let step = (total / context.scaled(60)).max(1);
        crash_everywhere(context, policy, &ops, 0, step, &|cut| {
            let mut lefts = three_cuts(context, cut);
            lefts.push(Left::Written);
            lefts
        })?;
    }
    Ok(())
}
