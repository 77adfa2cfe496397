//! Processes that die at chosen operations, damage to real files, and what a process holds: also
//! for engines that do their own I/O.

use super::{case, kills, process};
use crate::failure::{ensure, fail};
use crate::oracle::{History, State, state_of};
use crate::rig::{Policy, Rig, Setup};
use crate::servant::Servant;
use crate::workload::{Op, random_ops, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use fastrand::Rng;
use kv_core::fs::{FileExt, FsExt, LOCK_FILE, OpenMode};
use kv_core::parts::Reserve;
use kv_core::{EngineExt, Error, Lsn};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    case(
        "process::required_kv903_killed_after_every_answer",
        Level::Required,
        &[Need::ChildProcess],
        "After kill -9 behind any answer of the engine the state is a prefix with all changes reported as durable.",
        killed_after_every_answer,
    ),
    case(
        "process::stochastic_kv904_killed_within_an_operation",
        Level::Stochastic,
        &[Need::ChildProcess],
        "After kill -9 within any operation, an open and a close included, the state is a prefix with all durable changes.",
        killed_within_an_operation,
    ),
    case(
        "process::required_kv905_damage_on_real_files",
        Level::Required,
        &[],
        "Damage to the real files of a closed store is an error, and changes nothing on the disk, or the state is as it was.",
        damage_on_real_files,
    ),
    case(
        "process::required_kv906_a_closed_store_holds_no_file_and_no_thread",
        Level::Required,
        &[Need::ChildProcess],
        "A process that has closed its stores has as many open files and threads as before.",
        a_closed_store_holds_no_file_and_no_thread,
    ),
    case(
        "process::stochastic_kv907_kill_of_a_process_safe_engine",
        Level::Stochastic,
        &[Need::ChildProcess, Need::ProcessSafe],
        "After kill -9 of a process-safe engine under Manual, no change is lost whose call had returned.",
        process::kill_a_process_safe_engine,
    ),
    case(
        "process::stochastic_kv908_kills_of_threads_under_every_policy",
        Level::Stochastic,
        &[Need::ChildProcess, Need::ProcessSafe],
        "After kill -9 at any moment no thread of a process-safe engine lacks a change whose call had returned, under any policy.",
        kills::kills_of_threads,
    ),
];

/// Changes of every kind.
fn sample(context: &Context) -> Vec<Op> {
    let mut ops = vec![
        Op::Put { key: 1, len: 40 },
        Op::Put { key: 2, len: 0 },
        Op::Batch(vec![(3, Some(30)), (1, None)]),
        Op::Sync,
        Op::Put { key: 2, len: 90 },
        Op::Delete { key: 2 },
    ];
    ops.extend(random_ops(&mut context.rng(), 40, 6));
    ops
}

/// Opens a store after the death of its process, and compares it.
fn recovered(context: &Context, rig: &Rig, history: &History, when: &str) -> Result<State, Failure> {
    context.explored().crash_state();
    let engine = rig.open().map_err(|error| {
        Failure::new(format!("an engine recovers from the death of its process ({when}), but: {error}"))
    })?;
    let state = state_of(&*engine)?;
    history.check(&state)?;
    history.check_last_lsn(&state, engine.last_lsn())?;
    let lsn = engine.put_durable(b"new", b"value")?;
    ensure!(
        lsn > history.last_lsn(),
        "LSN {lsn} is used again: the killed process gave out {}",
        history.last_lsn()
    );
    engine.delete(b"new")?;
    engine.close()?;
    Ok(state)
}

/// Runs an operation. Under `Always` a change is durable when it is answered.
fn answered(servant: &mut Servant, policy: Policy, op: &Op, history: &mut History) -> CaseResult {
    servant.run(op, history)?;
    if policy == Policy::Always {
        history.told_durable(history.last_lsn());
    }
    Ok(())
}

fn killed_after_every_answer(context: &Context) -> CaseResult {
    let ops = sample(context);
    let all = [0, 1, 2, 3, 4, 5, 6, ops.len()];
    for (policy, counts) in
        [(Policy::Always, &all[..]), (Policy::MaxLogSize(300), &[3, 30]), (Policy::Manual, &[4, ops.len()])]
    {
        for count in counts {
            let rig = context.real_rig(Setup::tiny(context, policy))?;
            let mut history = History::default();
            let mut servant = Servant::start(rig.dir())?;
            let opened = servant.open(policy, 0)?;
            ensure!(opened.is_ok(), "a process cannot create a store: {opened:?}");
            for op in ops.iter().take(*count) {
                answered(&mut servant, policy, op, &mut history)?;
            }
            servant.kill()?;
            let when = format!("{policy:?}, killed after {count} answers");
            recovered(context, &rig, &history, &when)
                .map_err(|failure| failure.with("process", when.clone()))?;
        }
    }
    Ok(())
}

