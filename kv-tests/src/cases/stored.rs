//! A closed store, and the judge of its opens after damage.

use crate::failure::{ensure, fail};
use crate::oracle::{History, State, state_of};
use crate::rig::{Policy, Rig, Setup};
use crate::sim::SimFs;
use crate::workload::{Op, random_ops, run_ops};
use crate::{CaseResult, Context, Failure};
use kv_core::fs::LOCK_FILE;
use kv_core::parts::Reserve;
use kv_core::{Engine, EngineExt, Error, Lsn, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    pub(super) fn closed(context: &Context) -> Result<Self, Failure> {
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

    /// Whether the data lies in more than one file. A reserve holds none.
    pub(super) fn has_several_files(&self) -> bool {
        self.files.iter().filter(|(path, _)| !path.ends_with(Reserve::FILE)).count() > 1
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

pub(super) fn flipped(bytes: &[u8], at: usize, mask: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= mask;
    }
    bytes
}

pub(super) fn enough(context: &Context) -> CaseResult {
    ensure!(context.explored().damages() > 0, "the harness is broken: nothing was damaged");
    Ok(())
}
