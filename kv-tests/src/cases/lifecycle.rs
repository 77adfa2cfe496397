use super::case;
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Rig, Setup};
use crate::sim::{Fault, FaultKind, Repeat, SimFs};
use crate::workload::{random_ops, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::fs::{FileExt, FsExt, OpenMode};
use kv_core::{Batch, Engine, Error, Limits, Lsn, OpenOptions};
use std::io::ErrorKind;
use std::ops::ControlFlow;

pub(crate) const CASES: &[Case] = &[
    case(
        "lifecycle::required_kv401_reopen_after_close",
        Level::Required,
        &[],
        "After close, reopening gives the same state, and LSNs continue.",
        reopen_after_close,
    ),
    case(
        "lifecycle::required_kv402_drop_closes",
        Level::Required,
        &[],
        "Dropping the last handle closes the store and frees the directory.",
        drop_closes,
    ),
    case(
        "lifecycle::required_kv403_second_open_is_refused",
        Level::Required,
        &[],
        "A second open of a directory is Locked until the first is closed.",
        second_open_is_refused,
    ),
    case(
        "lifecycle::required_kv404_closed_means_closed",
        Level::Required,
        &[],
        "After close every operation is Closed, and closing again is fine.",
        closed_means_closed,
    ),
    case(
        "lifecycle::required_kv405_missing_is_not_created",
        Level::Required,
        &[],
        "Without create_if_missing, opening a missing store is NotAStore and creates nothing.",
        missing_is_not_created,
    ),
    case(
        "lifecycle::required_kv406_foreign_directory",
        Level::Required,
        &[],
        "The engine refuses a directory with a foreign file, and leaves it as it is.",
        foreign_directory,
    ),
    case(
        "lifecycle::required_kv407_nonsense_options",
        Level::Required,
        &[],
        "Limits beyond those of the format are InvalidArgument, and nothing is created.",
        nonsense_options,
    ),
    case(
        "lifecycle::required_kv408_lsns_grow_though_nothing_is_left",
        Level::Required,
        &[],
        "LSNs grow over reopens, even if all keys were deleted, and compacted away where the engine offers it.",
        lsns_grow_though_nothing_is_left,
    ),
    case(
        "lifecycle::required_kv409_capabilities_are_true",
        Level::Required,
        &[],
        "The accessors of optional traits answer as the capabilities say.",
        capabilities_are_true,
    ),
    case(
        "lifecycle::required_kv410_a_closed_handle_holds_nothing",
        Level::Required,
        &[],
        "Dropping a closed handle does not take the lock from the next one.",
        a_closed_handle_holds_nothing,
    ),
    case(
        "lifecycle::required_kv411_unwritable_directory",
        Level::Required,
        &[Need::SimulatedFs],
        "Creating or opening a store without the right to write is an error with that reason, and loses nothing.",
        unwritable_directory,
    ),
    case(
        "lifecycle::required_kv412_system_files_are_left_alone",
        Level::Required,
        &[],
        "The engine creates a store in a directory with files of the system only, and leaves them alone.",
        system_files_are_left_alone,
    ),
    case(
        "lifecycle::required_kv413_lowered_limits",
        Level::Required,
        &[],
        "Keys over a lowered limit can be read, scanned and deleted, but not put.",
        lowered_limits,
    ),
    case(
        "lifecycle::required_kv414_short_runs",
        Level::Required,
        &[],
        "After a hundred short runs, closed or killed, the store is not larger than its data requires.",
        short_runs,
    ),
];

fn reopen_after_close(context: &Context) -> CaseResult {
    for policy in Policy::ALL {
        let rig = context.rig(Setup::tiny(context, policy))?;
        let mut history = History::default();
        let mut rng = context.rng();
        for round in 0..3 {
            let engine = rig.open()?;
            ensure!(state_of(&*engine)? == history.state(), "round {round}: reopening gives another state");
            ensure!(
                engine.last_lsn() == history.last_lsn() && engine.durable_lsn() == engine.last_lsn(),
                "round {round}: after a close at LSN {} the store is at {}, durable {}",
                history.last_lsn(),
                engine.last_lsn(),
                engine.durable_lsn()
            );
            run_ops(&*engine, &random_ops(&mut rng, 150, 12), &mut history)?;
            engine.close()?;
            ensure!(engine.durable_lsn() == history.last_lsn(), "close did not make everything durable");
        }
        history.check_order()?;
    }
    Ok(())
}

fn drop_closes(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    engine.put(b"k", b"v")?;
    drop(engine);
    let engine = rig.open()?;
    ensure!(engine.get(b"k")?.as_deref() == Some(b"v".as_slice()), "a value put before the drop is gone");
    Ok(())
}

fn second_open_is_refused(context: &Context) -> CaseResult {
    for rig in [
        context.rig(Setup::tiny(context, Policy::Manual))?,
        context.real_rig(Setup::tiny(context, Policy::Manual))?,
    ] {
        let engine = rig.open()?;
        engine.put(b"k", b"v")?;
        match rig.open().map(drop) {
            Err(Error::Locked { .. }) => {}
            other => fail!("a second open is answered with {other}, not Locked", other = other.in_words()),
        }
        engine.put(b"k", b"w")?;
        engine.close()?;
        let again = rig.open()?;
        ensure!(again.get(b"k")?.as_deref() == Some(b"w".as_slice()), "the refused open changed the store");
    }
    Ok(())
}

fn closed_means_closed(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    let lsn = engine.put(b"k", b"v")?;
    engine.close()?;
    engine.close()?;
    let mut batch = Batch::new();
    batch.put(b"a", b"b");
    let answers = [
        ("put", engine.put(b"k", b"v").err()),
        ("delete", engine.delete(b"k").err()),
        ("apply", engine.apply(&batch).err()),
        ("get", engine.get(b"k").err()),
        ("read", engine.read(b"k", &mut |_| ()).err()),
        ("scan", engine.scan(&mut |_, _| ControlFlow::Continue(())).err()),
        ("sync", engine.sync().err()),
        ("wait_durable", engine.wait_durable(lsn).err()),
    ];
    for (name, answer) in answers {
        let told = answer.as_ref().map_or("success".to_owned(), |error| format!("\"{error}\""));
        ensure!(
            matches!(answer, Some(Error::Closed)),
            "{name} after close is answered with {told}, not Closed"
        );
    }
    ensure!(engine.last_lsn() == lsn && engine.durable_lsn() == lsn, "the LSNs of a closed store changed");
    Ok(())
}

fn missing_is_not_created(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let options = OpenOptions { create_if_missing: false, ..rig.setup.options() };
    match rig.open_with(&options).map(drop) {
        Err(Error::NotAStore { .. }) => {}
        other => {
            fail!("opening a missing store is answered with {other}, not NotAStore", other = other.in_words())
        }
    }
    ensure!(rig.fs().list_if_exists(rig.dir())?.is_none(), "the refused open created the directory");
    rig.open()?.close()?;
    rig.open_with(&options)?;
    Ok(())
}

fn foreign_directory(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let fs = rig.fs();
    fs.create_dir_durably(rig.dir())?;
    let path = rig.dir().join("letter.txt");
    let file = fs.open(&path, OpenMode::CreateNew)?;
    file.write_all_at(b"dear", 0)?;
    match rig.open().map(drop) {
        Err(Error::NotAStore { .. }) => {}
        other => fail!(
            "opening a foreign directory is answered with {other}, not NotAStore",
            other = other.in_words()
        ),
    }
    ensure!(fs.list(rig.dir())? == ["letter.txt"], "the refused open left something behind");
    ensure!(fs.read_file(&path)? == b"dear", "the refused open changed a foreign file");
    Ok(())
}

fn nonsense_options(context: &Context) -> CaseResult {
    let limits = Limits { key_len_max: Limits::FORMAT_KEY_LEN_MAX + 1, ..Limits::default() };
    let rig = context.rig(Setup { limits, ..Setup::tiny(context, Policy::Manual) })?;
    match rig.open().map(drop) {
        Err(Error::InvalidArgument(_)) => {}
        Err(error) => {
            fail!("a key limit beyond that of the format is answered with \"{error}\", not InvalidArgument")
        }
        Ok(()) => fail!("an open with a key limit beyond that of the format succeeds"),
    }
    ensure!(rig.fs().list_if_exists(rig.dir())?.is_none(), "the refused open created the directory");
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    let beyond = Lsn::new(engine.last_lsn().get() + 1);
    let answer = engine.wait_durable(beyond);
    ensure!(
        matches!(answer, Err(Error::InvalidArgument(_))),
        "waiting for an LSN that was never given out is answered with {answer}",
        answer = answer.in_words()
    );
    Ok(())
}

fn lsns_grow_though_nothing_is_left(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let mut newest = Lsn::ZERO;
    for round in 0..20u8 {
        let engine = rig.open()?;
        let put = engine.put(b"k", &[round])?;
        ensure!(put > newest, "round {round}: LSN {put} came after {newest}");
        newest = engine.delete(b"k")?.unwrap_or(put);
        ensure!(newest > put, "round {round}: a delete that found its key takes an LSN above {put}");
        if let Some(compact) = engine.as_compact() {
            compact.compact()?;
        }
        engine.close()?;
    }
    Ok(())
}

fn capabilities_are_true(context: &Context) -> CaseResult {
    let said = context.factory().capabilities();
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    for (name, said, is) in [
        ("checkpoint", said.checkpoint, engine.as_checkpoint().is_some()),
        ("point_in_time", said.point_in_time, engine.as_point_in_time().is_some()),
        ("compact", said.compact, engine.as_compact().is_some()),
    ] {
        ensure!(said == is, "the factory reports capability {name} as {said}, but the accessor says {is}");
    }
    Ok(())
}

fn a_closed_handle_holds_nothing(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        let first = rig.open()?;
        first.close()?;
        let second = rig.open()?;
        first.close()?;
        drop(first);
        match rig.open().map(drop) {
            Err(Error::Locked { .. }) => {}
            other => fail!(
                "while the second handle is open, another open is answered with {other}",
                other = other.in_words()
            ),
        }
        second.put(b"k", b"v")?;
    }
    Ok(())
}