fn killed_within_an_operation(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for round in 0..context.scaled(8) {
        let policy = rng.choice([Policy::Always, Policy::MaxLogSize(300)]).unwrap_or(Policy::Always);
        let ops = sample(context);
        let rig = context.real_rig(Setup::tiny(context, policy))?;
        let mut history = History::default();
        let mut servant = Servant::start(rig.dir())?;
        // Every third round dies within the open that creates the store, or within a close.
        let count = if round % 3 == 0 { 0 } else { rng.usize(1..ops.len()) };
        if round % 3 == 0 {
            // The process runs before the time of the kill begins.
            servant.must("held")?;
            servant.send(&format!("open {} 0", policy.name()))?;
        } else {
            servant.must(&format!("open {} 0", policy.name()))?;
            for op in ops.iter().take(count) {
                answered(&mut servant, policy, op, &mut history)?;
            }
            match ops.get(count) {
                Some(op) if round % 3 == 1 => servant.begin(op, &mut history)?,
                _ => servant.send("close")?,
            }
        }
        std::thread::sleep(Duration::from_micros(rng.u64(0..2500)));
        servant.kill()?;
        let when = format!("round {round}, {policy:?}, killed within operation {count}");
        recovered(context, &rig, &history, &when).map_err(|failure| failure.with("process", when.clone()))?;
    }
    Ok(())
}

