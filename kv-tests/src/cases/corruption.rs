//! Damage to a closed store: the engine reports it, or has lost nothing.

use super::case;
use crate::failure::{ensure, fail};
use crate::oracle::{History, State, state_of};
use crate::rig::{Policy, Rig, Setup};
use crate::sim::{PowerCut, SimFs};
use crate::workload::{Op, random_ops, run_op, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::fs::LOCK_FILE;
use kv_core::parts::Reserve;
use kv_core::{Engine, EngineExt, Error, Lsn, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SIMULATED: &[Need] = &[Need::SimulatedFs, Need::Inline];

pub(crate) const CASES: &[Case] = &[
    case(
        "corruption::required_kv651_flipped_bits",
        Level::Required,
        SIMULATED,
        "A flipped bit in any byte of a closed store is an error that names the file, or changes nothing.",
        flipped_bits,
    ),
    case(
        "corruption::required_kv652_flipped_bits_after_a_crash",
        Level::Required,
        SIMULATED,
        "After a crash a flipped bit is an error, or costs at most the changes of the last sync: never a hole, never more.",
        flipped_bits_after_a_crash,
    ),
    case(
        "corruption::required_kv653_zeroed_sectors",
        Level::Required,
        SIMULATED,
        "A zeroed sector of a closed store is an error that names the file, or changes nothing.",
        zeroed_sectors,
    ),
    case(
        "corruption::required_kv654_truncated_files",
        Level::Required,
        SIMULATED,
        "A file of a closed store that was cut at any length is an error that names it, or changes nothing.",
        truncated_files,
    ),
    case(
        "corruption::required_kv655_missing_files",
        Level::Required,
        SIMULATED,
        "A missing file of a closed store is an error, or changes nothing.",
        missing_files,
    ),
    case(
        "corruption::required_kv656_swapped_and_foreign_files",
        Level::Required,
        SIMULATED,
        "Two swapped files, or a file of another store, are an error, or change nothing.",
        swapped_and_foreign_files,
    ),
    case(
        "corruption::required_kv657_garbage",
        Level::Required,
        SIMULATED,
        "Garbage in a file of a closed store is an error that names it, or changes nothing; no panic.",
        garbage,
    ),
];

/// A closed store: its disk, its files, its state, and its newest LSN.
pub(super) struct Stored {
    pub(super) disk: SimFs,
    pub(super) files: Vec<(PathBuf, Vec<u8>)>,
    state: State,
    last: Lsn,
    pub(super) setup: Setup,
    ops: Vec<Op>,
}

impl Stored {
    /// A closed store with several files and a compaction, if its engine makes any.
    fn closed(context: &Context) -> Result<Self, Failure> {
        let mut rng = context.rng();
        let mut ops: Vec<Op> = (0..14).map(|key| Op::Put { key, len: 60 }).collect();
        ops.extend((0..5).map(|key| Op::Delete { key }));
        ops.extend(random_ops(&mut rng, 30, 14));
        ops.extend([Op::Sync, Op::Compact]);
        ops.extend(random_ops(&mut rng, 10, 14));
        Stored::after(context, Setup::tiny(context, Policy::MaxLogSize(300)), ops)
    }

    /// A closed store after these operations.
    pub(super) fn after(context: &Context, setup: Setup, ops: Vec<Op>) -> Result<Self, Failure> {
        let disk = SimFs::new();
        let (state, last) = fill(&context.sim_rig(disk.clone(), setup), &ops, 0)?;
        let files = data_files(&disk);
        Ok(Stored { disk, files, state, last, setup, ops })
    }

    pub(super) fn rig(&self, context: &Context, disk: &SimFs) -> Rig {
        context.sim_rig(disk.clone(), self.setup)
    }

    /// Opens the store after some of its files were replaced or (`None`) removed, and judges the
    /// answer. With `named`, the error must name one of these files.
    pub(super) fn check(
        &self,
        context: &Context,
        damage: &[(&Path, Option<Vec<u8>>)],
        named: bool,
    ) -> CaseResult {
        let number = context.explored().damages();
        context.explored().damage();
        let disk = self.disk.process_death();
        for (path, bytes) in damage {
            disk.damage(path, bytes.clone());
        }
        let paths: Vec<&Path> = damage.iter().map(|(path, _)| *path).collect();
        let before = data_files(&disk);
        if number.is_multiple_of(8) && context.factory().capabilities().read_only {
            self.check_reader(context, &disk.process_death(), &paths, named)?;
        }
        let error = match self.rig(context, &disk).open() {
            Ok(engine) => match self.read_all(&*engine) {
                Ok(()) if number.is_multiple_of(3) => {
                    return self.check_going_on(context, &disk, engine, &paths);
                }
                Ok(()) => return Ok(()),
                Err(Wrong::State(failure)) => return Err(failure),
                Err(Wrong::Refused(error)) => return check_error(&error, &paths, named),
            },
            Err(error) => error,
        };
        check_error(&error, &paths, named)?;
        if let Some(change) = difference(&before, &data_files(&disk)) {
            fail!("an open that is refused has changed nothing, but it {change}; it said: {error}");
        }
        // The same process tries again: the first refusal holds no lock, and hides nothing.
        match self.rig(context, &disk).open() {
            Ok(engine) => self.read_all(&*engine).or_else(|wrong| match wrong {
                Wrong::State(failure) => Err(failure),
                Wrong::Refused(error) => check_error(&error, &paths, named),
            }),
            Err(again) => check_error(&again, &paths, named),
        }
    }

    /// Reads every key, and then scans. A damaged store may refuse, but must not answer wrongly.
    fn read_all(&self, engine: &dyn Engine) -> Result<(), Wrong> {
        read_all(engine, &self.state)?;
        let last = engine.last_lsn();
        if last == self.last {
            return Ok(());
        }
        let expected = self.last;
        Err(Wrong::State(Failure::new(format!(
            "a damaged store opens with all its keys, but at LSN {last}: it was closed at {expected}"
        ))))
    }

    /// Opens a damaged store for reading only: the same state or an error, and nothing changes.
    fn check_reader(&self, context: &Context, disk: &SimFs, paths: &[&Path], named: bool) -> CaseResult {
        let before = disk.files();
        let rig = self.rig(context, disk);
        let options = OpenOptions { read_only: true, ..rig.setup.options() };
        match rig.open_with(&options).map(|reader| self.read_all(&*reader)) {
            Ok(Ok(())) => {}
            Ok(Err(Wrong::State(failure))) => return Err(failure.with("where", "opened for reading only")),
            Ok(Err(Wrong::Refused(error))) | Err(error) => check_error(&error, paths, named)?,
        }
        match difference(&before, &disk.files()) {
            None => Ok(()),
            Some(change) => fail!("an open for reading only {change} of a damaged store"),
        }
    }

    /// Uses a store that opened in spite of the damage, and opens it again. The engine may notice
    /// the damage later.
    fn check_going_on(
        &self,
        context: &Context,
        disk: &SimFs,
        engine: Arc<dyn Engine>,
        paths: &[&Path],
    ) -> CaseResult {
        let lsn = match engine.put_durable(b"new", b"value") {
            Ok(lsn) => lsn,
            Err(Error::Poisoned { cause }) => return check_error(&cause, paths, false),
            Err(error) => return check_error(&error, paths, false),
        };
        ensure!(
            lsn > self.last,
            "a damaged store opens, and uses LSN {lsn} again: it was closed at LSN {}",
            self.last
        );
        let mut expected = self.state.clone();
        expected.insert(b"new".to_vec(), b"value".to_vec());
        match engine.close() {
            Ok(()) => {}
            Err(Error::Poisoned { cause }) => return check_error(&cause, paths, false),
            Err(error) => return check_error(&error, paths, false),
        }
        drop(engine);
        let again = self.rig(context, disk).open();
        match again.map(|engine| read_all(&*engine, &expected)) {
            Ok(Err(Wrong::State(failure))) => Err(failure.with(
                "where",
                "the damaged store opened with its state, took a put, was closed and opened again",
            )),
            Ok(Err(Wrong::Refused(error))) | Err(error) => check_error(&error, paths, false),
            Ok(Ok(())) => Ok(()),
        }
    }
}

/// The first difference between the files of a disk before and after.
pub(super) fn difference(before: &[(PathBuf, Vec<u8>)], after: &[(PathBuf, Vec<u8>)]) -> Option<String> {
    for (path, bytes) in before {
        match after.iter().find(|(known, _)| known == path) {
            None => return Some(format!("removed {}", path.display())),
            Some((_, now)) if now != bytes => {
                let at = now.iter().zip(bytes).position(|(now, was)| now != was);
                let at = at.unwrap_or_else(|| now.len().min(bytes.len()));
                return Some(format!("changed byte {at} of {}", path.display()));
            }
            Some(_) => {}
        }
    }
    let new = after.iter().find(|(path, _)| before.iter().all(|(known, _)| known != path));
    new.map(|(path, _)| format!("created {}", path.display()))
}

/// Runs `ops` with values numbered from `first` on, and closes the store; returns its state and its
/// newest LSN.
pub(super) fn fill(rig: &Rig, ops: &[Op], first: usize) -> Result<(State, Lsn), Failure> {
    let mut history = History::numbered_from(first);
    let mut last = Lsn::ZERO;
    for session in ops.split(|op| *op == Op::Reopen) {
        let engine = rig.open()?;
        run_ops(&*engine, session, &mut history)?;
        engine.close()?;
        last = engine.last_lsn();
    }
    Ok((history.state(), last))
}

/// The files of a store, without its lock file.
pub(super) fn data_files(disk: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = disk.files();
    files.retain(|(path, _)| path.file_name().is_none_or(|name| name != LOCK_FILE));
    files
}

enum Wrong {
    State(Failure),
    Refused(Error),
}

/// Reads every key, and then scans. A damaged store may refuse, but must not answer wrongly.
fn read_all(engine: &dyn Engine, expected: &State) -> Result<(), Wrong> {
    let wrong = |what: String| Wrong::State(Failure::new(what));
    for (key, value) in expected {
        let found = engine.get(key).map_err(Wrong::Refused)?;
        if found.as_deref() != Some(value.as_slice()) {
            let found = found.map_or_else(|| "absent".to_owned(), |found| differing(&found, value));
            return Err(wrong(format!("a damaged store opens, and key {key:?} is {found}")));
        }
    }
    let state = state_of(engine).map_err(Wrong::Refused)?;
    if state == *expected {
        return Ok(());
    }
    let surplus: Vec<_> = state.keys().filter(|key| !expected.contains_key(*key)).collect();
    Err(wrong(format!("a damaged store opens, and a scan shows keys that were never put: {surplus:?}")))
}

/// How a value differs from the expected one, in words.
fn differing(found: &[u8], expected: &[u8]) -> String {
    let at = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
    format!("a value of {} bytes, not {}, that differs from byte {at} on", found.len(), expected.len())
}

pub(super) fn check_error(error: &Error, damaged: &[&Path], named: bool) -> CaseResult {
    let path = match error {
        Error::Corruption { path, .. } | Error::UnsupportedVersion { path, .. } => path,
        Error::NotAStore { .. } => return Ok(()),
        other => return Err(Failure::new(format!("damage is Corruption, but it is answered with: {other}"))),
    };
    ensure!(
        !named || damaged.contains(&path.as_path()),
        "the error names the damaged file {damaged:?}, but it says: {error}"
    );
    Ok(())
}

/// Adds to a failure the damage, its file, and the damaged disk.
pub(super) fn explain(
    failure: Failure,
    disk: &SimFs,
    path: &Path,
    what: &str,
    bytes: Option<Vec<u8>>,
) -> Failure {
    let image = disk.process_death();
    image.damage(path, bytes);
    failure.with("damage", format!("{}: {what}", path.display())).with_image(image)
}

/// Bits to flip: one in each byte, another one for each further effort, at most all.
fn bits(context: &Context, len: usize) -> impl Iterator<Item = (usize, u8)> {
    let each = usize::try_from(context.scaled(1).min(8)).unwrap_or(8);
    (0..len).flat_map(move |at| (0..each).map(move |nth| (at, 1u8 << ((at * 5 + nth) % 8))))
}

pub(super) fn flipped(bytes: &[u8], at: usize, mask: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= mask;
    }
    bytes
}

fn flipped_bits(context: &Context) -> CaseResult {
    let stored = Stored::closed(context)?;
    for (path, whole) in &stored.files {
        for (at, mask) in bits(context, whole.len()) {
            let damaged = Some(flipped(whole, at, mask));
            let what = || format!("byte {at} of {} xor {mask:#04x}", whole.len());
            context.set_doing(format!("{}: {}", path.display(), what()));
            stored
                .check(context, &[(path, damaged.clone())], true)
                .map_err(|failure| explain(failure, &stored.disk, path, &what(), damaged))?;
        }
    }
    enough(context)
}

pub(super) fn enough(context: &Context) -> CaseResult {
    ensure!(context.explored().damages() > 0, "the harness is broken: nothing was damaged");
    Ok(())
}

/// Everything is durable, but the store was not closed. The engine cannot tell damage at the end
/// from a torn write, so the newest dump may be lost. Later records cover the dumps before it.
fn flipped_bits_after_a_crash(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    let disk = SimFs::new();
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    let mut history = History::default();
    let mut dumps = vec![Lsn::ZERO];
    let mut ops = random_ops(&mut rng, 50, 12);
    ops.push(Op::Put { key: 1, len: 50 });
    ops.push(Op::Sync);
    for op in &ops {
        run_op(&*engine, op, &mut history)?;
        if dumps.last() != Some(&engine.durable_lsn()) {
            dumps.push(engine.durable_lsn());
        }
    }
    let crashed = disk.power_cut(PowerCut::LOSE_ALL);
    drop(engine);
    let before_last = dumps.iter().rev().nth(1).copied().unwrap_or(Lsn::ZERO);
    let owed = history.as_if_durable(before_last);
    for (path, whole) in data_files(&crashed) {
        for (at, mask) in bits(context, whole.len()) {
            context.explored().damage();
            let damaged = flipped(&whole, at, mask);
            let what = format!("byte {at} of {} xor {mask:#04x}", whole.len());
            context.set_doing(format!("{}: {what}", path.display()));
            let image = crashed.process_death();
            image.damage(&path, Some(damaged.clone()));
            let judged = match context.sim_rig(image, setup).open() {
                Err(error) => check_error(&error, &[&path], true),
                Ok(engine) => match state_of(&*engine) {
                    Err(error) => check_error(&error, &[&path], true),
                    Ok(state) => owed.check(&state),
                },
            };
            judged.map_err(|failure| explain(failure, &crashed, &path, &what, Some(damaged)))?;
        }
    }
    enough(context)
}

fn zeroed_sectors(context: &Context) -> CaseResult {
    const SECTOR_LEN: usize = 512;
    let stored = Stored::closed(context)?;
    for (path, whole) in &stored.files {
        // Whole sectors, and halves that begin in the middle of one.
        for start in (0..whole.len()).step_by(SECTOR_LEN / 2) {
            let mut damaged = whole.clone();
            damaged.iter_mut().skip(start).take(SECTOR_LEN).for_each(|byte| *byte = 0);
            let what = format!("{SECTOR_LEN} bytes from {start} of {} zeroed", whole.len());
            context.set_doing(format!("{}: {what}", path.display()));
            stored
                .check(context, &[(path, Some(damaged.clone()))], true)
                .map_err(|failure| explain(failure, &stored.disk, path, &what, Some(damaged)))?;
        }
    }
    enough(context)
}

fn truncated_files(context: &Context) -> CaseResult {
    let stored = Stored::closed(context)?;
    for (path, whole) in &stored.files {
        for len in 0..whole.len() {
            let damaged: Vec<u8> = whole.iter().take(len).copied().collect();
            let what = format!("cut to {len} of {} bytes", whole.len());
            context.set_doing(format!("{}: {what}", path.display()));
            stored
                .check(context, &[(path, Some(damaged.clone()))], true)
                .map_err(|failure| explain(failure, &stored.disk, path, &what, Some(damaged)))?;
        }
    }
    enough(context)
}

impl Stored {
    /// Whether the data lies in more than one file. A reserve holds none.
    pub(super) fn has_several_files(&self) -> bool {
        self.files.iter().filter(|(path, _)| !path.ends_with(Reserve::FILE)).count() > 1
    }
}

fn missing_files(context: &Context) -> CaseResult {
    let stored = Stored::closed(context)?;
    if !stored.has_several_files() {
        // Without its one file the store is gone, and no file is left to tell.
        return Ok(());
    }
    for (path, _) in &stored.files {
        context.set_doing(format!("{} removed", path.display()));
        stored
            .check(context, &[(path, None)], false)
            .map_err(|failure| explain(failure, &stored.disk, path, "removed", None))?;
    }
    Ok(())
}

fn swapped_and_foreign_files(context: &Context) -> CaseResult {
    let stored = Stored::closed(context)?;
    for (nth, (one, first)) in stored.files.iter().enumerate() {
        for (other, second) in stored.files.iter().skip(nth + 1) {
            let what = format!("swapped with {}", other.display());
            let damage = [(one.as_path(), Some(second.clone())), (other, Some(first.clone()))];
            stored
                .check(context, &damage, true)
                .map_err(|failure| explain(failure, &stored.disk, one, &what, Some(second.clone())))?;
        }
    }
    if !stored.has_several_files() {
        // With the one file of another store, the directory is the other store.
        return Ok(());
    }
    let foreign = another_store(context, &stored)?;
    for (path, bytes) in &foreign {
        let what = "replaced by the file of the same name of another store";
        stored
            .check(context, &[(path, Some(bytes.clone()))], false)
            .map_err(|failure| explain(failure, &stored.disk, path, what, Some(bytes.clone())))?;
    }
    Ok(())
}

/// The files of another store under the names that they would have in this one. Its history differs
/// in the values' bytes only, so only the identity of the store tells them apart.
pub(super) fn another_store(context: &Context, stored: &Stored) -> Result<Vec<(PathBuf, Vec<u8>)>, Failure> {
    let disk = SimFs::new();
    let other = context.sim_rig(disk.clone(), stored.setup).in_dir("/another");
    let here = stored.rig(context, &stored.disk);
    fill(&other, &stored.ops, 1000)?;
    Ok(data_files(&disk)
        .into_iter()
        .filter_map(|(path, bytes)| Some((here.dir().join(path.strip_prefix(other.dir()).ok()?), bytes)))
        .filter(|(path, _)| stored.files.iter().any(|(known, _)| known == path))
        .collect())
}

fn garbage(context: &Context) -> CaseResult {
    let stored = Stored::closed(context)?;
    let mut rng = context.rng();
    for (path, whole) in &stored.files {
        for round in 0..context.scaled(300) {
            let mut damaged = whole.clone();
            let what = match round % 3 {
                0 => {
                    damaged = (0..rng.usize(0..whole.len() * 2 + 2)).map(|_| rng.u8(..)).collect();
                    "random bytes"
                }
                1 => {
                    let start = rng.usize(0..=whole.len());
                    damaged.iter_mut().skip(start).take(16).for_each(|byte| *byte = rng.u8(..));
                    "16 bytes overwritten with random ones"
                }
                _ => {
                    damaged.extend((0..rng.usize(1..600)).map(|_| rng.u8(..)));
                    "random bytes appended"
                }
            };
            if damaged == *whole {
                continue;
            }
            context.set_doing(format!("{}: {what}, round {round}", path.display()));
            stored
                .check(context, &[(path, Some(damaged.clone()))], true)
                .map_err(|failure| explain(failure, &stored.disk, path, what, Some(damaged)))?;
        }
    }
    enough(context)
}
