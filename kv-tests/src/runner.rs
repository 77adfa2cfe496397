//! Turns cases into trials, and trials into a report.

use crate::case::check_own;
use crate::cases::{kills, process};
use crate::replay::Replay;
use crate::scenario::Scenario;
use crate::servant;
use crate::sim::SimFs;
use crate::verdicts::{Ended, Verdicts};
use crate::{Case, CaseResult, Context, Explored, Failure, Level, Settings, all_cases};
use kv_core::{EngineFactory, OsFs};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The arguments of [`run`] besides the factory: [`main!`](crate::main) fills them in.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// Directory of the package's `Cargo.toml`.
    pub manifest_dir: &'static str,
    /// Name of the test target, as a crate.
    pub target: &'static str,
    /// Source file of the test target.
    pub file: &'static str,
    /// Cases that the engine's author adds to those of the suite.
    pub cases: &'static [Case],
    /// Cases that the engine does not pass, each with the reason.
    pub skip: &'static [(&'static str, &'static str)],
    /// Directory that keeps the disk images of failures: `CARGO_TARGET_TMPDIR`. `None`: the
    /// system's directory for temporary files.
    pub images: Option<&'static str>,
}

/// The outcome of one case.
#[derive(Debug)]
pub enum Verdict {
    /// The case found no violation.
    Passed,
    /// The engine violates the contract.
    Failed(Failure),
    /// The engine does not meet the case's requirements.
    Skipped(String),
}

/// Runs one case against an engine, and returns the verdict with the counts. For a whole suite use
/// [`main!`](crate::main).
pub fn run_case(case: &Case, factory: &Arc<dyn EngineFactory>, settings: &Settings) -> (Verdict, Explored) {
    if let Some(need) = case.unmet(factory.capabilities(), false) {
        return (Verdict::Skipped(format!("needs {need}")), Explored::default());
    }
    let context = Context::new(Arc::clone(factory), settings.clone(), case.id);
    let verdict = match watched(case, &context) {
        Ok(()) => Verdict::Passed,
        Err(failure) => Verdict::Failed(failure),
    };
    let explored = Explored::default();
    explored.add(context.explored());
    (verdict, explored)
}

/// Runs every case as one trial of a test binary without harness. The process's arguments select
/// trials, as with libtest: `--list`, filters and so on. [`main!`](crate::main) calls it.
pub fn run(factory: impl EngineFactory + 'static, suite: &Suite) -> ExitCode {
    let factory: Arc<dyn EngineFactory> = Arc::new(factory);
    let as_child = process::run_as_child(&*factory).or_else(|| kills::run_as_child(&*factory));
    if let Some(code) = as_child.or_else(|| servant::serve(&*factory)) {
        return code;
    }
    let arguments = Arguments::from_args();
    let start =
        check(suite).and_then(|()| Ok((Settings::from_env()?, Verdicts::from_env(&suite.all_cases())?)));
    let (settings, verdicts) = match start {
        Ok((settings, verdicts)) => (settings, Arc::new(verdicts)),
        Err(complaint) => {
            #[expect(clippy::print_stderr, reason = "a test binary that cannot begin")]
            {
                eprintln!("kv-tests: {complaint}");
            }
            return ExitCode::FAILURE;
        }
    };
    let explored = Arc::new(Explored::default());
    let trials = trials(&factory, suite, &settings, &explored, &verdicts);
    if !arguments.list {
        record_skipped(&*factory, suite, &settings, &verdicts, &arguments);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        match verdicts.end() {
            Ok(about) =>
            {
                #[expect(clippy::print_stdout, reason = "the report of a test binary")]
                if let Some(about) = &about {
                    println!("{about}");
                }
            }
            Err(complaint) => {
                #[expect(clippy::print_stderr, reason = "a test binary that cannot end well")]
                {
                    eprintln!("kv-tests: {complaint}");
                }
                return ExitCode::FAILURE;
            }
        }
        #[expect(clippy::print_stdout, reason = "the report of a test binary")]
        {
            println!("engine {}: {explored} ({settings})\n", factory.name());
        }
    }
    conclusion.exit_code()
}

