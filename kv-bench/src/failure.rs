use std::io;

/// The ways in which the bench fails. Any failure voids the command: it reports nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An answer or a state of an engine contradicts the ground truth.
    #[error("the engine is wrong: {0}")]
    Wrong(String),
    /// An engine returned an error.
    #[error("the engine failed: {0}")]
    Engine(#[from] kv_core::Error),
    /// A foreign store returned an error.
    #[cfg(any(feature = "peers", feature = "rocksdb"))]
    #[error("{name} failed: {error}")]
    Foreign {
        /// The store's name.
        name: &'static str,
        /// Its error text.
        error: String,
    },
    /// A child process failed, or did not end in time.
    #[error("a run failed, so nothing is reported: {0}")]
    Worker(String),
    /// The program cannot write or parse the JSON that its processes exchange.
    #[error("cannot understand a child process: {0}")]
    Json(#[from] serde_json::Error),
    /// The operating system refused an operation.
    #[error("cannot {op}: {source}")]
    Io {
        /// The operation and its object.
        op: String,
        /// The system's error.
        source: io::Error,
    },
    /// The plotting library returned an error.
    #[error("cannot draw a figure: {0}")]
    Draw(String),
}

impl Failure {
    /// The error of a foreign store.
    #[cfg(any(feature = "peers", feature = "rocksdb"))]
    pub(crate) fn foreign(name: &'static str, error: impl std::fmt::Display) -> Self {
        Failure::Foreign { name, error: error.to_string() }
    }

    /// For `map_err`: an I/O error with its operation.
    pub(crate) fn io(op: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Failure::Io { op: op.into(), source }
    }
}