fn unwritable_directory(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    let denied = Fault { kind: FaultKind::Denied, nth: 0, repeat: Repeat::Always };
    let refused = |disk: &SimFs| -> CaseResult {
        disk.inject(denied);
        match context.sim_rig(disk.clone(), setup).open().map(drop) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
            other => fail!(
                "opening without the right to write is answered with {other}, not EACCES",
                other = other.in_words()
            ),
        }
        ensure!(disk.faults_fired() > 0, "the harness is broken: nothing was denied");
        context.explored().add_faults(disk.faults_fired());
        disk.heal();
        Ok(())
    };
    let disk = SimFs::new();
    refused(&disk)?;
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    engine.put(b"k", b"v")?;
    engine.close()?;
    drop(engine);
    refused(&disk)?;
    let engine = context.sim_rig(disk, setup).open()?;
    ensure!(engine.get(b"k")?.as_deref() == Some(b"v".as_slice()), "the refused open lost a value");
    Ok(())
}

fn system_files_are_left_alone(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        let (fs, files) = (rig.fs(), [".DS_Store", ".gitkeep"]);
        let directory = rig.dir().join("lost+found");
        fs.create_dir_durably(&directory)?;
        for name in files {
            fs.open(&rig.dir().join(name), OpenMode::CreateNew)?.write_all_at(name.as_bytes(), 0)?;
        }
        let mut history = History::default();
        for _ in 0..3 {
            let engine = rig.open().map_err(|error| {
                Failure::new(format!("a store lives beside the files of the system, but: {error}"))
            })?;
            ensure!(state_of(&*engine)? == history.state(), "beside files of the system another state opens");
            run_ops(&*engine, &random_ops(&mut context.rng(), 60, 8), &mut history)?;
            engine.close()?;
        }
        ensure!(fs.list(&directory)?.is_empty(), "a store put something into a directory of the system");
        for name in files {
            let bytes = fs.read_file(&rig.dir().join(name))?;
            ensure!(bytes == name.as_bytes(), "a store changed {name}");
        }
    }
    Ok(())
}

