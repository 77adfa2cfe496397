use crate::args::{Args, Command, EngineName, Format};
use crate::failure::{Differences, Failure};
use crate::figures::{self, Figures};
use crate::interactive::Terminal;
use crate::progress::Meter;
use crate::signals::{Interrupt, Watch};
use crate::store::Past;
use crate::text::{NULL, Text, counted};
use crate::{compare, files, manual, past, scan, shell, store, transfer};
use clap::CommandFactory;
use clap_complete::Shell;
use kv_core::{EngineExt, Env, Error, PointInTime, Target};
use std::ffi::OsStr;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Carries out the command of `args`.
///
/// A single command that changes the store closes it before it answers, so an answered change is
/// durable.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let text = if args.hex { Text::Hex } else { Text::Plain };
    match &args.command {
        Command::Shell => shell(args, text),
        Command::Get { key, at } => get(args, text, key, at.as_ref()),
        Command::History { key } => history(args, text, key),
        Command::Points { .. } => points(args),
        Command::Pin { name, at, expires } => pin(args, name, at.as_ref(), *expires),
        Command::Unpin { name } => unpin(args, name),
        Command::Plan { to, .. } => answer_read(past::plan_text(&store::past(args)?.plan(to)?).as_bytes()),
        Command::Restore { src, dst, to } => restore(args, src, dst, to),
        Command::Backup { into, .. } => backup(args, into),
        Command::Revert { key, to } => revert(args, text, key, to),
        Command::Put { key, value } => put(args, text, key, value),
        Command::Delete { key } => delete(args, text, key),
        Command::Scan { prefix } => scan(args, text, prefix),
        Command::Stats { json, .. } => stats(args, *json),
        Command::Compact { json, .. } => compact(args, *json),
        Command::Checkpoint { .. } => checkpoint(args),
        Command::Bigkeys { prefix, top } => bigkeys(args, text, prefix, *top),
        Command::Diff { dir1, dir2, at } => {
            diff(args, text, dir1, dir2.as_deref().unwrap_or(dir1), at.as_ref())
        }
        Command::Inspect { json, .. } => answer_read(files::inspect(args.dir()?, text, *json)?.as_bytes()),
        Command::Dump { segment, lsn, .. } => {
            let dir = args.dir()?;
            read_only(|out| files::dump(dir, *segment, lsn.as_ref(), text, out))
        }
        Command::Tail { from, no_follow, json, .. } => {
            tail(args.dir()?, *from, !no_follow, files::Form { text, as_json: *json })
        }
        Command::Verify { json, .. } => verify(args.dir()?, text, *json),
        Command::Tails { remove, json } => answer_read(files::tails(*remove, *json)?.as_bytes()),
        Command::Repair { src, dst, json } => repair(src, dst, text, *json),
        Command::Export { prefix, format } => export(args, text, prefix, *format),
        Command::Import { format, no_end } => import(args, *format, !no_end),
        Command::Copy { from, to } => copy(args, from, to),
        Command::Man { into } => manual(into),
        Command::Completions { shell } => completions(*shell),
    }
}

fn shell(args: &Args, text: Text) -> Result<ExitCode, Failure> {
    let engine = store::open(args)?;
    let signals = Watch::start(Arc::clone(&engine)).map_err(Failure::Signals)?;
    let prompt = io::stdin().is_terminal();
    let line_bytes_max = shell::line_bytes_max(&args.limits(), text);
    let settings = shell::Settings { text, prompt, line_bytes_max };
    let mut out = BufWriter::new(io::stdout());
    let is_ending = || signals.is_ending();
    let ended = if prompt && io::stdout().is_terminal() {
        Terminal::new().map_err(Failure::Input).and_then(|mut terminal| {
            shell::run_on_terminal(&*engine, &mut terminal, &mut out, text, &is_ending)
        })
    } else {
        shell::run(&*engine, io::stdin(), &mut out, &settings, &is_ending)
    };
    signals.finish();
    engine.close()?;
    Ok(match ended? {
        shell::End::Whole => ExitCode::SUCCESS,
        shell::End::Cut => ExitCode::FAILURE,
    })
}

