//! Why a command failed, and the exit code that tells it.

use crate::text::NotHex;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// The engine refuses.
    Store(kv_core::Error),
    /// Standard input fails.
    Input(io::Error),
    /// Standard output fails.
    Output(io::Error),
}

impl Failure {
    /// The exit code that tells it.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Store(_) | Failure::Input(_) | Failure::Output(_) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) => f.write_str(text),
            Failure::Store(error) => error.fmt(f),
            Failure::Input(error) => write!(f, "cannot read standard input: {error}"),
            Failure::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
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
