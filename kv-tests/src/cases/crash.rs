//! Crashes at every change of the disk, and the state that an engine recovers after them.

use super::places::telling_places;
use super::sweeps::{check_image, crash_everywhere, mutations_of, overwriting, three_cuts};
use super::{case, checkpoints, loss, process_safe, written};
use crate::failure::ensure;
use crate::oracle::History;
use crate::rig::{Policy, Setup};
use crate::scenario::{Crash, Left, Rest, Run, Scenario, Trouble, bytes_of, judge, last_write, unchanged_by};
use crate::sim::{OpKind, PowerCut, SimFs};
use crate::workload::{Op, random_ops, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::Background;

const SIMULATED: &[Need] = &[Need::SimulatedFs, Need::Inline];

pub(crate) const CASES: &[Case] = &[
    case(
        "crash::required_kv501_power_cut_at_every_operation",
        Level::Required,
        SIMULATED,
        "After a power cut at any disk operation the state is a prefix with all durable changes.",
        |context| {
            let all = [
                Policy::Always,
                Policy::MaxLogSize(300),
                Policy::Manual,
                Policy::Write,
                Policy::WriteThenSync,
            ];
            sweep(context, &all, &|cut| power_cuts(context, cut))
        },
    ),
    case(
        "crash::required_kv502_process_death_at_every_operation",
        Level::Required,
        SIMULATED,
        "After the death of the process at any disk operation the state is a prefix with all durable and written changes.",
        |context| {
            let all = [Policy::Always, Policy::MaxLogSize(300), Policy::Write, Policy::WriteThenSync];
            sweep(context, &all, &|_| vec![Left::Written])
        },
    ),
    case(
        "crash::required_kv503_crash_during_recovery",
        Level::Required,
        SIMULATED,
        "Power cuts at any disk operation of a recovery, and during the next one again, lose nothing more.",
        crash_during_recovery,
    ),
    case(
        "crash::required_kv504_nothing_comes_back",
        Level::Required,
        SIMULATED,
        "Under overwrites and deletes that start compactions, no crash brings back a deleted or an old value.",
        nothing_comes_back,
    ),
    case(
        "crash::required_kv505_loss_stays_within_the_window",
        Level::Required,
        SIMULATED,
        "A power cut loses at most the policy's loss window.",
        loss::loss_stays_within_the_window,
    ),
    case(
        "crash::required_kv506_same_seed_same_run",
        Level::Required,
        SIMULATED,
        "In inline mode the same operations make the same disk operations.",
        same_seed_same_run,
    ),
    case(
        "crash::required_kv507_torn_at_every_byte",
        Level::Required,
        SIMULATED,
        "A write torn at any byte, with nothing, zeros or stale bytes behind it, leaves a prefix.",
        torn_at_every_byte,
    ),
    case(
        "crash::required_kv508_every_sequence_of_three",
        Level::Required,
        SIMULATED,
        "Every crash point in every sequence of three operations leaves a prefix.",
        every_sequence_of_three,
    ),
    case(
        "crash::required_kv509_periodic_keeps_its_window",
        Level::Required,
        SIMULATED,
        "Under Periodic the worst power cut loses no change that was older than the interval at the last change.",
        loss::periodic_keeps_its_window,
    ),
    case(
        "crash::stochastic_kv510_background_work_under_the_cut",
        Level::Stochastic,
        &[Need::SimulatedFs],
        "With background threads at work, a power cut at any moment leaves a prefix with all durable changes.",
        background_work_under_the_cut,
    ),
    case(
        "crash::required_kv511_power_cut_after_a_death",
        Level::Required,
        SIMULATED,
        "After a process died right after a rename, a power cut during the next recovery loses nothing durable.",
        power_cut_after_a_death,
    ),
    case(
        "crash::required_kv522_durable_survives_power_cut",
        Level::Required,
        &[Need::SimulatedFs],
        "Changes that sync, wait_durable or durable_lsn reported as durable survive the worst power cut.",
        loss::durable_survives_power_cut,
    ),
    case(
        "crash::required_kv523_closed_is_durable",
        Level::Required,
        &[Need::SimulatedFs],
        "After a close, or the drop of the last handle, the worst power cut loses nothing.",
        loss::closed_is_durable,
    ),
    case(
        "crash::required_kv524_recovered_keys_stay_deleted",
        Level::Required,
        SIMULATED,
        "No crash brings back keys that an earlier open recovered, and that were then deleted and compacted away.",
        recovered_keys_stay_deleted,
    ),
    case(
        "crash::required_kv525_lsns_are_never_reused",
        Level::Required,
        &[Need::SimulatedFs],
        "Over many crashes the engine gives out no LSN twice, not even one whose change a crash lost.",
        loss::lsns_are_never_reused,
    ),
    case(
        "crash::required_kv526_a_write_survives_a_death",
        Level::Required,
        SIMULATED,
        "A change that a Write handed to the operating system survives the death of the process.",
        written::a_write_survives_a_death,
    ),
    case(
        "crash::required_kv527_a_later_sync_covers_writes",
        Level::Required,
        &[Need::SimulatedFs],
        "sync, wait_durable, poll_durable, close and drop make durable what a Write handed over.",
        written::a_later_sync_covers_writes,
    ),
    case(
        "crash::required_kv528_compaction_between_write_and_sync",
        Level::Required,
        SIMULATED,
        "Between Writes and syncs under overwrites and deletes, no crash loses or brings back anything.",
        written::compaction_between_write_and_sync,
    ),
    case(
        "crash::required_kv529_a_thread_writes",
        Level::Required,
        &[Need::SimulatedFs],
        "With background threads a Write reaches the operating system without any further call.",
        written::a_thread_writes,
    ),
    case(
        "crash::required_kv530_a_failed_sync_after_a_write_poisons",
        Level::Required,
        SIMULATED,
        "A sync that fails after a Write is reported and poisons, though the engine holds no unwritten byte.",
        written::a_failed_sync_after_a_write_poisons,
    ),
    case(
        "crash::required_kv531_process_safe_changes_survive_a_death",
        Level::Required,
        &[Need::SimulatedFs, Need::ProcessSafe],
        "Under every policy, inline and with threads, a process-safe change survives the death of the process when its call returns.",
        process_safe::each_change_survives_a_death,
    ),
    case(
        "crash::stochastic_kv532_process_safe_changes_of_threads",
        Level::Stochastic,
        &[Need::SimulatedFs, Need::ProcessSafe],
        "The death of the process takes no process-safe change of any thread whose call had returned.",
        process_safe::changes_of_threads_survive_a_death,
    ),
    case(
        "crash::required_kv533_a_checkpoint_makes_changes_durable",
        Level::Required,
        &[Need::SimulatedFs, Need::Inline, Need::Checkpoint],
        "A checkpoint makes all changes before it durable. An open from it shows them, and no deleted key comes back.",
        checkpoints::changes_are_durable,
    ),
    case(
        "crash::required_kv534_a_crash_at_every_operation_of_a_checkpoint",
        Level::Required,
        &[Need::SimulatedFs, Need::Inline, Need::Checkpoint],
        "A power cut or a death at any operation of a checkpoint loses nothing that was durable, and brings nothing back.",
        checkpoints::a_crash_at_every_operation,
    ),
];

/// The workloads of a sweep, each with its policies: all sequences of two short operations under
/// all of them, and random long ones under every second policy in turn.
fn workloads(context: &Context, policies: &[Policy]) -> Vec<(Vec<Op>, Vec<Policy>)> {
    let short = [
        Op::Put { key: 1, len: 9 },
        Op::Put { key: 2, len: 700 },
        Op::Delete { key: 1 },
        Op::Batch(vec![(1, Some(8)), (2, None), (3, Some(600))]),
        Op::Sync,
    ];
    let mut workloads = Vec::new();
    for first in &short {
        for second in &short {
            workloads.push((vec![first.clone(), second.clone()], policies.to_vec()));
        }
    }
    let mut rng = context.rng();
    for first in [0, 1].into_iter().cycle().take(usize::try_from(context.scaled(2)).unwrap_or(2)) {
        let every_second = policies.iter().copied().skip(first).step_by(2).collect();
        workloads.push((random_ops(&mut rng, 60, 10), every_second));
    }
    workloads
}

/// The power cuts of a sweep after `cut` changes: all lost, all kept, and other draws each time.
fn power_cuts(context: &Context, cut: u64) -> Vec<Left> {
    (0..context.scaled(5)).map(|n| Left::Power(context.power_cut(n + n / 2 * cut))).collect()
}

fn sweep(context: &Context, policies: &[Policy], lefts: &dyn Fn(u64) -> Vec<Left>) -> CaseResult {
    for (ops, policies) in workloads(context, policies) {
        for policy in policies {
            crash_everywhere(context, policy, &ops, 0, 1, lefts)?;
        }
    }
    ensure!(context.explored().crash_states() > 100, "the harness is broken: hardly any crash was simulated");
    Ok(())
}

/// Three crashes: one during the operations, one at every change of the recovery from it, and one
/// at some change of the next recovery.
fn crash_during_recovery(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let policy = Policy::MaxLogSize(300);
    let setup = Setup::tiny(context, policy);
    let mut third_crashes = 0u64;
    for round in 0..context.scaled(12) {
        let mut ops = random_ops(&mut rng, 40, 8);
        if round % 2 == 1 {
            ops.insert(20, Op::Reopen);
        }
        let first = Crash { after: rng.u64(4..60), left: Left::Power(context.power_cut(round)) };
        let Some(run) = Run::until_cut(context, setup, &ops, first.after) else { continue };
        let start = first.left.image(&run.disk);
        for after in 0.. {
            let Some(cut_short) = recovery_cut_short(context, setup, &start, after) else { break };
            for seed in [0, 1, 2 + after] {
                let second = Crash { after, left: Left::Power(context.power_cut(seed)) };
                let image = second.left.image(&cut_short);
                let mut crashes = vec![first, second];
                let third =
                    Crash { after: rng.u64(0..12), left: Left::Power(PowerCut::seeded(rng.u64(0..9))) };
                let again = recovery_cut_short(context, setup, &image.process_death(), third.after);
                if let Some(again) = again {
                    third_crashes += 1;
                    crashes.push(third);
                    check_image(context, policy, &ops, &crashes, &third.left.image(&again), &run.history)?;
                    crashes.pop();
                }
                check_image(context, policy, &ops, &crashes, &image, &run.history)?;
            }
        }
    }
    ensure!(third_crashes > 0, "the harness is broken: no third crash was simulated");
    Ok(())
}

/// The next process finds the renames of the dead one. But no directory was synced, so the power
/// cut may undo them.
fn power_cut_after_a_death(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let policy = Policy::MaxLogSize(300);
    let setup = Setup::tiny(context, policy);
    let ops = overwriting(&mut rng, 120);
    let disk = SimFs::new();
    if let Some(error) = Run::on(context, disk.clone(), setup, &ops).error {
        return Err(error.into());
    }
    let (mut mutations, mut renamings) = (0, Vec::new());
    for op in disk.ops().iter().filter(|op| op.kind.is_mutation()) {
        mutations += 1;
        if op.kind == OpKind::Rename {
            renamings.push(mutations);
        }
    }
    let step = (renamings.len() / usize::try_from(context.scaled(12)).unwrap_or(1)).max(1);
    for after in renamings.into_iter().step_by(step) {
        let first = Crash { after, left: Left::Written };
        let Some(run) = Run::until_cut(context, setup, &ops, after) else { continue };
        let start = first.left.image(&run.disk);
        for after in 0.. {
            let Some(cut_short) = recovery_cut_short(context, setup, &start, after) else { break };
            for seed in [0, 1, 2 + after, 100 + after] {
                let second = Crash { after, left: Left::Power(context.power_cut(seed)) };
                let image = second.left.image(&cut_short);
                check_image(context, policy, &ops, &[first, second], &image, &run.history)?;
            }
        }
    }
    ensure!(context.explored().crash_states() > 0, "the harness is broken: no crash was simulated");
    Ok(())
}

/// The disk when opening `image` loses power after so many changes. `None` if the open makes fewer.
fn recovery_cut_short(context: &Context, setup: Setup, image: &SimFs, after: u64) -> Option<SimFs> {
    let disk = image.process_death();
    disk.cut_after(after);
    drop(context.sim_rig(disk.clone(), setup).open());
    disk.has_lost_power().then_some(disk)
}

fn nothing_comes_back(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let policy = Policy::MaxLogSize(300);
    for _ in 0..context.scaled(2) {
        let ops = overwriting(&mut rng, 250);
        let total = mutations_of(context, Setup::tiny(context, policy), &ops)?;
        let step = (total / context.scaled(120)).max(1);
        crash_everywhere(context, policy, &ops, 0, step, &|cut| three_cuts(context, cut))?;
    }
    ensure!(context.explored().crash_states() > 0, "the harness is broken: no crash was simulated");
    Ok(())
}

fn torn_at_every_byte(context: &Context) -> CaseResult {
    let mut ops = random_ops(&mut context.rng(), 10, 6);
    ops.push(Op::Reopen);
    ops.extend(random_ops(&mut context.rng(), 4, 6));
    let torn = context.explored().crash_states();
    for policy in [Policy::Always, Policy::MaxLogSize(300)] {
        let setup = Setup::tiny(context, policy);
        for after in 0.. {
            let Some(run) = Run::until_cut(context, setup, &ops, after) else { break };
            let Some(write) = last_write(&run.disk) else { continue };
            let places = telling_places(context, &bytes_of(&run.disk, &write));
            let unchanged = unchanged_by(&run.disk, &write);
            for bytes in places.into_iter().map(|at| at as u64).filter(|at| *at >= unchanged) {
                for rest in [Rest::Cut, Rest::Zeros, Rest::Stale] {
                    let left = Left::Torn { bytes, rest };
                    judge(context, setup, &left.image(&run.disk), &run.history).map_err(|failure| {
                        let trouble = Trouble::Crashes(vec![Crash { after, left }]);
                        Scenario { policy, ops: ops.clone(), trouble }.report(context, failure)
                    })?;
                }
            }
        }
    }
    ensure!(context.explored().crash_states() > torn, "the harness is broken: no write was torn");
    Ok(())
}

/// All of them, from an alphabet of seven. Shorter sequences cover crashes during the first two
/// operations, so the power fails in the third and during the close.
fn every_sequence_of_three(context: &Context) -> CaseResult {
    let alphabet = [
        Op::Put { key: 1, len: 9 },
        Op::Put { key: 1, len: 700 },
        Op::Delete { key: 1 },
        Op::Batch(vec![(1, Some(8)), (2, None), (3, Some(300))]),
        Op::Sync,
        Op::Compact,
        Op::Reopen,
    ];
    let mut beginnings = Vec::new();
    for first in &alphabet {
        for second in &alphabet {
            beginnings.push([first.clone(), second.clone()]);
        }
    }
    // Each beginning runs under Manual, and under one of two other policies in turn.
    for (beginning, other) in beginnings.iter().zip([Policy::Write, Policy::MaxLogSize(300)].iter().cycle()) {
        for policy in [Policy::Manual, *other] {
            let mut ops = beginning.to_vec();
            let from = mutations_of(context, Setup::tiny(context, policy), &ops)?;
            for third in &alphabet {
                ops.truncate(2);
                ops.push(third.clone());
                crash_everywhere(context, policy, &ops, from, 1, &|cut| three_cuts(context, cut))?;
            }
        }
    }
    Ok(())
}

/// One writer makes the history known. The engine's own threads race with it and with the cut.
fn background_work_under_the_cut(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for round in 0..context.scaled(150) {
        let policy = rng
            .choice([Policy::AnyOf, Policy::MaxLogSize(300), Policy::Always, Policy::WriteThenSync])
            .unwrap_or(Policy::AnyOf);
        let setup = Setup { background: Background::Threads, ..Setup::tiny(context, policy) };
        let ops = random_ops(&mut rng, 120, 8);
        let disk = SimFs::new();
        disk.cut_after(rng.u64(0..80));
        let mut run = Run::on(context, disk.clone(), setup, &ops);
        run.engine = None;
        let seed = round % 2 * rng.u64(..);
        let image = disk.power_cut(PowerCut::seeded(seed));
        judge(context, setup, &image, &run.history).map_err(|failure| {
            failure
                .with("policy", format!("{policy:?}"))
                .with("operations", ops.iter().map(Op::describe).collect::<Vec<_>>().join("\n"))
                .with("kept", image.kept().join("\n"))
                .with_image(disk.power_cut(PowerCut::seeded(seed)))
        })?;
    }
    Ok(())
}

fn same_seed_same_run(context: &Context) -> CaseResult {
    let ops = random_ops(&mut context.rng(), 200, 8);
    let run = || -> Result<_, Failure> {
        let disk = SimFs::new();
        let engine = context.sim_rig(disk.clone(), Setup::tiny(context, Policy::AnyOf)).open()?;
        run_ops(&*engine, &ops, &mut History::default())?;
        engine.close()?;
        Ok(disk.ops())
    };
    let (first, second) = (run()?, run()?);
    let differs = first.iter().zip(&second).position(|(one, other)| one != other);
    ensure!(
        differs.is_none() && first.len() == second.len(),
        "two runs of the same operations differ at disk operation {differs:?}"
    );
    Ok(())
}

/// Fills a store and closes it. Then, on the same disk, deletes and overwrites until the engine
/// compacts, and crashes at every operation of that phase.
fn recovered_keys_stay_deleted(context: &Context) -> CaseResult {
    let policy = Policy::MaxLogSize(300);
    let mut ops: Vec<Op> = (0..24).map(|key| Op::Put { key, len: 80 }).collect();
    ops.push(Op::Reopen);
    let filled = mutations_of(context, Setup::tiny(context, policy), &ops)?;
    ops.extend((0..20).map(|key| Op::Delete { key }));
    ops.extend((0..60).map(|number| Op::Put { key: 20 + number % 4, len: 80 }));
    crash_everywhere(context, policy, &ops, filled, 1, &|cut| three_cuts(context, cut))
}
