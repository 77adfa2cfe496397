//! Opening: places, failed opens, other options, several stores, many opens.

use super::case;
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Rig, Setup};
use crate::servant::Servant;
use crate::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use crate::workload::{Op, random_ops, run_op, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::fs::{FileExt, FsExt, LOCK_FILE, OpenMode};
use kv_core::{Background, Engine, EngineExt, Error, Limits, OpenOptions, Scale};
use std::path::Path;
use std::sync::Arc;

pub(crate) const CASES: &[Case] = &[
    case(
        "lifecycle::required_kv415_locked_across_processes",
        Level::Required,
        &[Need::ChildProcess],
        "A store that one process has open is Locked for every other one, until that closes it, exits or is killed.",
        locked_across_processes,
    ),
    case(
        "lifecycle::required_kv416_a_failed_open_holds_nothing",
        Level::Required,
        &[],
        "A failed open releases the directory: the next open is not Locked, and finds the store as it was.",
        a_failed_open_holds_nothing,
    ),
    case(
        "lifecycle::required_kv417_odd_places",
        Level::Required,
        &[],
        "A file in the place of the directory is an error and stays as it is; an empty directory without create_if_missing is NotAStore.",
        odd_places,
    ),
    case(
        "lifecycle::required_kv418_other_options",
        Level::Required,
        &[],
        "Another policy, scale, background mode or higher limits at the next open change neither data nor LSNs.",
        other_options,
    ),
    case(
        "lifecycle::required_kv419_stores_are_independent",
        Level::Required,
        &[],
        "Two stores of one process share nothing, even if their directories have the same name.",
        stores_are_independent,
    ),
    case(
        "lifecycle::required_kv420_opens_change_nothing",
        Level::Required,
        &[],
        "However often a store is opened and closed or dropped, its data and its last LSN stay.",
        opens_change_nothing,
    ),
];

/// How another process ends its use of a store.
const ENDS: [&str; 4] = ["close", "drop", "exit", "kill"];

fn locked_across_processes(context: &Context) -> CaseResult {
    for end in ENDS {
        let rig = context.real_rig(Setup::tiny(context, Policy::Manual))?;
        let mut history = History::default();
        for round in 0..2 {
            let engine = rig.open()?;
            run_op(&*engine, &Op::Put { key: round, len: 20 }, &mut history)?;
            let mut other = Servant::start(rig.dir())?;
            match other.open(Policy::Manual, 0)? {
                Err(refused) if refused.variant == "Locked" => {}
                Err(refused) => fail!("an open store is Locked for another process, but: {}", refused.text),
                Ok(_) => fail!("another process opened a store that this one has open"),
            }
            run_op(&*engine, &Op::Put { key: 10, len: 20 }, &mut history)?;
            engine.close()?;
            let first = history.next_number();
            other.open(Policy::Manual, first)?.map_err(|refused| {
                Failure::new(format!(
                    "a store that was closed opens in another process, but: {}",
                    refused.text
                ))
            })?;
            other.run(&Op::Put { key: 11, len: 20 }, &mut history)?;
            other.run(&Op::Sync, &mut history)?;
            let locked = rig.open().map(drop);
            ensure!(
                matches!(locked, Err(Error::Locked { .. })),
                "another process has the store open, and an open is answered with {locked}, not Locked",
                locked = locked.in_words()
            );
            other.run(&Op::Put { key: 12, len: 20 }, &mut history)?;
            // One servant stays alive: only the end of its handle frees the store.
            let _alive = match end {
                "kill" => other.kill().map(|()| None)?,
                "exit" => other.exit().map(|()| None)?,
                order => other.must(order).map(|_| Some(other))?,
            };
            if ["close", "drop"].contains(&end) {
                history.told_durable(history.last_lsn());
            }
            let engine = rig.open().map_err(|error| {
                Failure::new(format!(
                    "another process had the store open ({end} ended that), but now: {error}"
                ))
            })?;
            let state = state_of(&*engine)?;
            history.check(&state)?;
            engine.close()?;
            if state != history.state() {
                // The death of the process took the last change, which was not durable.
                break;
            }
        }
    }
    Ok(())
}

/// The names in the directory of a store, without the lock file; `None` if there is no directory.
fn names_in(rig: &Rig) -> Result<Option<Vec<String>>, Failure> {
    let names = rig.fs().list_if_exists(rig.dir())?;
    Ok(names.map(|names| names.into_iter().filter(|name| name != LOCK_FILE).collect()))
}

fn a_failed_open_holds_nothing(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    let rigs = [context.rig(setup)?, context.real_rig(setup)?];
    for rig in &rigs {
        let mut history = History::default();
        for round in 0..3 {
            let limits = Limits { key_len_max: Limits::FORMAT_KEY_LEN_MAX + 1, ..Limits::default() };
            let nonsense = OpenOptions { limits, ..rig.setup.options() };
            let answer = rig.open_with(&nonsense).map(drop);
            ensure!(
                matches!(answer, Err(Error::InvalidArgument(_))),
                "round {round}: limits beyond the format are answered with {answer}, not InvalidArgument",
                answer = answer.in_words()
            );
            reopened(rig, &mut history, "options that make no sense", round)?;
        }
        let engine = rig.open()?;
        for _ in 0..3 {
            let answer = rig.open().map(drop);
            ensure!(
                matches!(answer, Err(Error::Locked { .. })),
                "a second open is answered with {answer}, not Locked",
                answer = answer.in_words()
            );
        }
        engine.close()?;
        reopened(rig, &mut history, "a lock that another handle held", 3)?;
    }
    if context.factory().capabilities().simulated_fs {
        opens_with_faults(context, setup)?;
    }
    Ok(())
}

/// Opens a store after an open of it failed, compares it, uses it and closes it.
fn reopened(rig: &Rig, history: &mut History, cause: &str, round: u64) -> CaseResult {
    let engine = rig.open().map_err(|error| {
        Failure::new(format!(
            "round {round}: after an open that failed for {cause} the store opens, but: {error}"
        ))
    })?;
    ensure!(
        state_of(&*engine)? == history.state() && engine.last_lsn() == history.last_lsn(),
        "round {round}: an open that failed for {cause} changed the store: it is at LSN {}, not {}",
        engine.last_lsn(),
        history.last_lsn()
    );
    for key in 0..4 {
        run_op(&*engine, &Op::Put { key, len: 20 }, history)?;
    }
    engine.close()?;
    Ok(())
}

/// Every disk operation of an open fails in turn. The same process opens the store again, on the
/// same disk: a lock that the failed open forgot is still held there.
fn opens_with_faults(context: &Context, setup: Setup) -> CaseResult {
    let disk = SimFs::new();
    let mut history = History::default();
    let rig = context.sim_rig(disk.clone(), setup);
    reopened(&rig, &mut history, "no reason", 0)?;
    for nth in 0..200 {
        disk.inject(Fault { kind: FaultKind::AnyIo, nth, repeat: Repeat::Once });
        let answer = rig.open();
        let fired = disk.faults_fired();
        disk.heal();
        context.explored().add_faults(fired);
        match answer {
            Ok(engine) if fired > 0 => drop(engine),
            Ok(engine) => return Ok(engine.close()?),
            Err(Error::Locked { .. }) => fail!(
                "a failed open releases the directory, but after disk operation {nth} of an open failed the store is Locked"
            ),
            Err(_) => {}
        }
        reopened(&rig, &mut history, "EIO", nth)?;
    }
    Ok(())
}

fn odd_places(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        let (fs, open) =
            (rig.fs(), |dir: &Path| context.factory().open(dir, &rig.env(), &rig.setup.options()).map(drop));
        fs.create_dir_durably(rig.dir())?;
        missing_in_an_empty_directory(&rig)?;
        let file = rig.dir().join("letter");
        fs.open(&file, OpenMode::CreateNew)?.write_all_at(b"dear", 0)?;
        for place in [file.clone(), file.join("store")] {
            let answer = open(&place);
            ensure!(
                matches!(answer, Err(Error::Io { .. } | Error::NotAStore { .. })),
                "opening a store where a file lies is answered with {answer}, not Io or NotAStore",
                answer = answer.in_words()
            );
            ensure!(fs.read_file(&file)? == b"dear", "an open changed a file in the place of its directory");
        }
        ensure!(fs.list(rig.dir())? == ["letter"], "an open put something beside a file in its place");
    }
    if context.factory().capabilities().simulated_fs {
        let disk = SimFs::new();
        let at = |disk: &SimFs| context.sim_rig(disk.clone(), setup).in_dir("/a/b/c/store");
        at(&disk).open()?.put_durable(b"k", b"v")?;
        let rig = at(&disk.power_cut(PowerCut::LOSE_ALL));
        let options = OpenOptions { create_if_missing: false, ..rig.setup.options() };
        let engine = rig.open_with(&options).map_err(|error| {
            Failure::new(format!(
                "a durable change includes all directories on its path, but after a power cut: {error}"
            ))
        })?;
        ensure!(engine.get(b"k")?.is_some(), "a power cut took a durable change below new directories");
    }
    Ok(())
}

