//! Real processes, killed.

use super::case;
use crate::failure::{ensure, fail};
use crate::oracle::state_of;
use crate::rig::{Policy, Setup};
use crate::{Case, CaseResult, Context, Level, Need};
use kv_core::{Background, EngineFactory, Env};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    case(
        "process::stochastic_kv901_kill_during_writes",
        Level::Stochastic,
        &[Need::ChildProcess],
        "After kill -9 during writes the state is a prefix with all changes reported as durable.",
        |context| kill_during_writes(context, Child::Waits, context.scaled(6)),
    ),
    case(
        "process::stochastic_kv902_kill_after_writes",
        Level::Stochastic,
        &[Need::ChildProcess, Need::Inline],
        "After kill -9 under a policy that writes every change, no change is lost whose call had returned.",
        |context| kill_during_writes(context, Child::Writes, context.scaled(3)),
    ),
];

/// Set in the environment of a child process: the directory that it writes to.
const CHILD: &str = "KV_TESTS_CHILD";
/// Set in the environment of a child process: the name of its [`Child`].
const KIND: &str = "KV_TESTS_CHILD_KIND";
const KEYS: u64 = 50;

/// How a child makes sure that its changes survive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    /// It waits for durability after every tenth change.
    Waits,
    /// Its policy answers each change with a `Write`, which is done when the call returns.
    Writes,
    /// Its engine is process-safe, and its policy never dumps.
    IsSafe,
}

impl Child {
    const ALL: [Child; 3] = [Child::Waits, Child::Writes, Child::IsSafe];

    fn name(self) -> &'static str {
        match self {
            Child::Waits => "waits",
            Child::Writes => "writes",
            Child::IsSafe => "is_safe",
        }
    }

    fn policy(self) -> Policy {
        match self {
            Child::Waits => Policy::AnyOf,
            Child::Writes => Policy::Write,
            Child::IsSafe => Policy::Manual,
        }
    }

    fn background(self) -> Background {
        match self {
            Child::Waits | Child::IsSafe => Background::Threads,
            Child::Writes => Background::Inline,
        }
    }

    /// Whether the change survives, once this has returned.
    fn secures(self, number: u64, wait: impl FnOnce() -> kv_core::Result<()>) -> kv_core::Result<bool> {
        match self {
            Child::Waits if number % 10 == 9 => wait().map(|()| true),
            Child::Waits => Ok(false),
            Child::Writes | Child::IsSafe => Ok(true),
        }
    }
}

/// If this process is a child, writes until it is killed. Change `n` puts `n` under key `n % 50`.
/// Each line on standard output names a change that survives, with all changes before it.
pub(crate) fn run_as_child(factory: &dyn EngineFactory) -> Option<ExitCode> {
    let dir = std::env::var_os(CHILD)?;
    let kind = std::env::var(KIND).unwrap_or_default();
    let Some(child) = Child::ALL.into_iter().find(|child| child.name() == kind) else {
        return Some(ExitCode::FAILURE);
    };
    let options = kv_core::OpenOptions {
        persistence: child.policy().build(),
        scale: kv_core::Scale::Tiny,
        ..kv_core::OpenOptions::default()
    };
    let env = Env { background: child.background(), ..Env::os() };
    let Ok(engine) = factory.open(Path::new(&dir), &env, &options) else {
        return Some(ExitCode::FAILURE);
    };
    let mut out = std::io::stdout().lock();
    for number in 0u64.. {
        let Ok(lsn) = engine.put(&(number % KEYS).to_le_bytes(), &number.to_le_bytes()) else { break };
        let Ok(survives) = child.secures(number, || engine.wait_durable(lsn)) else { break };
        if survives && writeln!(out, "{number}").is_err() {
            break;
        }
        if out.flush().is_err() {
            break;
        }
    }
    Some(ExitCode::FAILURE)
}

pub(super) fn kill_a_process_safe_engine(context: &Context) -> CaseResult {
    kill_during_writes(context, Child::IsSafe, context.scaled(3))
}

fn kill_during_writes(context: &Context, kind: Child, rounds: u64) -> CaseResult {
    let mut rng = context.rng();
    for round in 0..rounds {
        let rig = context.real_rig(Setup::tiny(context, kind.policy()))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.env(CHILD, rig.dir()).env(KIND, kind.name());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let Some(stdout) = child.stdout.take() else { fail!("the child has no standard output") };
        let (begun, begins) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut survives = None;
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                survives = line.parse::<u64>().ok().or(survives);
                // The receiver waits for the first line only.
                let _ = begun.send(());
            }
            survives
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
        let survives = reader.join().ok().flatten();
        ensure!(
            survives.is_some(),
            "the harness is broken: no change was safe before the process was killed"
        );
        context.explored().crash_state();
        let engine = rig.open()?;
        let state = state_of(&*engine)?;
        let numbers = state.iter().filter_map(|(key, value)| {
            Some((u64::from_le_bytes(*key.first_chunk()?), u64::from_le_bytes(*value.first_chunk()?)))
        });
        let last = numbers.clone().map(|(_, number)| number).max();
        ensure!(
            last >= survives,
            "round {round}: changes up to {} survive a kill, but recovered are those up to {last:?}",
            survives.unwrap_or_default()
        );
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