fn check(suite: &Suite) -> Result<(), String> {
    check_own(suite.cases, &all_cases())?;
    let cases = suite.all_cases();
    for (id, reason) in suite.skip {
        if cases.iter().all(|case| case.id != *id) {
            return Err(format!("the opt-out of {id} names no case"));
        }
        if reason.trim().is_empty() {
            return Err(format!("the opt-out of {id} gives no reason"));
        }
    }
    Ok(())
}

fn trials(
    factory: &Arc<dyn EngineFactory>,
    suite: &Suite,
    settings: &Settings,
    explored: &Arc<Explored>,
    verdicts: &Arc<Verdicts>,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for case in suite.all_cases() {
        let skips = suite.reason_to_skip(&case, &**factory);
        let context = Context::new(Arc::clone(factory), settings.clone(), case.id);
        let (suite, settings) = (*suite, settings.clone());
        let (explored, verdicts) = (Arc::clone(explored), Arc::clone(verdicts));
        let run = move || {
            let start = Instant::now();
            let result = watched(&case, &context);
            explored.add(context.explored());
            (result, start.elapsed(), context)
        };
        if let Some(skips) = &skips {
            trials.push(skipped(case.id, skips.reason()));
            // A stochastic case may pass by luck.
            if matches!(skips, Skips::OptOut(_)) && case.level != Level::Stochastic {
                trials.push(Trial::test(format!("opt_out_is_not_stale::{}", case.id), move || {
                    match run().0 {
                        Err(_) => Ok(()),
                        Ok(()) => Err("the engine passes this case: remove the opt-out".into()),
                    }
                }));
            }
        } else {
            trials.push(Trial::test(case.id, move || {
                let (result, took, context) = run();
                verdicts.record(&case, &settings, Ended::Result(&result), took, context.explored());
                verdicts.judge(&case, result).map_err(|f| suite.report(&case, f, &settings).into())
            }));
        }
    }
    trials
}

/// Why a case does not run.
enum Skips {
    Unmet(String),
    OptOut(&'static str),
}

impl Skips {
    fn reason(&self) -> &str {
        match self {
            Skips::Unmet(reason) => reason,
            Skips::OptOut(reason) => reason,
        }
    }
}

/// Adds the skipped cases that the arguments select to the report.
fn record_skipped(
    factory: &dyn EngineFactory,
    suite: &Suite,
    settings: &Settings,
    verdicts: &Verdicts,
    arguments: &Arguments,
) {
    let is_selected = |case: &Case| {
        let matches =
            |text: &String| if arguments.exact { case.id == text } else { case.id.contains(text.as_str()) };
        arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
    };
    for case in suite.all_cases().iter().filter(|case| is_selected(case)) {
        if let Some(skips) = suite.reason_to_skip(case, factory) {
            let ended = Ended::Skipped(skips.reason());
            verdicts.record(case, settings, ended, Duration::ZERO, &Explored::default());
        }
    }
}

/// A trial shown as ignored, with the reason. It fails when the user runs it in spite of that: the
/// case cannot pass.
fn skipped(id: &str, reason: &str) -> Trial {
    let text = format!("skipped: {reason}");
    let answer = Failed::from(&text);
    Trial::test(id, move || Err(answer)).with_ignored_flag(true).with_kind(text)
}

impl Suite {
    /// The cases of the suite, then those of the engine's author.
    fn all_cases(&self) -> Vec<Case> {
        [all_cases().as_slice(), self.cases].concat()
    }

    /// Why this engine does not run `case`, if it does not.
    fn reason_to_skip(&self, case: &Case, factory: &dyn EngineFactory) -> Option<Skips> {
        if let Some(need) = case.unmet(factory.capabilities(), true) {
            return Some(Skips::Unmet(format!("needs {need}")));
        }
        self.skip.iter().find(|(id, _)| *id == case.id).map(|(_, reason)| Skips::OptOut(reason))
    }