fn get(args: &Args, text: Text, key: &OsStr, at: Option<&Target>) -> Result<ExitCode, Failure> {
    let key = text.parse(key.as_encoded_bytes())?;
    let value = if let Some(at) = at {
        store::past(args)?.value_at(at, &key)?
    } else {
        let engine = store::open(args)?;
        let value = engine.get(&key)?;
        engine.close()?;
        value
    };
    let Some(value) = value else { return answer_absent() };
    answer_read(&line(&text.show(&value)))
}

fn history(args: &Args, text: Text, key: &OsStr) -> Result<ExitCode, Failure> {
    let key = text.parse(key.as_encoded_bytes())?;
    let past = store::past(args)?;
    let meter = Meter::of_time("reading the history");
    let versions = past.history(&key)?;
    drop(meter);
    if versions.is_empty() {
        return answer_absent();
    }
    answer_read(past::history_text(&versions, text).as_bytes())
}

fn points(args: &Args) -> Result<ExitCode, Failure> {
    answer_read(past::points_text(&*store::past(args)?)?.as_bytes())
}

fn pin(args: &Args, name: &str, at: Option<&Target>, expires: Option<u64>) -> Result<ExitCode, Failure> {
    if let Some(expires) = expires {
        past::refuse_expired(expires, Env::os().clock.unix_time_ms())?;
    }
    let engine = store::open(args)?;
    let newest = Target::Lsn(engine.last_lsn());
    let pinned = past::of(&*engine)?.pin(name, at.unwrap_or(&newest), expires);
    engine.close()?;
    let pinned = pinned.map_err(Failure::of_arguments)?;
    answer_done("the point is durable", past::point_text(&pinned).as_bytes())
}

fn unpin(args: &Args, name: &str) -> Result<ExitCode, Failure> {
    let engine = store::open(args)?;
    let was_there = past::of(&*engine)?.unpin(name);
    engine.close()?;
    if !was_there? {
        return answer_absent();
    }
    answer_done("the removal is durable", &line(name.as_bytes()))
}