/// The directory of the store exists, and is empty.
fn missing_in_an_empty_directory(rig: &Rig) -> CaseResult {
    let options = OpenOptions { create_if_missing: false, ..rig.setup.options() };
    let answer = rig.open_with(&options).map(drop);
    ensure!(
        matches!(answer, Err(Error::NotAStore { .. })),
        "opening an empty directory without create_if_missing is answered with {answer}, not NotAStore",
        answer = answer.in_words()
    );
    let names = names_in(rig)?;
    ensure!(
        names.as_ref().is_some_and(Vec::is_empty),
        "an open without create_if_missing left {names:?} in an empty directory"
    );
    // No lock file either: the directory must be empty for what follows.
    if rig.fs().list(rig.dir())?.iter().any(|name| name == LOCK_FILE) {
        rig.fs().remove_file(&rig.dir().join(LOCK_FILE))?;
    }
    Ok(())
}

fn other_options(context: &Context) -> CaseResult {
    let raised = Limits { key_len_max: 300, value_len_max: 2 << 20, ..Limits::default() };
    let threads = Setup { background: Background::Threads, ..Setup::tiny(context, Policy::Always) };
    let mut setups: Vec<Setup> = Policy::ALL.into_iter().map(|policy| Setup::tiny(context, policy)).collect();
    setups.extend(setups.clone().into_iter().map(|setup| Setup { scale: Scale::Normal, ..setup }));
    setups.extend([Setup { limits: raised, ..threads }, threads, Setup { scale: Scale::Normal, ..threads }]);
    let mut rng = context.rng();
    rng.shuffle(&mut setups);
    let disk = SimFs::new();
    let mut real = context.real_rig(threads)?;
    let mut history = History::default();
    for setup in setups {
        let what = format!("{:?} {:?} {:?}", setup.policy, setup.scale, setup.background);
        let simulated = context.factory().capabilities().simulated_fs;
        real.setup = Setup { background: Background::Threads, ..setup };
        let engine = if simulated { context.sim_rig(disk.clone(), setup).open() } else { real.open() }
            .map_err(|error| {
                Failure::new(format!("a store opens with other options ({what}), but: {error}"))
            })?;
        ensure!(
            state_of(&*engine)? == history.state(),
            "with other options ({what}) a store shows another state"
        );
        ensure!(
            engine.last_lsn() == history.last_lsn() && engine.durable_lsn() == history.last_lsn(),
            "a store closed at LSN {}, and with other options ({what}) it is at {}, durable {}",
            history.last_lsn(),
            engine.last_lsn(),
            engine.durable_lsn()
        );
        run_ops(&*engine, &random_ops(&mut rng, 60, 12), &mut history)?;
        history.check_order()?;
        if rng.bool() {
            engine.close()?;
        }
    }
    Ok(())
}

