//! The directory of an open store, and other processes: they move it, remove it, lock it and create
//! it.

use super::case;
use crate::failure::{ensure, fail};
use crate::oracle::{History, State, state_of};
use crate::rig::{Policy, Rig, Setup};
use crate::sim::SimFs;
use crate::workload::{Op, random_ops, run_op, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::fs::{FsExt, LOCK_FILE, OpenMode};
use kv_core::{Engine, Error, Fs};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

pub(crate) const CASES: &[Case] = &[
    case(
        "directory::required_kv421_moved_on_the_simulated_disk",
        Level::Required,
        &[Need::SimulatedFs],
        "An open store whose directory was renamed does not touch a new store at the old path.",
        moved_on_the_simulated_disk,
    ),
    case(
        "directory::required_kv422_moved_on_the_real_disk",
        Level::Required,
        &[],
        "On the real disk, too, a renamed store does not touch a new store at the old path.",
        moved_on_the_real_disk,
    ),
    case(
        "directory::required_kv423_a_removed_directory_is_noticed",
        Level::Required,
        &[],
        "After the removal of its directory a store reports nothing more as durable, and writes nowhere else.",
        a_removed_directory_is_noticed,
    ),
    case(
        "directory::required_kv424_a_lost_lock_file_is_noticed",
        Level::Required,
        &[],
        "After the removal or replacement of its lock file a store reports nothing more as durable.",
        a_lost_lock_file_is_noticed,
    ),
    case(
        "directory::required_kv425_second_open_without_lock_file",
        Level::Required,
        &[],
        "Without its lock file an open store stays Locked, or its old handle changes nothing more.",
        second_open_without_lock_file,
    ),
    case(
        "directory::stochastic_kv426_reopen_while_processes_start",
        Level::Stochastic,
        &[],
        "While other threads start processes, a closed store opens again at once.",
        reopen_while_processes_start,
    ),
    case(
        "directory::stochastic_kv427_racing_creators",
        Level::Stochastic,
        &[],
        "Of threads that create one store under a missing parent at the same time, one opens it and the others get Locked.",
        racing_creators,
    ),
];

const POLICIES: [Policy; 3] = [Policy::Manual, Policy::MaxLogSize(300), Policy::Always];

type Files = BTreeMap<String, Vec<u8>>;

/// The files of a directory, with their content; `None` if there is no directory.
fn files_in(fs: &dyn Fs, dir: &Path) -> Result<Option<Files>, Failure> {
    let Some(names) = fs.list_if_exists(dir)? else { return Ok(None) };
    let read = |name: String| Ok((name.clone(), fs.read_file(&dir.join(name))?));
    names.into_iter().map(read).collect::<kv_core::Result<Files>>().map(Some).map_err(Failure::from)
}

/// An open store with some changes; the first ones are durable.
fn used_store(context: &Context, rig: &Rig, history: &mut History) -> Result<Arc<dyn Engine>, Failure> {
    let engine = rig.open()?;
    run_ops(&*engine, &random_ops(&mut context.rng(), 60, 8), history)?;
    history.told_durable(engine.sync()?);
    run_ops(&*engine, &random_ops(&mut context.rng(), 5, 8), history)?;
    Ok(engine)
}

/// Changes a store until a call fails, syncs it if none does, and returns the error.
fn use_until_error(context: &Context, engine: &dyn Engine, history: &mut History) -> Option<Error> {
    let mut failed = run_ops(engine, &random_ops(&mut context.rng(), 60, 8), history).err();
    let is_poisoned = || matches!(engine.delete(b"there is no such key"), Err(Error::Poisoned { .. }));
    if failed.is_some() && !is_poisoned() {
        // The delete failed to read an old value. A put needs none, so it reaches the disk.
        history.refuse();
        failed = run_op(engine, &Op::Put { key: 200, len: 9 }, history).err();
    }
    match engine.sync() {
        Ok(lsn) => {
            history.told_durable(lsn);
            failed
        }
        Err(error) => Some(error),
    }
}

fn moved_on_the_simulated_disk(context: &Context) -> CaseResult {
    POLICIES.into_iter().try_for_each(|policy| {
        let disk = SimFs::new();
        let rig = context.sim_rig(disk.clone(), Setup::tiny(context, policy));
        moved(context, &rig, &|from, to| disk.move_dir(from, Some(to)))
    })
}

fn moved_on_the_real_disk(context: &Context) -> CaseResult {
    POLICIES.into_iter().try_for_each(|policy| {
        #[expect(clippy::disallowed_methods, reason = "another process does it")]
        moved(context, &context.real_rig(Setup::tiny(context, policy))?, &|from, to| {
            std::fs::rename(from, to)
        })
    })
}

fn moved(context: &Context, rig: &Rig, move_dir: &dyn Fn(&Path, &Path) -> io::Result<()>) -> CaseResult {
    let (fs, away) = (rig.fs(), rig.dir().with_file_name("moved"));
    let mut history = History::default();
    let old = used_store(context, rig, &mut history)?;
    move_dir(rig.dir(), &away)?;
    let new = rig.open().map_err(|error| {
        Failure::new(format!("a new store opens at the old path of a moved one, but: {error}"))
    })?;
    new.put(b"new", b"store")?;
    new.close()?;
    drop(new);
    let before = files_in(&*fs, rig.dir())?;
    let error = use_until_error(context, &*old, &mut history);
    if error.is_some() {
        check_poisoned(&*old, &history)?;
    }
    let closed = old.close();
    if closed.is_ok() {
        history.told_durable(history.last_lsn());
    }
    ensure!(
        closed.is_ok() == error.is_none(),
        "after {error:?} a store that was moved closes with {closed:?}"
    );
    drop(old);
    ensure!(
        files_in(&*fs, rig.dir())? == before,
        "a store whose directory was renamed changed the files of the store at the old path"
    );
    let state = state_of(&*rig.open()?)?;
    let expected = State::from([(b"new".to_vec(), b"store".to_vec())]);
    ensure!(state == expected, "the new store at the old path has another state: {state:?}");
    let moved = context.factory().open(&away, &rig.env(), &rig.setup.options())?;
    history.check(&state_of(&*moved)?)
}

/// Checks that a store without its directory refuses changes, and reads on if its values are in
/// memory.
fn check_poisoned(engine: &dyn Engine, history: &History) -> CaseResult {
    let put = engine.put(b"after", b"x");
    ensure!(
        matches!(put, Err(Error::Poisoned { .. })),
        "a store that has lost its directory answers a put with {put:?}, not Poisoned"
    );
    match state_of(engine) {
        Ok(visible) => history.check_visible(&visible),
        // An engine that reads values from files finds none in a removed directory.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => fail!("a store that has lost its directory answers a scan with {error}"),
    }
}

fn a_removed_directory_is_noticed(context: &Context) -> CaseResult {
    for (policy, replaced) in POLICIES.into_iter().flat_map(|policy| [(policy, false), (policy, true)]) {
        let setup = Setup::tiny(context, policy);
        let real = context.real_rig(setup)?;
        removed(context, &real, replaced, &remove_dir_all)?;
        if context.factory().capabilities().simulated_fs {
            let disk = SimFs::new();
            let rig = context.sim_rig(disk.clone(), setup);
            removed(context, &rig, replaced, &|dir| disk.move_dir(dir, None))?;
        }
    }
    Ok(())
}

/// Removes a directory in which another thread may be creating files.
fn remove_dir_all(dir: &Path) -> io::Result<()> {
    loop {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => return removed,
        }
    }
}