fn lowered_limits(context: &Context) -> CaseResult {
    let raised = Limits { key_len_max: 300, ..Limits::default() };
    let rig = context.rig(Setup { limits: raised, ..Setup::tiny(context, Policy::MaxLogSize(300)) })?;
    let lowered = OpenOptions { limits: Limits::default(), ..rig.setup.options() };
    let (first, second, third) = ([1; 200], [2; 200], [3; 150]);
    let absent = [4; 250];
    let engine = rig.open()?;
    for key in [&first[..], &second, &third, b"short"] {
        engine.put(key, b"value")?;
    }
    engine.close()?;
    let is_too_large = |error: Option<Error>| matches!(error, Some(Error::TooLarge { .. }));
    for round in 0..2 {
        let engine = rig.open_with(&lowered)?;
        let expected = |present: bool| present.then_some(b"value".as_slice());
        for (key, present) in [(&first, round == 0), (&second, true)] {
            let found = engine.get(key);
            if present || found.is_ok() {
                let found = found?;
                ensure!(found.as_deref() == expected(present), "a present long key reads as {found:?}");
            }
            let read = engine.read(key, &mut |_| ());
            ensure!(read.is_ok_and(|read| read) == present, "read and get differ on a long key");
        }
        let mut many = 0;
        engine.read_many(&[&second, b"short"], &mut |_, value| many += usize::from(value.is_some()))?;
        ensure!(many == 2, "reading many keys finds {many} of 2, one of them over the limit");
        let count = state_of(&*engine)?.len();
        ensure!(count == 4 - round, "a scan under lowered limits finds {count} keys");
        ensure!(
            is_too_large(engine.put(&second, b"new").err()) && is_too_large(engine.get(&absent).err()),
            "putting a long key, and getting one longer than all present keys, is TooLarge"
        );
        ensure!(
            is_too_large(engine.delete(&absent).err()),
            "deleting a key longer than all present keys is TooLarge"
        );
        if round == 0 {
            ensure!(engine.delete(&first)?.is_some(), "a delete does not find a present long key");
        } else {
            engine.apply(Batch::new().delete(&third))?;
            ensure!(engine.get(&third)?.is_none(), "a long key that a batch deleted is still present");
        }
        // Makes an engine that moves records move the long keys.
        (0..150u8).try_for_each(|number| engine.put(b"short", &[number; 90]).map(drop))?;
        if let Some(compact) = engine.as_compact() {
            compact.compact()?;
        }
        engine.close()?;
    }
    let engine = rig.open()?;
    ensure!(state_of(&*engine)?.len() == 2, "keys that were deleted under lowered limits are still present");
    ensure!(engine.get(&second)?.as_deref() == Some(b"value".as_slice()), "lowered limits lost a long key");
    engine.put(&first, b"again")?;
    ensure!(engine.delete(&second)?.is_some(), "under raised limits a long key is deleted");
    Ok(())
}

