//! Real kills of a process in which several threads write to a process-safe engine: a case of the
//! group `process`.
//!
//! Threads change keys of their own. Each notes the number of its last change whose call returned,
//! in a file that survives a kill. So the judge knows exactly which changes have to be there.

use crate::failure::{ensure, fail};
use crate::oracle::{State, state_of};
use crate::rig::{Policy, Setup};
use crate::{CaseResult, Context, Failure};
use kv_core::fs::{File, FileExt, FsExt, OpenMode};
use kv_core::{Batch, Engine, EngineFactory, Env, OpenOptions, OsFs, Scale};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Set in the environment of a child: the directory of its store, the file that it notes its
/// changes in, and the number of its policy.
const STORE: &str = "KV_TESTS_KILLS_STORE";
const NOTES: &str = "KV_TESTS_KILLS_NOTES";
const POLICY: &str = "KV_TESTS_KILLS_POLICY";

const THREADS: u8 = 3;
/// Keys of each thread.
const KEYS: u64 = 24;
/// Kills of a process with the same store. The next process adopts the changes of the one before.
const KILLS_A_STORE: u64 = 4;
/// The latest kill, milliseconds after the start of the process. The earliest ones meet its
/// opening.
const KILL_MS_MAX: u64 = 120;

/// Key `slot` of a thread.
fn key(thread: u8, slot: u64) -> Vec<u8> {
    [&[thread][..], &slot.to_le_bytes()].concat()
}

/// Change `number` of a thread, from 1 on: the keys that it changes, each with its new value.
fn effects(thread: u8, number: u64) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let len = usize::try_from(number * 37 % 150).unwrap_or_default();
    let value = || Some([&number.to_le_bytes()[..], &vec![thread; len]].concat());
    let slot = number % KEYS;
    match number % 7 {
        3 => vec![(key(thread, slot), None)],
        5 => vec![(key(thread, slot), value()), (key(thread, (slot + 1) % KEYS), None)],
        _ => vec![(key(thread, slot), value())],
    }
}

fn make(engine: &dyn Engine, thread: u8, number: u64) -> kv_core::Result<()> {
    let mut effects = effects(thread, number);
    match (effects.len(), effects.pop()) {
        (1, Some((key, Some(value)))) => engine.put(&key, &value).map(drop),
        (1, Some((key, None))) => engine.delete(&key).map(drop),
        (_, last) => {
            let mut batch = Batch::new();
            for (key, value) in effects.into_iter().chain(last) {
                match value {
                    Some(value) => batch.put(&key, &value),
                    None => batch.delete(&key),
                };
            }
            engine.apply(&batch).map(drop)
        }
    }
}

/// The keys of a thread after its first `count` changes.
fn after(thread: u8, count: u64) -> State {
    let mut state = State::new();
    // Every key was changed in the last `KEYS` changes.
    for number in count.saturating_sub(2 * KEYS).max(1)..=count {
        for (key, value) in effects(thread, number) {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
    }
    state
}

/// Checks that the state holds every change that had returned. The next one of each thread may have
/// been under way.
fn judge(state: &State, returned: &[u64]) -> CaseResult {
    let mut others = state.clone();
    for (thread, count) in (0..THREADS).zip(returned) {
        let found = others.extract_if(.., |key, _| key.first() == Some(&thread)).collect::<State>();
        if found != after(thread, *count) && found != after(thread, count + 1) {
            let newest =
                found.values().filter_map(|value| value.first_chunk()).map(|n| u64::from_le_bytes(*n));
            fail!(
                "process-safe changes survive a kill, but of {count} changes of a thread that had returned some are lost, the newest put is {:?}",
                newest.max()
            );
        }
    }
    ensure!(others.is_empty(), "no change appears that nobody made, but these do: {:?}", others.keys());
    Ok(())
}

/// The number of the last change of each thread whose call returned.
fn read_notes(file: &dyn File) -> std::io::Result<Vec<u64>> {
    let mut notes = Vec::new();
    for thread in 0..u64::from(THREADS) {
        let mut bytes = [0; 8];
        // A thread without a note has made none.
        let read = file.read_at(&mut bytes, thread * 8)?;
        notes.push(if read == bytes.len() { u64::from_le_bytes(bytes) } else { 0 });
    }
    Ok(notes)
}

/// If this process is a child, checks the store that the process before left, and writes until it
/// is killed.
pub(crate) fn run_as_child(factory: &dyn EngineFactory) -> Option<ExitCode> {
    let [dir, notes] = [STORE, NOTES].map(|name| std::env::var_os(name).map(PathBuf::from));
    let number = std::env::var(POLICY).ok()?.parse::<usize>().ok()?;
    let policy = *Policy::ALL.get(number)?;
    let Err(failure) = write_until_killed(factory, &dir?, &notes?, policy);
    // The parent complains that it has ended.
    let _ = writeln!(std::io::stderr(), "{failure}");
    Some(ExitCode::FAILURE)
}

/// Never returns without a failure.
fn write_until_killed(
    factory: &dyn EngineFactory,
    dir: &Path,
    notes: &Path,
    policy: Policy,
) -> Result<std::convert::Infallible, Failure> {
    let options = OpenOptions { persistence: policy.build(), scale: Scale::Tiny, ..OpenOptions::default() };
    let engine = factory.open(dir, &Env::os(), &options)?;
    let notes = OsFs.open(notes, OpenMode::ReadWrite)?;
    let returned = read_notes(&*notes)?;
    judge(&state_of(&*engine)?, &returned)?;
    let write = |thread: u8, first: u64| {
        (first..).try_for_each(|number| {
            make(&*engine, thread, number)?;
            notes.write_all_at(&number.to_le_bytes(), u64::from(thread) * 8)?;
            Ok::<_, Failure>(())
        })
    };
    thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = (0..THREADS)
            .zip(returned)
            // The change that was under way is made again. It may be there.
            .map(|(thread, count)| scope.spawn(move || write(thread, count + 1)))
            .collect();
        for writer in writers {
            writer.join().map_err(|_| Failure::new("no operation panics, but one did"))??;
        }
        fail!("the writers end")
    })
}

