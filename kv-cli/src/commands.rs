use kv_core::{Engine, EngineExt, Env, OpenOptions, Result, Stats};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::args::{Args, Command};
use crate::shell;

/// Carries out one command; the store is closed before it returns.
pub(crate) fn run(args: &Args) -> std::result::Result<ExitCode, Box<dyn std::error::Error>> {
    // Only what writes may create a store: a mistyped directory is better told than created.
    let create_if_missing = matches!(args.command, Command::Shell | Command::Put { .. });
    let options = OpenOptions { create_if_missing, ..OpenOptions::default() };
    let engine = args.engine.factory().open(&args.dir, &Env::os(), &options)?;
    let code = match &args.command {
        Command::Shell => {
            let prompt = io::stdin().is_terminal();
            shell::run(&*engine, io::stdin().lock(), &mut io::stdout().lock(), prompt)?;
            ExitCode::SUCCESS
        }
        Command::Get { key } => print_found(engine.get(key.as_bytes())?.as_deref())?,
        Command::Put { key, value } => {
            engine.put_durable(key.as_bytes(), value.as_bytes())?;
            print_found(Some(key.as_bytes()))?
        }
        Command::Delete { key } => {
            let deleted = engine.delete(key.as_bytes())?;
            print_found(deleted.map(|_| key.as_bytes()))?
        }
        Command::Stats => {
            print!("{}", table(&*engine)?);
            ExitCode::SUCCESS
        }
    };
    engine.close()?;
    Ok(code)
}

fn print_found(bytes: Option<&[u8]>) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    out.write_all(bytes.unwrap_or(b"NULL"))?;
    out.write_all(b"\n")?;
    Ok(if bytes.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line for each figure.
fn table(engine: &dyn Engine) -> Result<String> {
    let stats = engine.stats();
    engine.contains_key(b"")?;
    let lines: Vec<String> =
        figures(&stats).iter().map(|(name, value)| format!("{name:<18} {value}")).collect();
    Ok(lines.join("\n") + "\n")
}

/// The figures of a store, with their units in the names.
pub(crate) fn figures(stats: &Stats) -> Vec<(&'static str, u64)> {
    vec![
        ("keys", stats.keys),
        ("live_bytes", stats.live_bytes),
        ("memory_bytes", stats.memory_bytes),
        ("index_bytes", stats.index_bytes),
        ("disk_bytes", stats.disk_bytes),
        ("segments", stats.segments),
        ("unflushed_bytes", stats.unflushed_bytes),
        ("last_lsn", stats.last_lsn.get()),
        ("durable_lsn", stats.durable_lsn.get()),
        ("recovered_records", stats.recovery.records),
        ("torn_bytes", stats.recovery.torn_bytes),
    ]
}
