//! Why a command failed, and its exit code.

use crate::text::NotHex;
use std::fmt;
use std::io::{self, Write};

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

impl Failure {
    /// Prints the failure to standard error, and returns the exit code.
    pub(crate) fn report(&self) -> u8 {
        // Unlike `eprintln`, this does not panic when standard error is closed, as after a hang-up.
        let _ = writeln!(io::stderr(), "kv: {self}");
        match self {
            Failure::Usage(_) => 2,
            Failure::Unanswered { .. } => 3,
            Failure::Store(_)
            | Failure::Signals(_)
            | Failure::Unprintable(_)
            | Failure::LeftOut(_)
            | Failure::Input(_)
            | Failure::Output(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) => f.write_str(text),
            Failure::Store(error) => f.write_str(&explain(error)),
            Failure::Unprintable(text) => f.write_str(text),
            Failure::LeftOut(pairs) => {
                write!(f, "pairs left out for a tab or a line break: {pairs} (--hex shows every pair)")
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
