use super::case;
use crate::failure::ensure;
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::{PowerCut, SimFs};
use crate::workload::{Op, random_ops, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::{EngineExt, Lsn};

const SIMULATED: &[Need] = &[Need::SimulatedFs, Need::Inline];

pub(crate) const CASES: &[Case] = &[
    case(
        "crash::required_kv501_power_cut_at_every_operation",
        Level::Required,
        SIMULATED,
        "After a power cut at any disk operation the state is a prefix that holds all that was durable.",
        |context| sweep(context, Crash::PowerCut, &[Policy::Always, Policy::MaxLogSize(300), Policy::Manual]),
    ),
    case(
        "crash::required_kv502_process_death_at_every_operation",
        Level::Required,
        SIMULATED,
        "After the death of the process at any disk operation the state is a prefix that holds all that was durable.",
        |context| sweep(context, Crash::ProcessDeath, &[Policy::Always, Policy::MaxLogSize(300)]),
    ),
    case(
        "crash::required_kv503_crash_during_recovery",
        Level::Required,
        SIMULATED,
        "A power cut at any disk operation of a recovery, and again of the next, loses nothing more.",
        crash_during_recovery,
    ),
    case(
        "crash::required_kv504_nothing_comes_back",
        Level::Required,
        SIMULATED,
        "Under overwriting and deleting that sets off compaction, no crash brings back a deleted or an old value.",
        nothing_comes_back,
    ),
    case(
        "crash::required_kv505_loss_stays_within_the_window",
        Level::Required,
        SIMULATED,
        "A power cut takes at most what the policy's loss window says.",
        loss_stays_within_the_window,
    ),
    case(
        "crash::required_kv506_same_seed_same_run",
        Level::Required,
        SIMULATED,
        "In inline mode the same operations make the same disk operations.",
        same_seed_same_run,
    ),
    case(
        "crash::required_kv522_durable_survives_power_cut",
        Level::Required,
        &[Need::SimulatedFs],
        "What sync, wait_durable or durable_lsn reported durable survives the worst power cut.",
        durable_survives_power_cut,
    ),
    case(
        "crash::required_kv523_closed_is_durable",
        Level::Required,
        &[Need::SimulatedFs],
        "After a close, or the drop of the last handle, the worst power cut takes nothing.",
        closed_is_durable,
    ),
    case(
        "crash::required_kv524_recovered_keys_stay_deleted",
        Level::Required,
        SIMULATED,
        "Keys that an earlier open recovered, then deleted and compacted away, come back after no crash.",
        recovered_keys_stay_deleted,
    ),
    case(
        "crash::required_kv525_lsns_are_never_reused",
        Level::Required,
        &[Need::SimulatedFs],
        "Over many crashes no LSN is given out twice, not even one whose change a crash took away.",
        lsns_are_never_reused,
    ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Crash {
    PowerCut,
    ProcessDeath,
}

/// Runs `ops` on a disk that loses power after `cut` mutations. `None` when it never came to that.
fn run_until_cut(context: &Context, setup: Setup, ops: &[Op], cut: u64) -> Option<(SimFs, History)> {
    let disk = SimFs::new();
    disk.cut_after(cut);
    let mut history = History::default();
    if let Ok(engine) = context.sim_rig(disk.clone(), setup).open() {
        let _ = run_ops(&*engine, ops, &mut history);
        history.told_durable(engine.durable_lsn());
        // Dropping it closes the store: the power may go only then.
    }
    disk.has_lost_power().then_some((disk, history))
}

/// Recovers from `image` and judges what comes out; then uses the store, and opens it once more.
fn judge(context: &Context, setup: Setup, image: &SimFs, history: &History) -> CaseResult {
    context.explored().crash_state();
    let rig = context.sim_rig(image.clone(), setup);
    let in_recovery =
        |error: kv_core::Error| Failure::new(format!("a crash is recovered from, but: {error}"));
    let engine = rig.open().map_err(in_recovery)?;
    let state = state_of(&*engine)?;
    history.check(&state)?;
    ensure!(
        engine.durable_lsn() == engine.last_lsn(),
        "what was recovered is durable, but durable_lsn is {} and last_lsn {}",
        engine.durable_lsn(),
        engine.last_lsn()
    );
    let lsn = engine.put_durable(b"new", b"value")?;
    ensure!(lsn > history.last_lsn(), "LSN {lsn} is used again: {} was given out before", history.last_lsn());
    // Its death, not its close: the second recovery has work to do, too.
    let after = image.power_cut(PowerCut::LOSE_ALL);
    drop(engine);
    let again = context.sim_rig(after, setup).open().map_err(in_recovery)?;
    let mut expected = state;
    expected.insert(b"new".to_vec(), b"value".to_vec());
    ensure!(state_of(&*again)? == expected, "a second recovery gives another state than the first");
    Ok(())
}

fn explain(failure: Failure, ops: &[Op], setup: &Setup, cut: u64, image: &SimFs) -> Failure {
    failure
        .with("policy", format!("{:?}", setup.policy))
        .with("operations", format!("{ops:?}"))
        .with("crash", format!("after {cut} changes to the disk"))
        .with("the last", image.ops().last().map_or_else(String::new, ToString::to_string))
        .with("kept", image.kept().join("\n"))
}

/// The workloads of a sweep: all sequences of two short operations, and random long ones.
fn workloads(context: &Context) -> Vec<Vec<Op>> {
    let short = [
        Op::Put { key: 1, len: 9 },
        Op::Put { key: 2, len: 700 },
        Op::Delete { key: 1 },
        Op::Batch(vec![(1, Some(8)), (2, None), (3, Some(600))]),
        Op::Sync,
    ];
    let mut workloads: Vec<Vec<Op>> = Vec::new();
    for first in &short {
        for second in &short {
            workloads.push(vec![first.clone(), second.clone()]);
        }
    }
    let mut rng = context.rng();
    workloads.extend((0..context.scaled(2)).map(|_| random_ops(&mut rng, 60, 10)));
    workloads
}

fn sweep(context: &Context, crash: Crash, policies: &[Policy]) -> CaseResult {
    for ops in workloads(context) {
        for policy in policies {
            let setup = Setup::tiny(context, *policy);
            for cut in 0.. {
                let Some((disk, history)) = run_until_cut(context, setup, &ops, cut) else { break };
                let images: Vec<SimFs> = match crash {
                    Crash::ProcessDeath => vec![disk.process_death()],
                    Crash::PowerCut => (0..context.scaled(5))
                        .map(|n| disk.power_cut(PowerCut::seeded(n + n / 2 * cut)))
                        .collect(),
                };
                for image in images {
                    let result = judge(context, setup, &image, &history);
                    result.map_err(|failure| explain(failure, &ops, &setup, cut, &image))?;
                }
            }
        }
    }
    ensure!(context.explored().crash_states() > 100, "the harness is broken: hardly any crash was simulated");
    Ok(())
}

fn crash_during_recovery(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    for round in 0..context.scaled(12) {
        let ops = random_ops(&mut rng, 40, 8);
        let Some((disk, history)) = run_until_cut(context, setup, &ops, rng.u64(4..60)) else { continue };
        let first = disk.power_cut(PowerCut::seeded(round));
        for cut in 0.. {
            let second = first.power_cut(PowerCut::KEEP_ALL);
            let before = second.mutations();
            second.cut_after(before + cut);
            let opened = context.sim_rig(second.clone(), setup).open();
            let ended = opened.is_ok() && !second.has_lost_power();
            drop(opened);
            if ended {
                break;
            }
            for seed in [0, 1, 2 + cut] {
                let third = second.power_cut(PowerCut::seeded(seed));
                let result = judge(context, setup, &third, &history);
                result.map_err(|failure| explain(failure, &ops, &setup, cut, &third))?;
            }
        }
    }
    ensure!(context.explored().crash_states() > 0, "the harness is broken: no crash was simulated");
    Ok(())
}

fn nothing_comes_back(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    for _ in 0..context.scaled(2) {
        // Few keys and large values: segments fill up and die quickly.
        let ops: Vec<Op> = (0..250)
            .map(|_| {
                let key = rng.u8(0..6);
                if rng.u8(0..3) == 0 { Op::Delete { key } } else { Op::Put { key, len: rng.usize(50..200) } }
            })
            .collect();
        let Some(total) = mutations_of(context, setup, &ops)? else { continue };
        let step = (total / context.scaled(120)).max(1);
        for cut in (0..total).step_by(usize::try_from(step).unwrap_or(1)) {
            let Some((disk, history)) = run_until_cut(context, setup, &ops, cut) else { break };
            for seed in [0, 1, cut + 2] {
                let image = disk.power_cut(PowerCut::seeded(seed));
                let result = judge(context, setup, &image, &history);
                result.map_err(|failure| explain(failure, &ops, &setup, cut, &image))?;
            }
        }
    }
    ensure!(context.explored().crash_states() > 0, "the harness is broken: no crash was simulated");
    Ok(())
}

/// How many mutations a whole run makes.
fn mutations_of(context: &Context, setup: Setup, ops: &[Op]) -> Result<Option<u64>, Failure> {
    let disk = SimFs::new();
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    run_ops(&*engine, ops, &mut History::default())?;
    Ok(Some(disk.mutations()))
}

fn loss_stays_within_the_window(context: &Context) -> CaseResult {
    let limit = 300u64;
    let setup = Setup::tiny(context, Policy::MaxLogSize(limit));
    let disk = SimFs::new();
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    let mut written: Vec<(Lsn, u64)> = Vec::new();
    for number in 0..200u8 {
        let lsn = engine.put(&[number % 9], &[number; 20])?;
        written.push((lsn, 21));
        let image = disk.power_cut(PowerCut::LOSE_ALL);
        let recovered = context.sim_rig(image, setup).open()?.last_lsn();
        context.explored().crash_state();
        // Keys and values only: what an engine adds to them may only make it dump earlier.
        let lost: u64 = written.iter().filter(|(lsn, _)| *lsn > recovered).map(|(_, bytes)| bytes).sum();
        ensure!(lost < limit, "{lost} bytes are lost under a policy that promises fewer than {limit}");
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

fn durable_survives_power_cut(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for policy in Policy::ALL {
        let setup = Setup::tiny(context, policy);
        for round in 0..context.scaled(20) {
            let disk = SimFs::new();
            let engine = context.sim_rig(disk.clone(), setup).open()?;
            let mut history = History::default();
            run_ops(&*engine, &random_ops(&mut rng, 30, 8), &mut history)?;
            history.told_durable(engine.sync()?);
            run_ops(&*engine, &random_ops(&mut rng, 10, 8), &mut history)?;
            engine.wait_durable(history.last_lsn())?;
            history.told_durable(history.last_lsn());
            let image = disk.power_cut(PowerCut::seeded(round));
            judge(context, setup, &image, &history).map_err(|failure| {
                failure.with("policy", format!("{policy:?}")).with("kept", image.kept().join("\n"))
            })?;
        }
    }
    Ok(())
}

fn closed_is_durable(context: &Context) -> CaseResult {
    for policy in Policy::ALL {
        for by_drop in [false, true] {
            let setup = Setup::tiny(context, policy);
            let disk = SimFs::new();
            let engine = context.sim_rig(disk.clone(), setup).open()?;
            let mut history = History::default();
            run_ops(&*engine, &random_ops(&mut context.rng(), 60, 8), &mut history)?;
            if !by_drop {
                engine.close()?;
            }
            drop(engine);
            history.told_durable(history.last_lsn());
            let image = disk.power_cut(PowerCut::LOSE_ALL);
            judge(context, setup, &image, &history).map_err(|failure| {
                let how = if by_drop { "dropped" } else { "closed" };
                failure.with("policy", format!("{policy:?}, {how}")).with("kept", image.kept().join("\n"))
            })?;
        }
    }
    Ok(())
}

/// Fills a store and closes it; then, on the same disk, deletes and overwrites until files are compacted,
/// and crashes at every operation of that.
fn recovered_keys_stay_deleted(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    let fill: Vec<Op> = (0..24).map(|key| Op::Put { key, len: 80 }).collect();
    let mut change: Vec<Op> = (0..20).map(|key| Op::Delete { key }).collect();
    change.extend((0..60).map(|number| Op::Put { key: 20 + number % 4, len: 80 }));
    for cut in 0.. {
        let filled = SimFs::new();
        let mut history = History::default();
        let engine = context.sim_rig(filled.clone(), setup).open()?;
        run_ops(&*engine, &fill, &mut history)?;
        engine.close()?;
        history.told_durable(history.last_lsn());

        let disk = filled.process_death();
        disk.cut_after(cut);
        if let Ok(engine) = context.sim_rig(disk.clone(), setup).open() {
            let _ = run_ops(&*engine, &change, &mut history);
            history.told_durable(engine.durable_lsn());
        }
        for seed in [0, 1, cut + 2] {
            let image = disk.power_cut(PowerCut::seeded(seed));
            judge(context, setup, &image, &history)
                .map_err(|failure| explain(failure, &change, &setup, cut, &image))?;
        }
        if !disk.has_lost_power() {
            break;
        }
    }
    Ok(())
}

fn lsns_are_never_reused(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for _ in 0..context.scaled(20) {
        let policy = rng.choice(Policy::ALL).unwrap_or(Policy::Manual);
        let setup = Setup::tiny(context, policy);
        let (mut disk, mut newest) = (SimFs::new(), Lsn::ZERO);
        for round in 0..8 {
            let ops = random_ops(&mut rng, 20, 6);
            context.set_doing(format!("round {round} under {policy:?}: {ops:?}"));
            disk.cut_after(rng.u64(0..60));
            let mut history = History::default();
            if let Ok(engine) = context.sim_rig(disk.clone(), setup).open() {
                let _ = run_ops(&*engine, &ops, &mut history);
            }
            history.check_order()?;
            if let Some(first) = history.first_lsn() {
                ensure!(
                    first > newest,
                    "round {round} under {policy:?}: LSN {first} is used again, {newest} was given out before"
                );
                newest = history.last_lsn();
            }
            context.explored().crash_state();
            disk = disk.power_cut(PowerCut::seeded(rng.u64(..4)));
        }
    }
    Ok(())
}