fn restore(args: &Args, src: &Path, dst: &Path, to: &Target) -> Result<ExitCode, Failure> {
    store::refuse_within(src, dst)?;
    let restored = match store::past_of(args, src)? {
        Past::Log(past) => {
            let interrupt = Interrupt::watch().map_err(Failure::Signals)?;
            let meter = Meter::of_bytes("restoring");
            let restored = past.restore_observed(to, dst, &|progress| {
                meter.at(progress);
                if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            drop(meter);
            interrupt.die_if_set();
            restored
        }
        // This restore cannot be told to stop. So a signal ends the process.
        Past::Naive(engine) => engine.restore(to, dst),
    };
    let moment = restored.map_err(Failure::of_arguments)?;
    let answer = format!("{}: {}\n", dst.display(), past::moment_text(&moment));
    answer_done("the restore is done", answer.as_bytes())
}

fn backup(args: &Args, into: &Path) -> Result<ExitCode, Failure> {
    let dir = args.dir()?;
    if into.canonicalize().is_ok_and(|into| dir.canonicalize().is_ok_and(|dir| dir == into)) {
        let text = format!("{} cannot be backed up into itself; name another directory", into.display());
        return Err(Failure::Usage(text));
    }
    store::refuse_within(dir, into)?;
    let past = store::past(args)?;
    let meter = Meter::of_time("backing up");
    let report = past.backup(into).map_err(Failure::of_arguments)?;
    drop(meter);
    let answer = format!("{}: {}", into.display(), past::backup_text(&report));
    answer_done("the backup is done", answer.as_bytes())
}

fn revert(args: &Args, text: Text, key: &OsStr, to: &Target) -> Result<ExitCode, Failure> {
    let key = text.parse(key.as_encoded_bytes())?;
    let engine = store::open(args)?;
    let answered = (|| {
        let then = store::state_at(past::of(&*engine)?, to)?.get(&key)?;
        match &then {
            Some(value) => drop(engine.put_durable(&key, value)?),
            None => {
                if let Some(lsn) = engine.delete(&key)? {
                    engine.wait_durable(lsn)?;
                }
            }
        }
        Ok::<_, Failure>(then)
    })();
    engine.close()?;
    let shown = answered?.map_or_else(|| NULL.to_vec(), |value| text.show(&value).into_owned());
    answer_done("the change is durable", &line(&shown))
}

fn put(args: &Args, text: Text, key: &OsStr, value: &OsStr) -> Result<ExitCode, Failure> {
    let (key, value) = (text.parse(key.as_encoded_bytes())?, text.parse(value.as_encoded_bytes())?);
    let engine = store::open(args)?;
    engine.put_durable(&key, &value)?;
    engine.close()?;
    answer_done("the change is durable", &line(&text.show(&key)))
}

fn delete(args: &Args, text: Text, key: &OsStr) -> Result<ExitCode, Failure> {
    let key = text.parse(key.as_encoded_bytes())?;
    let engine = store::open(args)?;
    let deleted = engine.delete(&key)?;
    if let Some(lsn) = deleted {
        engine.wait_durable(lsn)?;
    }
    engine.close()?;
    if deleted.is_none() {
        return answer_absent();
    }
    answer_done("the change is durable", &line(&text.show(&key)))
}

fn scan(args: &Args, text: Text, prefix: &OsStr) -> Result<ExitCode, Failure> {
    let prefix = text.parse(prefix.as_encoded_bytes())?;
    let engine = store::open(args)?;
    let scanned = scan::run(&*engine, &prefix, text, &mut BufWriter::new(io::stdout().lock()));
    engine.close()?;
    match scanned {
        Ok(0) => Ok(ExitCode::SUCCESS),
        Ok(left_out) => Err(Failure::LeftOut(left_out)),
        Err(Failure::Output(error)) => output_failed(error),
        Err(failure) => Err(failure),
    }
}

fn stats(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let engine = store::open(args)?;
    let stats = engine.stats();
    engine.close()?;
    answer_read(figures_text(&figures::of_store(&stats), json).as_bytes())
}

fn compact(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let engine = store::open(args)?;
    let Some(compact) = engine.as_compact() else {
        return Err(Error::Unsupported("this engine does not compact on request").into());
    };
    let meter = Meter::of_time("compacting");
    let report = compact.compact()?;
    drop(meter);
    engine.close()?;
    let answer = figures_text(&figures::of_compaction(&report), json);
    answer_done("the compaction is done", answer.as_bytes())
}

fn checkpoint(args: &Args) -> Result<ExitCode, Failure> {
    let engine = store::open(args)?;
    let Some(checkpoint) = engine.as_checkpoint() else {
        return Err(Error::Unsupported("this engine writes no checkpoint on request").into());
    };
    let meter = Meter::of_time("writing the checkpoint");
    let lsn = checkpoint.checkpoint()?;
    drop(meter);
    engine.close()?;
    answer_done("the checkpoint is written", format!("{lsn}\n").as_bytes())
}

fn bigkeys(args: &Args, text: Text, prefix: &OsStr, top: usize) -> Result<ExitCode, Failure> {
    let prefix = text.parse(prefix.as_encoded_bytes())?;
    let engine = store::open(args)?;
    let answered = read_only(|out| compare::bigkeys(&*engine, &prefix, top, text, out));
    engine.close()?;
    answered
}

fn diff(args: &Args, text: Text, dir1: &Path, dir2: &Path, at: Option<&Target>) -> Result<ExitCode, Failure> {
    let first = match at {
        Some(at) => store::state_at(&*store::past_of(args, dir1)?, at)?,
        None => store::open_any(args, dir1)?,
    };
    let second = store::open_any(args, dir2)?;
    let answered = read_only(|out| match compare::diff(&*first, &*second, text, out)? {
        same if same == Differences::default() => Ok(()),
        differences => Err(Failure::Differ(differences)),
    });
    first.close()?;
    second.close()?;
    answered
}

fn tail(dir: &Path, from: Option<u64>, follow: bool, form: files::Form) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::watch().map_err(Failure::Signals)?;
    let is_over = || interrupt.is_set();
    let ended = read_only(|out| files::tail(dir, from, follow, form, &is_over, out, &mut io::stderr()));
    interrupt.die_if_set();
    ended
}

fn verify(dir: &Path, text: Text, json: bool) -> Result<ExitCode, Failure> {
    let checked = files::verify(dir, text, json).map_err(Failure::Unchecked)?;
    answer_read(checked.answer.as_bytes())?;
    match checked.damages {
        0 => Ok(ExitCode::SUCCESS),
        parts => Err(match store::engine_of(dir) {
            EngineName::Log => Failure::damaged_log(dir, parts),
            EngineName::Naive => {
                Failure::Damaged { dir: dir.to_path_buf(), parts, remedy: "restore a copy of it" }
            }
        }),
    }
}

fn repair(src: &Path, dst: &Path, text: Text, json: bool) -> Result<ExitCode, Failure> {
    store::refuse_within(src, dst)?;
    let interrupt = Interrupt::watch().map_err(Failure::Signals)?;
    let repaired = files::repair(src, dst, text, json, &|| interrupt.is_set());
    interrupt.die_if_set();
    answer_done("the repair is done", repaired.map_err(Failure::of_arguments)?.as_bytes())
}

fn export(args: &Args, text: Text, prefix: &OsStr, format: Format) -> Result<ExitCode, Failure> {
    let prefix = text.parse(prefix.as_encoded_bytes())?;
    let engine = store::open(args)?;
    let answered = read_only(|out| transfer::export(&*engine, &prefix, format, out));
    engine.close()?;
    answered
}

fn import(args: &Args, format: Format, has_end: bool) -> Result<ExitCode, Failure> {
    let engine = store::open(args)?;
    let signals = Watch::start(Arc::clone(&engine)).map_err(Failure::Signals)?;
    let settings = transfer::Settings { format, has_end, limits: args.limits() };
    let imported = transfer::import(&*engine, io::stdin(), &settings, &|| signals.is_ending());
    signals.finish();
    engine.close()?;
    let answer = format!("{} imported\n", counted(imported?, "pair"));
    answer_done("the import is done", answer.as_bytes())
}

fn copy(args: &Args, from: &Path, to: &Path) -> Result<ExitCode, Failure> {
    store::refuse_within(from, to)?;
    let interrupt = Interrupt::watch().map_err(Failure::Signals)?;
    let copied = transfer::copy(args, from, to, &|| interrupt.is_set());
    interrupt.die_if_set();
    let answer = format!("{} pairs copied\n", copied?);
    answer_done("the copy is done", answer.as_bytes())
}

fn manual(into: &Path) -> Result<ExitCode, Failure> {
    let pages = manual::write(Args::command(), into)?;
    answer_done("the pages are written", format!("{pages} pages in {}\n", into.display()).as_bytes())
}

fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "kv", &mut script);
    answer_read(&script)
}