pub(super) fn kills_of_threads(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let mut made = 0;
    for round in 0..context.scaled(7) {
        let number = usize::try_from(round).unwrap_or_default() % Policy::ALL.len();
        let policy = Policy::ALL.get(number).copied().unwrap_or(Policy::Manual);
        let rig = context.real_rig(Setup::tiny(context, policy))?;
        let place = tempfile::tempdir()?;
        let notes = place.path().join("notes");
        let file = OsFs.open(&notes, OpenMode::CreateNew)?;
        for _ in 0..KILLS_A_STORE {
            let mut command = Command::new(std::env::current_exe()?);
            command.env(STORE, rig.dir()).env(NOTES, &notes).env(POLICY, number.to_string());
            let start = Instant::now();
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
            thread::sleep(Duration::from_millis(rng.u64(1..KILL_MS_MAX)).saturating_sub(start.elapsed()));
            let ended = child.try_wait()?;
            child.kill()?;
            child.wait()?;
            ensure!(
                ended.is_none(),
                "a writing process runs until it is killed, but it ended by itself: {ended:?}"
            );
            context.explored().crash_state();
        }
        let returned = read_notes(&*file)?;
        made += returned.iter().sum::<u64>();
        let engine = rig.open()?;
        let judged = judge(&state_of(&*engine)?, &returned);
        judged.map_err(|failure| {
            failure.with("policy", format!("{policy:?}")).with("round", round.to_string())
        })?;
    }
    ensure!(made > 0, "the harness is broken: no change returned before a kill");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state after the first `counts` changes of the threads.
    fn state(counts: [u64; 3]) -> State {
        (0..THREADS).zip(counts).flat_map(|(thread, count)| after(thread, count)).collect()
    }

    #[test]
    fn the_last_changes_tell_the_state() {
        let mut whole = State::new();
        for number in 1..500 {
            for (key, value) in effects(1, number) {
                match value {
                    Some(value) => whole.insert(key, value),
                    None => whole.remove(&key),
                };
            }
            assert_eq!(after(1, number), whole, "after {number}");
        }
    }

    #[test]
    fn a_change_under_way_may_be_there_and_no_other_may_miss() {
        for count in 1..200 {
            judge(&state([count, 3, 0]), &[count, 3, 0]).unwrap();
            judge(&state([count, 3, 0]), &[count - 1, 3, 0]).unwrap();
        }
        assert!(judge(&state([99, 3, 0]), &[100, 3, 0]).is_err());
        assert!(judge(&state([99, 3, 0]), &[97, 3, 0]).is_err());
        let mut foreign = state([99, 3, 0]);
        foreign.insert(vec![9], vec![]);
        assert!(judge(&foreign, &[99, 3, 0]).is_err());
    }
}