fn stores_are_independent(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        let dirs = ["one/store", "two/store", "two/store2"].map(|dir| rig.dir().join(dir));
        let open = |number: usize| -> Result<Arc<dyn Engine>, Failure> {
            let dir = dirs.get(number).map_or(rig.dir(), std::path::PathBuf::as_path);
            context.factory().open(dir, &rig.env(), &rig.setup.options()).map_err(|error| {
                Failure::new(format!("another open store does not keep {} shut, but: {error}", dir.display()))
            })
        };
        let mut histories = [0, 1000, 2000].map(History::numbered_from);
        let mut engines = [open(0)?, open(1)?, open(2)?];
        let mut rng = context.rng();
        for round in 0..12usize {
            for (engine, history) in engines.iter().zip(&mut histories) {
                run_ops(&**engine, &random_ops(&mut rng, 12, 8), history)?;
            }
            let number = round % 3;
            if let Some(engine) = engines.get_mut(number) {
                engine.close()?;
                *engine = open(number)?;
            }
            for (number, (engine, history)) in engines.iter().zip(&histories).enumerate() {
                ensure!(
                    state_of(&**engine)? == history.state() && engine.last_lsn() == history.last_lsn(),
                    "round {round}: store {number} of three in one process shows another state than its own"
                );
            }
        }
    }
    Ok(())
}

fn opens_change_nothing(context: &Context) -> CaseResult {
    for policy in [Policy::Always, Policy::Manual, Policy::MaxLogSize(300)] {
        let rig = context.rig(Setup::tiny(context, policy))?;
        let mut history = History::default();
        let steps = [
            vec![],
            vec![Op::Put { key: 1, len: 20 }],
            vec![Op::Put { key: 2, len: 0 }, Op::Batch(vec![(3, Some(9)), (1, None)])],
            vec![Op::Delete { key: 2 }],
            random_ops(&mut context.rng(), 80, 10),
            vec![Op::Delete { key: 3 }],
        ];
        let mut empty = kv_core::Lsn::ZERO;
        for (step, ops) in steps.iter().enumerate() {
            let engine = rig.open()?;
            run_ops(&*engine, ops, &mut history)?;
            let last = engine.last_lsn();
            if step == 0 {
                empty = last;
            }
            engine.close()?;
            drop(engine);
            for number in 0..5 {
                let engine = rig.open()?;
                ensure!(
                    state_of(&*engine)? == history.state(),
                    "step {step}, open {number}: an open that changes nothing gives another state"
                );
                ensure!(
                    engine.last_lsn() == last && engine.durable_lsn() == last,
                    "step {step}, open {number}: the store was closed at LSN {last}, and is at {}, durable {}",
                    engine.last_lsn(),
                    engine.durable_lsn()
                );
                // Every other handle is dropped without a close.
                if number % 2 == 0 {
                    engine.close()?;
                }
            }
        }
        history.check_order()?;
        let first = history.first_lsn();
        ensure!(
            first > Some(empty),
            "the first change has LSN {first:?}, but the empty store was at {empty}"
        );
    }
    Ok(())
}