/// All files below a directory, by their paths from there.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// Reads all files below `dir`, without the lock file.
#[expect(clippy::disallowed_methods, reason = "an engine that does its own I/O may have directories")]
fn files_below(dir: &Path) -> Result<Files, Failure> {
    let (mut files, mut dirs) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = dirs.pop() {
        for entry in std::fs::read_dir(dir.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                dirs.push(path);
            } else if entry.file_name() != LOCK_FILE {
                files.push((path.clone(), std::fs::read(dir.join(path))?));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Writes files below `dir`.
fn write_below(rig: &Rig, files: &Files) -> CaseResult {
    let fs = rig.fs();
    fs.create_dir_durably(rig.dir())?;
    for (path, bytes) in files {
        let path = rig.dir().join(path);
        if let Some(parent) = path.parent() {
            fs.create_dir_durably(parent)?;
        }
        fs.open(&path, OpenMode::CreateOrTruncate)?.write_all_at(bytes, 0)?;
    }
    Ok(())
}

/// A closed store on the real disk.
struct Closed {
    files: Files,
    state: State,
    last: Lsn,
    setup: Setup,
}

impl Closed {
    /// Whether the data lies in more than one file. A reserve holds none.
    fn has_several_files(&self) -> bool {
        self.files.iter().filter(|(path, _)| !path.ends_with(Reserve::FILE)).count() > 1
    }
}

fn closed(context: &Context, setup: Setup, first: usize) -> Result<Closed, Failure> {
    let rig = context.real_rig(setup)?;
    let engine = rig.open()?;
    let mut history = History::numbered_from(first);
    let mut ops: Vec<Op> = (0..14).map(|key| Op::Put { key, len: 60 }).collect();
    ops.extend(sample(context));
    ops.extend([Op::Sync, Op::Compact, Op::Put { key: 3, len: 50 }, Op::Delete { key: 4 }]);
    run_ops(&*engine, &ops, &mut history)?;
    engine.close()?;
    Ok(Closed { files: files_below(rig.dir())?, state: history.state(), last: engine.last_lsn(), setup })
}

fn damage_on_real_files(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    // Engines on the simulated disk meet far more damage there.
    let most = if context.factory().capabilities().simulated_fs { 20 } else { 100 };
    let most = usize::try_from(context.scaled(most)).unwrap_or(100);
    for policy in [Policy::Always, Policy::MaxLogSize(300)] {
        let setup = Setup::tiny(context, policy);
        let (store, foreign) = (closed(context, setup, 0)?, closed(context, setup, 1000)?);
        let mut damages = Vec::new();
        for (number, file) in store.files.iter().enumerate() {
            damages.extend(damages_of(&mut rng, file).into_iter().map(|(what, bytes)| (number, what, bytes)));
        }
        if store.has_several_files() {
            for (number, (path, _)) in store.files.iter().enumerate() {
                damages.push((number, "removed".to_owned(), None));
                let other = foreign.files.iter().find(|(name, _)| name == path);
                damages.extend(other.map(|(_, bytes)| {
                    (number, "replaced by another store's".to_owned(), Some(bytes.clone()))
                }));
            }
        }
        rng.shuffle(&mut damages);
        for (number, what, damaged) in damages.into_iter().take(most) {
            let what = format!("{policy:?}: file {number}, {what}");
            context.set_doing(what.clone());
            check_damage(context, &store, number, damaged).map_err(|failure| failure.with("damage", what))?;
        }
    }
    ensure!(context.explored().damages() > 0, "the harness is broken: nothing was damaged");
    Ok(())
}

/// Ways to damage a file, each with its description.
fn damages_of(rng: &mut Rng, (path, bytes): &(PathBuf, Vec<u8>)) -> Vec<(String, Option<Vec<u8>>)> {
    let (mut damages, len) = (Vec::new(), bytes.len());
    let structural = [0, 8, 16, len / 2, len.saturating_sub(1), len.saturating_sub(9)];
    let random: Vec<usize> = (0..20).map(|_| rng.usize(0..len.max(1))).collect();
    for at in structural.into_iter().chain(random).filter(|at| *at < len) {
        let mut flipped = bytes.clone();
        flipped.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8));
        damages.push((format!("bit {} of byte {at} of {len} flipped", at % 8), flipped));
        damages.push((format!("cut to {at} of {len} bytes"), bytes.iter().take(at).copied().collect()));
        let start = at / 512 * 512;
        let mut zeroed = bytes.clone();
        zeroed.iter_mut().skip(start).take(512).for_each(|byte| *byte = 0);
        damages.push((format!("512 bytes from {start} zeroed"), zeroed));
    }
    damages.push(("garbage appended".to_owned(), [bytes.as_slice(), &[0xa5; 100]].concat()));
    damages.retain(|(_, damaged)| damaged != bytes);
    damages.into_iter().map(|(what, bytes)| (format!("{}: {what}", path.display()), Some(bytes))).collect()
}

/// Opens a copy of the store in which file `number` is damaged.
fn check_damage(context: &Context, store: &Closed, number: usize, damaged: Option<Vec<u8>>) -> CaseResult {
    context.explored().damage();
    let mut files = store.files.clone();
    match (files.get_mut(number), damaged) {
        (Some((_, bytes)), Some(damaged)) => *bytes = damaged,
        (_, None) => drop(files.remove(number)),
        (None, Some(_)) => {}
    }
    let rig = context.real_rig(store.setup)?;
    write_below(&rig, &files)?;
    let refused = match rig.open() {
        Err(error) => {
            ensure!(
                files_below(rig.dir())? == files,
                "an open that is refused has changed nothing, but the files differ after: {error}"
            );
            Some(error)
        }
        Ok(engine) => match state_of(&*engine) {
            Err(error) => Some(error),
            Ok(state) => {
                let (last, expected) = (engine.last_lsn(), store.last);
                ensure!(last == expected, "a damaged store opens at LSN {last}; it was closed at {expected}");
                let same = store.state.iter().filter(|(key, value)| state.get(*key) == Some(value)).count();
                ensure!(
                    state == store.state,
                    "a damaged store opens, and shows another state: {same} of {} keys as they were, and {} others",
                    store.state.len(),
                    state.len() - same
                );
                None
            }
        },
    };
    match refused {
        Some(Error::Corruption { .. } | Error::UnsupportedVersion { .. } | Error::NotAStore { .. })
        | None => Ok(()),
        Some(error) => fail!("damage is Corruption, but it is answered with: {error}"),
    }
}

fn a_closed_store_holds_no_file_and_no_thread(context: &Context) -> CaseResult {
    let rig = context.real_rig(Setup::tiny(context, Policy::AnyOf))?;
    let mut servant = Servant::start(rig.dir())?;
    let mut history = History::default();
    let mut rng = context.rng();
    let mut use_store = |servant: &mut Servant| -> CaseResult {
        servant.must(&format!("open {} {}", Policy::AnyOf.name(), history.next_number()))?;
        random_ops(&mut rng, 30, 6).iter().try_for_each(|op| servant.run(op, &mut history))
    };
    // What the first use makes for good, such as a pool of a library, does not count.
    use_store(&mut servant)?;
    servant.must("drop")?;
    let before = servant.must("held")?;
    for closes in [true, false] {
        for _ in 0..4 {
            use_store(&mut servant)?;
            if closes {
                servant.must("close")?;
                // The closed handle lives on, and holds no thread.
                wait_for(&mut servant, &[u64::MAX, before.get(1).copied().unwrap_or(u64::MAX)], "closed")?;
            }
            servant.must("drop")?;
        }
        wait_for(&mut servant, &before, if closes { "closed and dropped" } else { "dropped" })?;
    }
    Ok(())
}

/// Waits until a servant has at most so many open files and threads.
fn wait_for(servant: &mut Servant, most: &[u64], how: &str) -> CaseResult {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let now = servant.must("held")?;
        let mut surplus = ["open files", "threads"].into_iter().zip(now.iter().zip(most));
        let Some((what, (now, most))) = surplus.find(|(_, (now, most))| now > most) else { return Ok(()) };
        ensure!(
            Instant::now() < end,
            "a process with only {how} stores has {now} {what}; after its first store it had {most}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
