use crate::args::{Args, Command};
use crate::text::{NULL, NotHex, Text};
use crate::{figures, shell};
use kv_core::{EngineExt, Env, OpenOptions};
use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    Usage(NotHex),
    /// The store says no.
    Store(kv_core::Error),
    /// Standard input or output is gone.
    Stream(io::Error),
}

impl Failure {
    /// The exit code that tells it.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Store(_) | Failure::Stream(_) => ExitCode::FAILURE,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Usage(error) => error.fmt(f),
            Failure::Store(error) => error.fmt(f),
            Failure::Stream(error) => error.fmt(f),
        }
    }
}

impl From<NotHex> for Failure {
    fn from(error: NotHex) -> Self {
        Failure::Usage(error)
    }
}

impl From<kv_core::Error> for Failure {
    fn from(error: kv_core::Error) -> Self {
        Failure::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Stream(error)
    }
}

/// What a single command prints: the bytes, or that there are none.
enum Answer {
    Found(Vec<u8>),
    Absent,
    Figures(String),
}

/// Carries out one command. The store is closed, so everything is durable, before it is answered.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let text = if args.hex { Text::Hex } else { Text::Plain };
    let bytes = |word: &str| text.parse(word.as_bytes()).map(std::borrow::Cow::into_owned);
    let (key, value) = match &args.command {
        Command::Shell | Command::Stats { .. } => (Vec::new(), Vec::new()),
        Command::Get { key } | Command::Delete { key } => (bytes(key)?, Vec::new()),
        Command::Put { key, value } => (bytes(key)?, bytes(value)?),
    };
    // Only what writes may create a store: a mistyped directory is better told than created.
    let create_if_missing = matches!(args.command, Command::Shell | Command::Put { .. });
    let options =
        OpenOptions { create_if_missing, persistence: args.durability.policy(), ..OpenOptions::default() };
    let engine = args.engine.factory().open(&args.dir, &Env::os(), &options)?;
    let answer = match &args.command {
        Command::Shell => {
            let input = BufReader::new(io::stdin());
            let prompt = io::stdin().is_terminal();
            let answered = shell::run(&*engine, input, &mut BufWriter::new(io::stdout()), text, prompt);
            engine.close()?;
            answered?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Get { .. } => {
            engine.get(&key)?.map_or(Answer::Absent, |value| Answer::Found(value.to_vec()))
        }
        Command::Put { .. } => {
            engine.put_durable(&key, &value)?;
            Answer::Found(key)
        }
        Command::Delete { .. } => match engine.delete(&key)? {
            Some(lsn) => {
                engine.wait_durable(lsn)?;
                Answer::Found(key)
            }
            None => Answer::Absent,
        },
        Command::Stats { json } => {
            let stats = engine.stats();
            Answer::Figures(if *json { figures::json(&stats) } else { figures::table(&stats) })
        }
    };
    engine.close()?;
    Ok(print(&answer, text)?)
}

fn print(answer: &Answer, text: Text) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match answer {
        Answer::Figures(figures) => out.write_all(figures.as_bytes())?,
        Answer::Found(bytes) => out.write_all(&[&text.show(bytes), b"\n".as_slice()].concat())?,
        Answer::Absent => out.write_all(&[NULL, b"\n"].concat())?,
    }
    out.flush()?;
    Ok(if matches!(answer, Answer::Absent) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
