//! Why a command failed, and its exit code.

use crate::past;
use crate::text::{NotHex, counted};
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The engine refuses.
    Store(kv_core::Error),
    /// The output has no unambiguous text for these bytes.
    Unprintable(&'static str),
    /// A scan left out this number of pairs, because their lines would be ambiguous.
    LeftOut(u64),
    /// Two stores differ.
    Differ(Differences),
    /// A store is damaged.
    Damaged {
        /// The store.
        dir: PathBuf,
        /// The number of damaged parts.
        parts: usize,
        /// The remedy.
        remedy: &'static str,
    },
    /// The store was not checked.
    Unchecked(kv_core::Error),
    /// An import met a line or command that it cannot take.
    Import {
        /// The line or command, with its number from 1.
        place: String,
        /// Why.
        fault: String,
        /// Pairs of lines before, which are durable.
        taken: u64,
    },
    /// A copy failed.
    Copy(String),
    /// The system refuses to watch for signals.
    Signals(io::Error),
    /// Standard input fails.
    Input(io::Error),
    /// Standard output fails, and no change was made.
    Output(io::Error),
    /// Standard output fails after the command has done its work.
    Unanswered {
        /// The work, as a clause.
        done: &'static str,
        /// The failure of standard output.
        source: io::Error,
    },
}

/// The numbers of keys by which two stores differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    pub(crate) only_first: u64,
    pub(crate) only_second: u64,
    pub(crate) values: u64,
}

impl Failure {
    /// A kv-log store is damaged in so many parts.
    pub(crate) fn damaged_log(dir: &Path, parts: usize) -> Self {
        let remedy = "kv repair SRC DST saves the intact changes";
        Failure::Damaged { dir: dir.to_path_buf(), parts, remedy }
    }

    /// Of a call with arguments from the command line: the user can correct a wrong one.
    pub(crate) fn of_arguments(error: kv_core::Error) -> Self {
        match error {
            kv_core::Error::InvalidArgument(text) => Failure::Usage(text),
            other => Failure::Store(other),
        }
    }

    /// Prints the failure to standard error, and returns the exit code.
    pub(crate) fn report(&self) -> u8 {
        // Unlike `eprintln`, this does not panic when standard error is closed, as after a hang-up.
        let _ = writeln!(io::stderr(), "kv: {self}");
        match self {
            Failure::Usage(_) | Failure::Unchecked(_) => 2,
            Failure::Unanswered { .. } => 3,
            Failure::Store(_)
            | Failure::Signals(_)
            | Failure::Unprintable(_)
            | Failure::LeftOut(_)
            | Failure::Differ(_)
            | Failure::Damaged { .. }
            | Failure::Import { .. }
            | Failure::Copy(_)
            | Failure::Input(_)
            | Failure::Output(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Copy(text) => f.write_str(text),
            Failure::Store(error) => f.write_str(&explain(error)),
            Failure::Unprintable(text) => f.write_str(text),
            Failure::LeftOut(pairs) => {
                write!(f, "pairs left out for a tab or a line break: {pairs} (--hex shows every pair)")
            }
            Failure::Differ(Differences { only_first, only_second, values }) => write!(
                f,
                "the stores differ; keys only in the first: {only_first}, only in the second: {only_second}, \
                 with two values: {values}"
            ),
            Failure::Damaged { dir, parts, remedy } => {
                write!(f, "{} is damaged in {}; {remedy}", dir.display(), counted(*parts as u64, "place"))
            }
            Failure::Unchecked(error) => write!(f, "not checked: {}", explain(error)),
            Failure::Import { place, fault, taken } => {
                write!(f, "{place}: {fault}; pairs stored before: {taken}")
            }
            Failure::Signals(error) => write!(f, "cannot watch for signals: {error}"),
            Failure::Input(error) => write!(f, "cannot read standard input: {error}"),
            Failure::Output(error) => write!(f, "cannot write to standard output: {error}"),
            Failure::Unanswered { done, source } => {
                write!(f, "{done}, but the answer could not be written to standard output: {source}")
            }
        }
    }
}

/// The text of `error`, with the option that raises a limit.
fn explain(error: &kv_core::Error) -> String {
    match error {
        kv_core::Error::TooLarge { what: what @ ("key" | "value"), len, limit } => {
            format!("the {what} is {len} bytes long, the limit is {limit} (--{what}-len-max BYTES raises it)")
        }
        kv_core::Error::OutsideWindow { target, window } => {
            let (target, window) = (past::target_text(target), past::window_text(window));
            format!("cannot go to {target}: the past states reach {window}")
        }
        other => other.to_string(),
    }
}

impl From<NotHex> for Failure {
    fn from(error: NotHex) -> Self {
        Failure::Usage(error.to_string())
    }
}

impl From<kv_core::Error> for Failure {
    fn from(error: kv_core::Error) -> Self {
        Failure::Store(error)
    }
}
