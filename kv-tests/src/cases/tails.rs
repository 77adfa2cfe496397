//! Shared memory after the death of a process, and the next openings: cases of the group `crash`.
//!
//! An engine may keep process-safe changes elsewhere. Then the machine has no shared objects, and
//! the cases ask for less.

use super::case;
use crate::failure::{ensure, fail};
use crate::oracle::{History, State, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::{PowerCut, SimFs};
use crate::workload::{Op, random_ops, run_op, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::{Error, ProcessSafety};
use std::path::Path;

const SAFE: &[Need] = &[Need::SimulatedFs, Need::Inline, Need::ProcessSafe];

pub(crate) const CASES: &[Case] = &[
    case(
        "crash::required_kv535_deaths_of_the_next_openings",
        Level::Required,
        SAFE,
        "After deaths at any operation of the openings that follow a death, every process-safe change is there, and durable ones survive a power cut.",
        openings_die,
    ),
    case(
        "crash::required_kv536_a_passed_over_tail_is_stale",
        Level::Required,
        SAFE,
        "Changes in shared memory that an opening did not find never come back.",
        a_passed_over_tail_is_stale,
    ),
    case(
        "crash::required_kv537_a_copy_adopts_nothing",
        Level::Required,
        SAFE,
        "A copy of a directory takes no change of the original from shared memory.",
        a_copy_adopts_nothing,
    ),
    case(
        "crash::required_kv538_damage_in_shared_memory",
        Level::Required,
        SAFE,
        "After damage to shared memory the state is a prefix with all durable changes.",
        damage_leaves_a_prefix,
    ),
    case(
        "crash::required_kv539_statistics_of_process_safety",
        Level::Required,
        SAFE,
        "With any amount of shared memory Stats says whether the changes so far survive a death.",
        the_statistics_tell_the_truth,
    ),
    case(
        "crash::required_kv540_objects_go_with_a_clean_close",
        Level::Required,
        SAFE,
        "A clean close leaves nothing in shared memory, and a reader leaves what a dead process left.",
        objects_go_with_a_clean_close,
    ),
];

/// The changes that a process leaves: most of them in shared memory, if the engine uses it.
fn operations(context: &Context) -> Vec<Op> {
    let mut ops = random_ops(&mut context.rng(), 25, 6);
    ops.retain(|op| *op != Op::Sync);
    ops
}

fn setup(context: &Context) -> Setup {
    Setup::tiny(context, Policy::Manual)
}

/// A machine on which a process made changes and died, and their history.
fn after_death(context: &Context) -> Result<(SimFs, History), Failure> {
    let (disk, mut history) = (SimFs::new(), History::default());
    let engine = context.sim_rig(disk.clone(), setup(context)).open()?;
    run_ops(&*engine, &operations(context), &mut history)?;
    history.told_written();
    Ok((disk.process_death(), history))
}

fn state_on(context: &Context, disk: &SimFs) -> Result<State, Failure> {
    let engine = context.sim_rig(disk.clone(), setup(context)).open()?;
    let state = state_of(&*engine)?;
    engine.close()?;
    Ok(state)
}

fn without_objects(disk: &SimFs) -> SimFs {
    let disk = disk.process_death();
    for (name, _) in disk.shared_objects() {
        disk.damage_shared(&name, None);
    }
    disk
}

/// The next process dies at each operation of its opening, and so do the two after it. Once an
/// opening has returned, its durable changes survive a power cut.
fn openings_die(context: &Context) -> CaseResult {
    let (whole, history) = after_death(context)?;
    for after in 0.. {
        let disk = whole.process_death();
        disk.cut_after(after);
        let opened = context.sim_rig(disk.clone(), setup(context)).open();
        let mut image = disk.process_death();
        for later in [after / 2, after] {
            image.cut_after(later);
            drop(context.sim_rig(image.clone(), setup(context)).open());
            image = image.process_death();
        }
        let at =
            |failure: Failure| failure.with("where", format!("death after operation {after} of the opening"));
        context.explored().crash_state();
        history.after_death().check(&state_on(context, &image)?).map_err(at)?;
        let is_over = !disk.has_lost_power();
        // The engine stays open: its drop would change the disk.
        let durable = match &opened {
            Ok(engine) => history.as_if_durable(engine.durable_lsn()),
            Err(error) if is_over => return Err(error.clone().into()),
            Err(_) => history.clone(),
        };
        for cut in [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL, context.power_cut(after)] {
            context.explored().crash_state();
            durable.check(&state_on(context, &disk.power_cut(cut))?).map_err(at)?;
        }
        if is_over {
            break;
        }
    }
    Ok(())
}

/// An opening that does not find the objects goes on without their changes, which never come back.
fn a_passed_over_tail_is_stale(context: &Context) -> CaseResult {
    let (whole, _) = after_death(context)?;
    for changes in [0, 1, 20] {
        let disk = without_objects(&whole);
        let engine = context.sim_rig(disk.clone(), setup(context)).open()?;
        let mut history = History::numbered_from(1000);
        run_ops(&*engine, &random_ops(&mut context.rng(), changes, 6), &mut history)?;
        let state = state_of(&*engine)?;
        engine.close()?;
        drop(engine);
        for (name, bytes) in whole.shared_objects() {
            disk.damage_shared(&name, Some(bytes));
        }
        ensure!(
            state_on(context, &disk)? == state,
            "changes that an opening did not find stay lost, but {changes} changes later they came back"
        );
    }
    Ok(())
}

/// A copy of the directory on the same machine shows what its files hold. The original keeps its
/// changes.
fn a_copy_adopts_nothing(context: &Context) -> CaseResult {
    const COPY: &str = "/copy";
    let (whole, history) = after_death(context)?;
    let copied = |disk: &SimFs| -> Result<State, Failure> {
        for (path, bytes) in whole.files() {
            let path = Path::new(COPY).join(path.strip_prefix("/store").unwrap_or(&path));
            disk.damage(&path, Some(bytes));
        }
        let engine = context.sim_rig(disk.clone(), setup(context)).in_dir(COPY).open()?;
        Ok(state_of(&*engine)?)
    };
    let disk = whole.process_death();
    kv_core::Fs::create_dir(&disk, Path::new(COPY))?;
    let alone = without_objects(&disk);
    ensure!(
        copied(&disk)? == copied(&alone)?,
        "a copy of a store shows what its files hold, but it took changes of the original from shared memory"
    );
    history.after_death().check(&state_on(context, &disk.process_death())?)
}

/// A damaged, cut or missing object costs changes from the end of the log order, and brings back
/// none.
fn damage_leaves_a_prefix(context: &Context) -> CaseResult {
    let (whole, history) = after_death(context)?;
    let mut rng = context.rng();
    for (name, bytes) in whole.shared_objects() {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let step = (used / usize::try_from(context.scaled(150)).unwrap_or(1)).max(1);
        let mut damages = vec![None, Some(Vec::new()), Some(vec![0; bytes.len()])];
        for at in (0..used).step_by(step) {
            let at = (at + rng.usize(..step)).min(used.saturating_sub(1));
            let mut flipped = bytes.clone();
            if let Some(byte) = flipped.get_mut(at) {
                *byte ^= 1 << rng.u8(..8);
            }
            let mut torn = bytes.clone();
            torn.iter_mut().skip(at).for_each(|byte| *byte = 0);
            damages.extend([Some(flipped), Some(torn), bytes.get(..at).map(<[u8]>::to_vec)]);
        }
        for damaged in damages {
            let disk = whole.process_death();
            disk.damage_shared(&name, damaged);
            context.explored().crash_state();
            match context.sim_rig(disk, setup(context)).open() {
                // Changes that only shared memory held may be lost here.
                Ok(engine) => history.check(&state_of(&*engine)?)?,
                Err(Error::Corruption { .. }) => {}
                Err(error) => {
                    fail!("an opening that meets damage succeeds or says Corruption, but it says: {error}")
                }
            }
        }
    }
    Ok(())
}

/// `Stats` says after each change whether the changes so far survive a death.
fn the_statistics_tell_the_truth(context: &Context) -> CaseResult {
    for limit in [None, Some(0), Some(5000), Some(20_000)] {
        let disk = SimFs::new();
        disk.limit_shared_memory(limit);
        disk.lack_shared_memory(limit.is_none());
        let engine = context.sim_rig(disk.clone(), setup(context)).open()?;
        let mut history = History::default();
        for op in &operations(context) {
            run_op(&*engine, op, &mut history)?;
            if engine.stats().process_safety == ProcessSafety::Safe {
                history.told_written();
            }
            context.explored().crash_state();
            let image = disk.process_death();
            image.limit_shared_memory(None);
            let found = state_on(context, &image)?;
            let space = limit.map_or("no shared memory".to_owned(), |bytes| format!("{bytes} bytes"));
            history.after_death().check(&found).map_err(|failure| failure.with("shared memory", space))?;
        }
    }
    Ok(())
}

/// A clean close leaves no object. A reader sees the changes of a dead process, and leaves them.
fn objects_go_with_a_clean_close(context: &Context) -> CaseResult {
    let (disk, history) = after_death(context)?;
    let history = history.after_death();
    if context.factory().capabilities().read_only {
        let rig = context.sim_rig(disk.clone(), setup(context));
        let reader = rig.open_with(&kv_core::OpenOptions { read_only: true, ..setup(context).options() })?;
        let seen = state_of(&*reader)?;
        reader.close()?;
        history.check(&seen)?;
        let after_reader = disk.process_death();
        history.check(&state_on(context, &after_reader)?)?;
    }
    history.check(&state_on(context, &disk)?)?;
    let left: Vec<String> = disk.shared_objects().into_iter().map(|(name, _)| name).collect();
    ensure!(
        left.is_empty(),
        "a store that was closed leaves nothing in shared memory, but it leaves {left:?}"
    );
    Ok(())
}