/// Every run overwrites this number of keys, with values of this many bytes.
const RUN: (u8, usize) = (8, 500);

fn short_runs(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    let rig = context.rig(setup)?;
    let mut lens = Vec::new();
    for number in 0..100 {
        run_shortly(&*rig.open()?, number)?.close()?;
        lens.push(disk_bytes(&rig)?);
    }
    check_lens("closed", &lens)?;
    if !context.factory().capabilities().simulated_fs {
        return Ok(());
    }
    let (mut disk, mut lens) = (SimFs::new(), Vec::new());
    for number in 0..100 {
        let rig = context.sim_rig(disk.clone(), setup);
        let engine = rig.open()?;
        run_shortly(&*engine, number)?;
        // A copy of the disk as it is now. The close that follows changes the old disk only.
        disk = disk.process_death();
        lens.push(disk_bytes(&context.sim_rig(disk.clone(), setup))?);
    }
    check_lens("killed", &lens)
}

/// Overwrites all keys.
fn run_shortly(engine: &dyn Engine, number: u8) -> Result<&dyn Engine, Failure> {
    for key in 0..RUN.0 {
        engine.put(&[key], &[number; RUN.1])?;
    }
    Ok(engine)
}

/// The bytes in all files of a store.
fn disk_bytes(rig: &Rig) -> Result<u64, Failure> {
    let (fs, mut bytes) = (rig.fs(), 0);
    for name in fs.list(rig.dir())? {
        bytes += fs.open(&rig.dir().join(name), OpenMode::Read)?.len()?;
    }
    Ok(bytes)
}

/// Tiny units are a few KB, and an engine may hold a few of them in reserve.
fn check_lens(how: &str, lens: &[u64]) -> CaseResult {
    const UNITS: u64 = 64 << 10;
    let live = u64::from(RUN.0) * RUN.1 as u64;
    let (early, late) = lens.split_at(lens.len() / 2);
    let [early, late] = [early, late].map(|lens| lens.iter().copied().max().unwrap_or_default());
    ensure!(
        late <= 10 * live + UNITS,
        "{} short runs, each {how}, leave {late} bytes on the disk for {live} bytes of data",
        lens.len()
    );
    ensure!(
        late <= early + live,
        "short runs, each {how}, leave {early} bytes on the disk at first and {late} later"
    );
    Ok(())
}