fn removed(
    context: &Context,
    rig: &Rig,
    replaced: bool,
    remove_dir: &dyn Fn(&Path) -> io::Result<()>,
) -> CaseResult {
    let fs = rig.fs();
    let mut history = History::default();
    let old = used_store(context, rig, &mut history)?;
    // The engine's own thread may be making changes durable.
    let durable = old.sync()?;
    remove_dir(rig.dir())?;
    if replaced {
        let new = rig.open()?;
        new.put(b"new", b"store")?;
        new.close()?;
    }
    let before = files_in(&*fs, rig.dir())?;
    check_lost(context, &*old, &mut history, durable)?;
    drop(old);
    ensure!(
        files_in(&*fs, rig.dir())? == before,
        "a store whose directory was removed changed or created files at its path"
    );
    Ok(())
}

/// Checks that a store without its directory or lock fails, at the latest when it makes a change
/// durable.
fn check_lost(
    context: &Context,
    engine: &dyn Engine,
    history: &mut History,
    durable: kv_core::Lsn,
) -> CaseResult {
    let error = use_until_error(context, engine, history);
    ensure!(
        error.is_some() && engine.durable_lsn() == durable,
        "a store that has lost its directory or lock file reports LSN {} as durable; before it was {durable}",
        engine.durable_lsn()
    );
    check_poisoned(engine, history)?;
    let closed = engine.close();
    ensure!(closed.is_err(), "a store that has lost its directory or lock file closes without an error");
    Ok(())
}

