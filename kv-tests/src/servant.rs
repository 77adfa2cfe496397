//! A child process that runs operations for its parent: one line for each operation, and one for
//! its answer. So the parent chooses the operation after which it kills the child.
//!
//! | line | the servant |
//! |---|---|
//! | `open POLICY NUMBER` | opens the store; its operations are numbered from `NUMBER` on |
//! | an operation, as in a scenario | runs it |
//! | `close`, `drop` | closes the store, drops the handle |
//! | `held` | counts its open files and threads |
//! | `exit` | ends, and closes nothing |
//!
//! An answer is `ok`, then numbers; or `error`, the name of the error's variant, and its text.

use crate::failure::{Failure, fail};
use crate::oracle::History;
use crate::rig::Policy;
use crate::workload::{Op, effects_of, run_op};
use kv_core::{Engine, EngineFactory, Env, Error, Lsn, OpenOptions, Scale};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, mpsc};

/// Set in the environment of a servant: the directory of its store.
const DIR: &str = "KV_TESTS_SERVANT";

/// If this process is a servant, serves until its parent ends or closes the pipe.
pub(crate) fn serve(factory: &dyn EngineFactory) -> Option<ExitCode> {
    let dir = std::env::var_os(DIR)?;
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
        // The parent is gone: an operation that hangs must not keep this process.
        std::process::exit(0);
    });
    let mut servant = Serving { factory, dir: dir.as_ref(), engine: None, history: History::default() };
    for line in lines {
        let answer = match servant.run(&line) {
            Ok(numbers) => numbers.iter().fold("ok".to_owned(), |line, number| format!("{line} {number}")),
            Err(error) => format!("error {} {error}", variant(&error)),
        };
        let mut out = io::stdout().lock();
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Some(ExitCode::SUCCESS)
}

struct Serving<'a> {
    factory: &'a dyn EngineFactory,
    dir: &'a Path,
    engine: Option<Arc<dyn Engine>>,
    history: History,
}

impl Serving<'_> {
    fn run(&mut self, line: &str) -> kv_core::Result<Vec<u64>> {
        let invalid = || Error::InvalidArgument(format!("the servant does not know {line:?}"));
        if let Some(rest) = line.strip_prefix("open ") {
            let (policy, number) = rest.split_once(' ').ok_or_else(invalid)?;
            let policy = Policy::ALL.into_iter().find(|known| known.name() == policy).ok_or_else(invalid)?;
            self.history = History::numbered_from(number.parse().map_err(|_| invalid())?);
            let options =
                OpenOptions { persistence: policy.build(), scale: Scale::Tiny, ..OpenOptions::default() };
            let engine = self.factory.open(self.dir, &Env::os(), &options)?;
            let answer = vec![engine.last_lsn().get(), engine.durable_lsn().get()];
            self.engine = Some(engine);
            return Ok(answer);
        }
        match line {
            "drop" => self.engine = None,
            "close" => self.engine.as_ref().map_or(Ok(()), |engine| engine.close())?,
            "held" => return Ok(held()),
            "exit" => std::process::exit(0),
            operation => {
                let op: Op = operation.parse().map_err(|_| invalid())?;
                let engine = self.engine.as_deref().ok_or_else(invalid)?;
                let before = self.history.last_lsn();
                run_op(engine, &op, &mut self.history)?;
                let changed = Some(self.history.last_lsn()).filter(|lsn| *lsn > before);
                return Ok(vec![changed.map_or(0, Lsn::get), engine.durable_lsn().get()]);
            }
        }
        Ok(Vec::new())
    }
}

/// The open files and the threads of this process, as far as the system lists them.
fn held() -> Vec<u64> {
    #[expect(clippy::disallowed_methods, reason = "the system's list, not a store's")]
    let count = |dir: &str| std::fs::read_dir(dir).map_or(0, |entries| entries.count() as u64);
    vec![count("/proc/self/fd"), count("/proc/self/task")]
}

fn variant(error: &Error) -> &'static str {
    match error {
        Error::Locked { .. } => "Locked",
        Error::Closed => "Closed",
        Error::Poisoned { .. } => "Poisoned",
        Error::Corruption { .. } => "Corruption",
        Error::NotAStore { .. } => "NotAStore",
        Error::Io { .. } => "Io",
        _ => "Other",
    }
}

/// A running servant. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Servant {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The error that a servant met: the name of its variant, and its text.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) variant: String,
    pub(crate) text: String,
}

impl Servant {
    /// Starts a servant for the store in `dir`.
    pub(crate) fn start(dir: &Path) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            fail!("the harness is broken: a child process has no pipes")
        };
        Ok(Servant { child, orders, answers: BufReader::new(answers) })
    }

    /// Sends an order, and does not wait for its answer.
    pub(crate) fn send(&mut self, order: &str) -> Result<(), Failure> {
        Ok(writeln!(self.orders, "{order}").and_then(|()| self.orders.flush())?)
    }

    /// Sends an order; returns the numbers of the answer.
    pub(crate) fn order(&mut self, order: &str) -> Result<Result<Vec<u64>, Refused>, Failure> {
        self.send(order)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let line = line.trim_end();
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "ok" => Ok(Ok(rest.split_whitespace().filter_map(|word| word.parse().ok()).collect())),
            "error" => {
                let (variant, text) = rest.split_once(' ').unwrap_or((rest, ""));
                Ok(Err(Refused { variant: variant.to_owned(), text: text.to_owned() }))
            }
            _ => fail!("a child process ended by itself when it was told to {order:?}: a panic?"),
        }
    }

    /// As [`order`](Self::order), for one that must succeed.
    pub(crate) fn must(&mut self, order: &str) -> Result<Vec<u64>, Failure> {
        self.order(order)?.map_err(|refused| {
            Failure::new(format!(
                "an operation of another process must succeed ({order}), but: {}",
                refused.text
            ))
        })
    }

    /// Opens the store.
    pub(crate) fn open(
        &mut self,
        policy: Policy,
        first: usize,
    ) -> Result<Result<Vec<u64>, Refused>, Failure> {
        self.order(&format!("open {} {first}", policy.name()))
    }

    /// Runs an operation, and records it.
    pub(crate) fn run(&mut self, op: &Op, history: &mut History) -> Result<(), Failure> {
        history.begin(effects_of(op, history.next_number()));
        let answer = self.must(&op.to_string())?;
        let mut lsns = answer.into_iter().map(Lsn::new);
        history.end(lsns.next().filter(|lsn| *lsn > Lsn::ZERO));
        history.told_durable(lsns.next().unwrap_or_default());
        Ok(())
    }

    /// Sends an operation, and does not wait for its answer: it stays in flight.
    pub(crate) fn begin(&mut self, op: &Op, history: &mut History) -> Result<(), Failure> {
        history.begin(effects_of(op, history.next_number()));
        self.send(&op.to_string())
    }

    /// Kills the servant, and waits until it is gone.
    pub(crate) fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Ends the servant from inside: an exit without a close.
    pub(crate) fn exit(mut self) -> io::Result<()> {
        let _ = self.send("exit");
        self.child.wait().map(drop)
    }
}

impl Drop for Servant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