/// Carries out a command that only reads, and writes its answer bit by bit.
fn read_only(
    command: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    match command(&mut BufWriter::new(io::stdout().lock())) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Failure::Output(error)) => output_failed(error),
        Err(failure) => Err(failure),
    }
}

fn figures_text(figures: &Figures, json: bool) -> String {
    if json { figures::json(figures) } else { figures::table(figures) }
}

fn line(bytes: &[u8]) -> Vec<u8> {
    [bytes, b"\n".as_slice()].concat()
}

/// Answers a command that has done its work: `done` says which.
fn answer_done(done: &'static str, answer: &[u8]) -> Result<ExitCode, Failure> {
    print(answer).map_err(|source| Failure::Unanswered { done, source })?;
    Ok(ExitCode::SUCCESS)
}

/// Answers a command that only reads.
fn answer_read(answer: &[u8]) -> Result<ExitCode, Failure> {
    match print(answer) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => output_failed(error),
    }
}

/// The outcome of a command that only reads, after its output failed. A reader that closes the
/// pipe, as `head` does, has read enough.
fn output_failed(error: io::Error) -> Result<ExitCode, Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::Output(error))
    }
}

fn answer_absent() -> Result<ExitCode, Failure> {
    answer_read(&line(NULL))?;
    Ok(ExitCode::FAILURE)
}

fn print(answer: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(answer)?;
    out.flush()
}
