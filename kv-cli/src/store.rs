//! Opens the store that the command line names.

use crate::args::{Args, Command, EngineName};
use crate::failure::Failure;
use crate::past::KeepFound;
use crate::progress::{Meter, of_opening};
use kv_core::fs::FsExt;
use kv_core::{Engine, EngineFactory, Env, Error, OpenOptions, OsFs, PointInTime, Target, Value};
use kv_log::inspect::ClosedPast;
use kv_log::{ConfiguredLogFactory, LogFactory, Options};
use kv_naive::{NaiveEngine, NaiveFactory};
use std::io::{self, Write};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// The access to its store that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// The command reads.
    Read,
    /// The command changes a store that exists.
    Change,
    /// The command changes the store, and creates a missing one.
    Create,
}

impl Access {
    fn of(command: &Command) -> Access {
        match command {
            Command::Delete { .. }
            | Command::Compact { .. }
            | Command::Checkpoint { .. }
            | Command::Pin { .. }
            | Command::Unpin { .. }
            | Command::Revert { .. } => Access::Change,
            Command::Put { .. } | Command::Shell | Command::Import { .. } => Access::Create,
            _ => Access::Read,
        }
    }
}

/// Opens the store for the command of `args`.
pub(crate) fn open(args: &Args) -> Result<Arc<dyn Engine>, Failure> {
    open_at(args, args.engine, args.dir()?, Access::of(&args.command))
}

/// Opens the store in `dir`, of whichever engine, for reading.
pub(crate) fn open_any(args: &Args, dir: &Path) -> Result<Arc<dyn Engine>, Failure> {
    open_at(args, engine_of(dir), dir, Access::Read)
}

/// The past states of a store that a command only reads.
pub(crate) enum Past {
    /// The store need not open.
    Log(Box<ClosedPast>),
    Naive(NaiveEngine),
}

impl Past {
    /// The value of `key` in a past state.
    pub(crate) fn value_at(&self, target: &Target, key: &[u8]) -> Result<Option<Value>, Failure> {
        let _meter = Meter::of_time("reading the past state");
        Ok(match self {
            Past::Log(past) => past.value_at(target, key)?,
            Past::Naive(engine) => engine.read_at(target)?.engine.get(key)?,
        })
    }
}

impl Deref for Past {
    type Target = dyn PointInTime;

    fn deref(&self) -> &Self::Target {
        match self {
            Past::Log(past) => &**past,
            Past::Naive(engine) => engine,
        }
    }
}

/// The past states of the store for the command of `args`.
pub(crate) fn past(args: &Args) -> Result<Past, Failure> {
    past_of(args, args.dir()?)
}

/// The past states of the store in `dir`, for reading.
pub(crate) fn past_of(args: &Args, dir: &Path) -> Result<Past, Failure> {
    if args.engine == EngineName::Naive || engine_of(dir) == EngineName::Naive {
        return Ok(Past::Naive(NaiveEngine::open(dir, open_options(args, Access::Read))?));
    }
    Ok(Past::Log(Box::new(ClosedPast::open(&Env::os(), dir)?)))
}

/// A past state, for reading.
pub(crate) fn state_at(past: &dyn PointInTime, target: &Target) -> Result<Arc<dyn Engine>, Failure> {
    let _meter = Meter::of_time("reading the past state");
    Ok(past.read_at(target)?.engine)
}

/// Refuses to write a directory within the store in `dir`.
pub(crate) fn refuse_within(dir: &Path, into: &Path) -> Result<(), Failure> {
    let is_within = dir.canonicalize().is_ok_and(|dir| {
        let mut ancestors = into
            .ancestors()
            .skip(1)
            .map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
        ancestors.find_map(|path| path.canonicalize().ok()).is_some_and(|found| found.starts_with(dir))
    });
    if !is_within {
        return Ok(());
    }
    let (dir, into) = (dir.display(), into.display());
    Err(Failure::Usage(format!("{into} lies in {dir}; name a directory outside of it")))
}

/// Creates a store of the engine that `args` names in `dir`.
pub(crate) fn create(args: &Args, dir: &Path) -> Result<Arc<dyn Engine>, Failure> {
    open_at(args, args.engine, dir, Access::Create)
}

/// The engine of the store in `dir`, as far as its files tell; otherwise the log engine.
pub(crate) fn engine_of(dir: &Path) -> EngineName {
    recognised(&OsFs.list(dir).unwrap_or_default()).unwrap_or(EngineName::Log)
}

/// The engine of a store with files of these names. `None` if they do not tell.
fn recognised(names: &[String]) -> Option<EngineName> {
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has("NAIVE") || (has("SNAPSHOT") && !has("MANIFEST")) {
        return Some(EngineName::Naive);
    }
    has("MANIFEST").then_some(EngineName::Log)
}

fn open_at(args: &Args, engine: EngineName, dir: &Path, access: Access) -> Result<Arc<dyn Engine>, Failure> {
    let mut options = open_options(args, access);
    let retention = Arc::new(KeepFound::default());
    if access != Access::Read {
        options.retention = Arc::<KeepFound>::clone(&retention);
    }
    let opened = match engine {
        EngineName::Log => with_progress().open(dir, &Env::os(), &options),
        EngineName::Naive => NaiveFactory.open(dir, &Env::os(), &options),
    };
    let opened = opened.map_err(|error| match error {
        // The limits are the only open options that the user sets to arbitrary values.
        Error::InvalidArgument(text) => {
            Failure::Usage(format!("{text}; lower --key-len-max or --value-len-max"))
        }
        Error::NotAStore { path, detail } => {
            let detail = remedy(engine, dir).unwrap_or(detail);
            Failure::Store(Error::NotAStore { path, detail })
        }
        other => Failure::Store(other),
    })?;
    for warning in opened.stats().recovery.warnings {
        // Unlike `eprintln`, this does not panic when standard error is closed.
        let _ = writeln!(io::stderr(), "kv: warning: {warning}");
    }
    if access != Access::Read && !needs_past(&args.command) {
        retention.look_at(&*opened);
    }
    Ok(opened)
}

/// What to do on the command line, if `dir` holds nothing or a store of another engine.
fn remedy(engine: EngineName, dir: &Path) -> Option<String> {
    let names = OsFs.list_if_exists(dir).ok()?.unwrap_or_default();
    if names.is_empty() {
        return Some(format!("there is no kv-{} store here; correct the path", engine.as_str()));
    }
    let other = recognised(&names).filter(|other| *other != engine)?.as_str();
    Some(format!("it holds files of a store of the {other} engine; add --engine {other}"))
}

/// Opens stores of the log engine, and shows the progress of an opening on a terminal.
fn with_progress() -> ConfiguredLogFactory {
    LogFactory::with(LogFactory.name(), |open| Options {
        on_recovery: Some(of_opening()),
        ..Options::from(open)
    })
}

/// Whether the command is about a past state of the store that it changes.
fn needs_past(command: &Command) -> bool {
    matches!(command, Command::Pin { .. } | Command::Revert { .. })
}

/// The only place where a command's open options are chosen.
fn open_options(args: &Args, access: Access) -> OpenOptions {
    OpenOptions {
        // A command that creates no store tells the user of a mistyped directory.
        create_if_missing: access == Access::Create,
        // A command that reads works on a read-only medium, and beside other readers.
        read_only: access == Access::Read,
        persistence: args.durability.policy(),
        limits: args.limits(),
        ..OpenOptions::default()
    }
}
