use crate::failure::Failure;
use clap::{Parser, Subcommand, ValueEnum};
use kv_core::{Always, EngineFactory, Limits, Manual, PersistencePolicy, default_persistence};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A shell and single commands for key-value stores.
#[derive(Debug, Parser)]
#[command(
    name = "kv",
    version,
    override_usage = "kv --dir <DIR> [OPTIONS] <COMMAND>",
    after_help = "Examples:\n  \
    kv --dir /tmp/s put planet earth\n  \
    kv --dir /tmp/s get planet\n  \
    kv --dir /tmp/s --hex put 00ff 0a0d\n  \
    kv put --dir /tmp/s --key-len-max 200 \"$(pwd)\" visited\n  \
    printf 'put a 1\\nget a\\nquit\\n' | kv shell --dir /tmp/s\n  \
    kv scan --dir /tmp/s pla | sort\n  \
    kv stats --json --engine naive --dir /tmp/n\n\n\
    Options go before or after the command. \
    Put -- before a key or value that begins with a dash.\n\
    Exit codes: 0 done, 1 failed or not found, 2 wrong usage, \
    3 done and durable, but the answer could not be written."
)]
pub(crate) struct Args {
    /// The engine of the store.
    #[arg(long, global = true, value_enum, default_value = "log")]
    pub(crate) engine: EngineName,
    /// The directory of the store; every command needs it. Only `shell` and `put` create it.
    // clap allows no required option that is global, so `Args::dir` checks.
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// When the changes of a shell go to disk. Single commands are durable when they return.
    #[arg(long, global = true, value_enum, default_value = "periodic")]
    pub(crate) durability: Durability,
    /// Read and print keys and values as hexadecimal digits, two for each byte.
    #[arg(long, global = true)]
    pub(crate) hex: bool,
    /// The longest key that the command takes, bytes; at most 65535.
    #[arg(long, global = true, value_name = "BYTES", default_value_t = Limits::default().key_len_max)]
    key_len_max: usize,
    /// The longest value that the command takes, bytes; the log engine takes almost 127 MiB.
    #[arg(long, global = true, value_name = "BYTES", default_value_t = Limits::default().value_len_max)]
    value_len_max: usize,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// The directory of the store.
    pub(crate) fn dir(&self) -> Result<&Path, Failure> {
        self.dir.as_deref().ok_or_else(|| {
            Failure::Usage("no directory is given: add --dir DIR before or after the command".to_owned())
        })
    }

    /// The limits of keys and values. A batch has room for at least one key and value.
    pub(crate) fn limits(&self) -> Limits {
        let (key_len_max, value_len_max) = (self.key_len_max, self.value_len_max);
        let one_put = key_len_max.saturating_add(value_len_max).saturating_add(Limits::CHANGE_OVERHEAD);
        let batch_bytes_max = Limits::default().batch_bytes_max.max(one_put);
        Limits { key_len_max, value_len_max, batch_bytes_max }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// Each change is durable before its answer.
    Always,
    /// After 100 ms or 8 MiB of changes, whichever comes first.
    Periodic,
    /// All changes become durable when the shell ends, also by a signal.
    Manual,
}

impl Durability {
    pub(crate) fn policy(self) -> Arc<dyn PersistencePolicy> {
        match self {
            Durability::Always => Arc::new(Always),
            Durability::Periodic => Arc::new(default_persistence()),
            Durability::Manual => Arc::new(Manual),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read commands from standard input, one in each line, and answer each with one line.
    #[command(after_help = "Commands and their answers:\n  \
        put KEY VALUE   KEY; the value is the rest of the line, spaces kept\n  \
        get KEY         the value, or NULL\n  \
        delete KEY      KEY, or NULL when it was not there\n  \
        statistic       the figures of the store, name=value\n  \
        quit            no answer; ends the shell, as the end of the input does\n\n\
        The shell answers a command that fails, and any other line, with a line that starts with ERROR. \
        It skips empty lines. When the shell ends, every change is durable.\n\n\
        A last line without a line break may be cut, so the shell does not execute it: the answer is ERROR, \
        and the exit code 1. The shell skips a line that is longer than any command, and answers ERROR.\n\n\
        SIGINT (Ctrl-C), SIGTERM and SIGHUP end the shell in order: every answered change becomes durable. Then \
        the process dies of the signal, which a command interpreter shows as exit code 130, 143 or 129. If the \
        store cannot be closed, the exit code is 1. Further signals have no effect meanwhile.")]
    Shell,
    /// Print the value of a key. For an absent key, print NULL; exit code 1.
    Get {
        /// The key.
        key: OsString,
    },
    /// Store a value and print the key. The value is durable when the command returns.
    Put {
        /// The key.
        key: OsString,
        /// The value.
        value: OsString,
    },
    /// Remove a key and print it. The removal is durable when the command returns. For an absent
    /// key, print NULL; exit code 1.
    Delete {
        /// The key.
        key: OsString,
    },
    /// Print every key and value, one pair in each line; with a prefix, only the keys that start
    /// with it.
    #[command(
        after_help = "A line is KEY, a tab, VALUE. Engines keep no order of keys, so pipe the lines to sort. \
        Without --hex, a scan leaves out a pair whose key holds a tab or a line break, or whose value \
        holds a line break. Then it prints their number at the end, and the exit code is 1. When the \
        reader closes the pipe, as head does, the exit code is 0."
    )]
    Scan {
        /// The first bytes of the keys.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: OsString,
    },
    /// Print counters and sizes.
    Stats {
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Give back the disk space of dead records; print the figures of the compaction.
    #[command(after_help = "The naive engine does not compact on request: the exit code is 1.")]
    Compact {
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use kv_core::LossWindow;
    use std::time::Duration;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn periodic_is_what_its_help_says() {
        let window = Durability::Periodic.policy().loss_window();
        assert_eq!(window, LossWindow { bytes: Some(8 << 20), age: Some(Duration::from_millis(100)) });
    }
}
