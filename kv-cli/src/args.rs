use clap::{Parser, Subcommand, ValueEnum};
use kv_core::EngineFactory;
use std::path::PathBuf;

/// A shell and single commands for key-value stores.
#[derive(Debug, Parser)]
#[command(
    name = "kv",
    version,
    after_help = "Examples:\n  \
    kv --dir /tmp/s put planet earth\n  \
    kv --dir /tmp/s get planet\n  \
    printf 'put a 1\\nget a\\nquit\\n' | kv --dir /tmp/s shell\n  \
    kv --engine naive --dir /tmp/n stats\n\n\
    Exit codes: 0 done, 1 failed or not found, 2 wrong usage."
)]
pub(crate) struct Args {
    /// The engine of the store.
    #[arg(long, value_enum, default_value = "log")]
    pub(crate) engine: EngineName,
    /// The directory of the store.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum EngineName {
    /// The log-structured engine.
    Log,
    /// The hash table with snapshots.
    Naive,
}

impl EngineName {
    pub(crate) fn factory(self) -> &'static dyn EngineFactory {
        match self {
            EngineName::Log => &kv_log::LogFactory,
            EngineName::Naive => &kv_naive::NaiveFactory,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read commands from standard input, one a line: put KEY VALUE, get KEY, delete KEY, statistic, quit.
    Shell,
    /// Print the value of a key; NULL and exit code 1 when there is none.
    Get { key: String },
    /// Store a value; durable when the command returns.
    Put { key: String, value: String },
    /// Remove a key; NULL and exit code 1 when it was not there.
    Delete { key: String },
    /// Print counters and sizes.
    Stats,
}