fn a_lost_lock_file_is_noticed(context: &Context) -> CaseResult {
    for (policy, replaced) in POLICIES.into_iter().flat_map(|policy| [(policy, false), (policy, true)]) {
        let setup = Setup::tiny(context, policy);
        for rig in [context.rig(setup)?, context.real_rig(setup)?] {
            let (fs, lock_file) = (rig.fs(), rig.dir().join(LOCK_FILE));
            let mut history = History::default();
            let engine = used_store(context, &rig, &mut history)?;
            let durable = engine.sync()?;
            fs.remove_file(&lock_file)?;
            if replaced {
                fs.open(&lock_file, OpenMode::CreateNew)?;
            }
            check_lost(context, &*engine, &mut history, durable)?;
            drop(engine);
            history.check(&state_of(&*rig.open()?)?)?;
        }
    }
    Ok(())
}

fn second_open_without_lock_file(context: &Context) -> CaseResult {
    for policy in POLICIES {
        let rig = context.real_rig(Setup::tiny(context, policy))?;
        let fs = rig.fs();
        let mut history = History::default();
        let first = used_store(context, &rig, &mut history)?;
        fs.remove_file(&rig.dir().join(LOCK_FILE))?;
        match rig.open() {
            Err(Error::Locked { .. }) => {
                let _ = use_until_error(context, &*first, &mut history);
            }
            Err(error) => fail!("a second open without a lock file is answered with {error}, not Locked"),
            Ok(second) => {
                second.put(b"second", b"handle")?;
                second.sync()?;
                let before = files_in(&*fs, rig.dir())?;
                let error = use_until_error(context, &*first, &mut history);
                let _ = first.close();
                ensure!(
                    error.is_some() && files_in(&*fs, rig.dir())? == before,
                    "two handles use one directory: the first one goes on after a second one was opened"
                );
                second.close()?;
                // The second handle recovered the store and added a key, so `history` is not its
                // history.
                continue;
            }
        }
        drop(first);
        history.check(&state_of(&*rig.open()?)?)?;
    }
    Ok(())
}

/// A child process shares its parent's open files, and so its locks, until it executes its program.
fn reopen_while_processes_start(context: &Context) -> CaseResult {
    let rig = context.real_rig(Setup::tiny(context, Policy::Manual))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let start = || Command::new("true").stdin(Stdio::null()).status();
                let mut runs = true;
                while runs && !stop.load(Ordering::Relaxed) {
                    runs = start().is_ok();
                }
            });
        }
        let reopened = (0..context.scaled(150)).try_for_each(|round| -> CaseResult {
            let engine = rig.open().map_err(|error| {
                Failure::new(format!("round {round}: a store that was closed opens again, but: {error}"))
            })?;
            engine.put(b"k", &round.to_le_bytes())?;
            engine.close()?;
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        reopened
    })
}

fn racing_creators(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        for round in 0..context.scaled(20) {
            let dir: PathBuf = rig.dir().join(format!("{round}/a/b"));
            let open = || context.factory().open(&dir, &rig.env(), &rig.setup.options());
            let all_are_here = Barrier::new(4);
            let answers = std::thread::scope(|scope| {
                let creators = [(); 4].map(|()| {
                    scope.spawn(|| {
                        all_are_here.wait();
                        open()
                    })
                });
                // Every handle stays open until all threads have tried.
                creators.map(std::thread::ScopedJoinHandle::join)
            });
            let mut opened = 0;
            for answer in answers {
                match answer {
                    Ok(Ok(engine)) => {
                        opened += 1;
                        engine.put(b"k", b"v")?;
                        engine.close()?;
                    }
                    Ok(Err(Error::Locked { .. })) => {}
                    Ok(Err(error)) => fail!("one of several creators of a store is answered with: {error}"),
                    Err(_) => fail!("no operation panics, but one did"),
                }
            }
            ensure!(opened == 1, "{opened} of four creators have the new store open at the same time");
            ensure!(open()?.get(b"k")?.is_some(), "the store that one of several creators made lost a value");
        }
    }
    Ok(())
}
