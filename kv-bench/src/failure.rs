use std::io;

/// What may go wrong in an evaluation. Any of it voids the evaluation: nothing is reported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An engine gave an answer, or holds a state, that the ground truth contradicts.
    #[error("the engine is wrong: {0}")]
    Wrong(String),
    /// An engine returned an error.
    #[error("the engine failed: {0}")]
    Engine(#[from] kv_core::Error),
    /// A store of somebody else returned an error.
    #[cfg(any(feature = "peers", feature = "rocksdb"))]
    #[error("{name} failed: {error}")]
    Peer {
        /// Which.
        name: &'static str,
        /// What it said.
        error: String,
    },
    /// A child process failed, or did not end in time.
    #[error("a run failed, so nothing is reported: {0}")]
    Worker(String),
    /// A child process said something that makes no sense.
    #[error("cannot understand a child process: {0}")]
    Json(#[from] serde_json::Error),
    /// The operating system refused something.
    #[error("cannot {op}: {source}")]
    Io {
        /// What was attempted, on what.
        op: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A figure could not be drawn.
    #[error("cannot draw a figure: {0}")]
    Draw(String),
}

impl Failure {
    /// The error of a store of somebody else.
    #[cfg(any(feature = "peers", feature = "rocksdb"))]
    pub(crate) fn peer(name: &'static str, error: impl std::fmt::Display) -> Self {
        Failure::Peer { name, error: error.to_string() }
    }

    /// For `map_err`: an I/O error with what was attempted.
    pub(crate) fn io(op: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Failure::Io { op: op.into(), source }
    }
}
