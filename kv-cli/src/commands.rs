use crate::args::{Args, Command};
use crate::failure::Failure;
use crate::figures::{self, Figures};
use crate::signals::Watch;
use crate::text::{NULL, Text};
use crate::{scan, shell, store};
use kv_core::{EngineExt, Error};
use std::ffi::OsStr;
use std::io::{self, BufWriter, IsTerminal, Write};
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
        Command::Get { key } => get(args, text, key),
        Command::Put { key, value } => put(args, text, key, value),
        Command::Delete { key } => delete(args, text, key),
        Command::Scan { prefix } => scan(args, text, prefix),
        Command::Stats { json } => stats(args, *json),
        Command::Compact { json } => compact(args, *json),
    }
}

fn shell(args: &Args, text: Text) -> Result<ExitCode, Failure> {
    let engine = store::open(args)?;
    let signals = Watch::start(Arc::clone(&engine)).map_err(Failure::Signals)?;
    let prompt = io::stdin().is_terminal();
    let line_bytes_max = shell::line_bytes_max(&args.limits(), text);
    let settings = shell::Settings { text, prompt, line_bytes_max };
    let mut out = BufWriter::new(io::stdout());
    let ended = shell::run(&*engine, io::stdin(), &mut out, &settings, &|| signals.is_ending());
    signals.finish();
    engine.close()?;
    Ok(match ended? {
        shell::End::Whole => ExitCode::SUCCESS,
        shell::End::Cut => ExitCode::FAILURE,
    })
}

fn get(args: &Args, text: Text, key: &OsStr) -> Result<ExitCode, Failure> {
    let key = text.parse(key.as_encoded_bytes())?;
    let engine = store::open(args)?;
    let value = engine.get(&key)?;
    engine.close()?;
    let Some(value) = value else { return answer_absent() };
    answer_read(&line(&text.show(&value)))
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
    let report = compact.compact()?;
    engine.close()?;
    let answer = figures_text(&figures::of_compaction(&report), json);
    answer_done("the compaction is done", answer.as_bytes())
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