    /// The whole report of a failed case.
    pub(crate) fn report(&self, case: &Case, failure: Failure, settings: &Settings) -> Failure {
        let image = failure.image().map(|image| self.keep(case, image));
        let replay = Replay {
            settings,
            scenario: failure.fact("scenario"),
            manifest_dir: Path::new(self.manifest_dir),
            target: self.target_name(),
            case: case.id,
        }
        .line(std::env::var_os("PWD").as_deref().map(Path::new));
        let failure = failure.with("demand", case.summary).with("seed", settings.seed.to_string());
        match image {
            Some(Ok(dir)) => failure.with("image", dir),
            Some(Err(error)) => failure.with("image", format!("could not be kept: {error}")),
            None => failure,
        }
        .with("replay", replay)
    }

    /// The name of the target as cargo knows it: a file name may have hyphens, a crate name has
    /// none.
    fn target_name(&self) -> &str {
        let stem = Path::new(self.file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem.replace('-', "_") == self.target { stem } else { self.target }
    }

    /// Copies a disk image to the real disk; returns its directory.
    fn keep(&self, case: &Case, image: &SimFs) -> kv_core::Result<String> {
        let parent = self.images.map_or_else(std::env::temp_dir, PathBuf::from);
        let name = case.id.rsplit("::").next().unwrap_or(case.id);
        let dir = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(&parent)
            .map_err(|error| kv_core::Error::io("create a directory in", &parent, error))?
            .keep();
        image.copy_to(&OsFs, &dir)?;
        Ok(dir.display().to_string())
    }
}

/// Runs the scenario of `KV_TESTS_SCENARIO` instead of a case's own work.
fn run_scenario(line: &str, context: &Context) -> CaseResult {
    let scenario: Scenario =
        line.parse().map_err(|complaint| Failure::new(format!("KV_TESTS_SCENARIO: {complaint}")))?;
    match scenario.check(context) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new("KV_TESTS_SCENARIO: this crash or fault does not happen in this run")),
        Err(failure) => Err(scenario.report(context, failure)),
    }
}

/// Why a case gives no result.
enum Silence {
    /// A call of the engine takes too long.
    Call(String),
    /// The case takes too long.
    Case,
    /// The case's thread has ended.
    Ended,
}

/// Waits for the result of a case.
fn wait(receive: &mpsc::Receiver<CaseResult>, context: &Context) -> Result<CaseResult, Silence> {
    let end = Instant::now() + context.settings().timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match receive.recv_timeout(left.min(Duration::from_millis(250))) {
            Ok(result) => return Ok(result),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Silence::Ended),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if let Some(call) = context.calls().overdue(context.settings().call_timeout) {
            return Err(Silence::Call(call));
        }
        if left.is_zero() {
            return Err(Silence::Case);
        }
    }
}

/// Runs a case on its own thread, and turns a panic or a deadlock into a failure. A deadlocked
/// thread is left behind.
fn watched(case: &Case, context: &Context) -> CaseResult {
    let (send, receive) = mpsc::channel();
    let (run, theirs) = (case.run, context.clone());
    let thread = thread::Builder::new().name(case.id.to_owned()).spawn(move || {
        let result = match &theirs.settings().scenario {
            Some(line) => run_scenario(line, &theirs),
            None => run(&theirs),
        };
        // After a timeout the receiver is gone.
        let _ = send.send(result);
    })?;
    let in_doubt = |violated: String| {
        let failure = Failure::new(violated);
        match context.doing() {
            Some(doing) => failure.with("while", doing),
            None => failure,
        }
    };
    match wait(&receive, context) {
        Ok(result) => {
            // The thread drops its stores before the next case begins, or the process ends.
            let _ = thread.join();
            result
        }
        Err(Silence::Call(call)) => Err(in_doubt(format!(
            "every call returns, but this one has not within {} s, a deadlock: {call}",
            context.settings().call_timeout.as_secs()
        ))),
        Err(Silence::Case) => Err(in_doubt(format!(
            "every case ends, but this one has not within {} s: a deadlock?",
            context.settings().timeout.as_secs()
        ))),
        Err(Silence::Ended) => {
            let text = match thread.join() {
                Ok(()) => "the case ended without a result".to_owned(),
                Err(panic) => panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_else(|| "a panic without a text".to_owned()),
            };
            Err(in_doubt(format!("no operation panics, but one did: {text}")))
        }
    }
}

#[cfg(test)]
mod tests;
