//! Real processes, killed.

use super::case;
use crate::failure::{ensure, fail};
use crate::oracle::state_of;
use crate::rig::{Policy, Setup};
use crate::{Case, CaseResult, Context, Level, Need};
use kv_core::{EngineFactory, Env};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[case(
    "process::stochastic_kv901_kill_during_writes",
    Level::Stochastic,
    &[Need::ChildProcess],
    "After kill -9 during writes the state is a prefix with all changes reported as durable.",
    kill_during_writes,
)];

/// Set in the environment of a child process: the directory that it writes to.
const CHILD: &str = "KV_TESTS_CHILD";
const KEYS: u64 = 50;

fn setup(context: &Context) -> Setup {
    Setup { background: kv_core::Background::Threads, ..Setup::tiny(context, Policy::AnyOf) }
}

/// If this process is a child, writes until it is killed. Change `n` puts `n` under key `n % 50`.
/// Each line on standard output names a durable change.
pub(crate) fn run_as_child(factory: &dyn EngineFactory) -> Option<ExitCode> {
    let dir = std::env::var_os(CHILD)?;
    let options = kv_core::OpenOptions {
        persistence: Policy::AnyOf.build(),
        scale: kv_core::Scale::Tiny,
        ..kv_core::OpenOptions::default()
    };
    let Ok(engine) = factory.open(Path::new(&dir), &Env::os(), &options) else {
        return Some(ExitCode::FAILURE);
    };
    let mut out = std::io::stdout().lock();
    for number in 0u64.. {
        let Ok(lsn) = engine.put(&(number % KEYS).to_le_bytes(), &number.to_le_bytes()) else { break };
        if number % 10 == 9 && engine.wait_durable(lsn).and(Ok(writeln!(out, "{number}"))).is_err() {
            break;
        }
        if out.flush().is_err() {
            break;
        }
    }
    Some(ExitCode::FAILURE)
}

fn kill_during_writes(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for round in 0..context.scaled(6) {
        let rig = context.real_rig(setup(context))?;
        let mut child = Command::new(std::env::current_exe()?)
            .env(CHILD, rig.dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let Some(stdout) = child.stdout.take() else { fail!("the child has no standard output") };
        let (begun, begins) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut durable = None;
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                durable = line.parse::<u64>().ok().or(durable);
                // The receiver waits for the first line only.
                let _ = begun.send(());
            }
            durable
        });
        // If the child ends, the reader ends and closes the channel.
        let works = begins.recv_timeout(context.settings().timeout / 2).is_ok();
        std::thread::sleep(Duration::from_millis(rng.u64(1..100)));
        let ended = child.try_wait()?;
        child.kill()?;
        child.wait()?;
        ensure!(
            works && ended.is_none(),
            "a writing process runs until it is killed, but it ended by itself: {ended:?}"
        );
        let durable = reader.join().ok().flatten();
        ensure!(
            durable.is_some(),
            "the harness is broken: no change was durable before the process was killed"
        );
        context.explored().crash_state();
        let engine = rig.open()?;
        let state = state_of(&*engine)?;
        let numbers = state.iter().filter_map(|(key, value)| {
            Some((u64::from_le_bytes(*key.first_chunk()?), u64::from_le_bytes(*value.first_chunk()?)))
        });
        let last = numbers.clone().map(|(_, number)| number).max();
        ensure!(last >= durable, "round {round}: change {durable:?} was durable, recovered up to {last:?}");
        // The state after changes `0..=last` has one number under each key.
        let count = last.map_or(0, |last| (last + 1).min(KEYS));
        ensure!(state.len() as u64 == count, "round {round}: {} keys are present, not {count}", state.len());
        for (key, number) in numbers {
            let last = last.unwrap_or_default();
            let expected = last - (last + KEYS - key) % KEYS;
            ensure!(
                number == expected,
                "round {round}: key {key} has change {number}, not {expected}: no prefix"
            );
        }
    }
    Ok(())
}
