use crate::{
    Engine, Env, KeepNothing, Limits, PersistencePolicy, Result, RetentionPolicy, default_persistence,
};
use std::path::Path;
use std::sync::Arc;

/// Opens one kind of engine, for a test suite, a benchmark or a tool.
pub trait EngineFactory: Send + Sync {
    /// Short lower-case name: `"log"`, `"naive"`.
    fn name(&self) -> &str;

    /// The capabilities of the engine.
    fn capabilities(&self) -> Capabilities;

    /// Opens the store in `dir`, recovering it if need be.
    ///
    /// # Errors
    /// `Locked`, `NotAStore`, `UnsupportedVersion`, `Corruption`, `InvalidArgument`, `Unsupported`,
    /// a refusal, I/O errors. After a failed open, the next one recovers the same state.
    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>>;
}

/// The settings that every engine takes at open. Engines add settings of their own.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Create the store when `dir` is missing or empty; else such an open is `NotAStore`.
    /// Default true.
    pub create_if_missing: bool,
    /// Open the store for reading only: nothing on the disk is changed, other readers may have it
    /// open too, and no writer. Changes, `sync` and waits beyond `durable_lsn` are
    /// [`Error::ReadOnly`](crate::Error::ReadOnly). An engine without the
    /// [capability](Capabilities::read_only) answers
    /// [`Error::Unsupported`](crate::Error::Unsupported). Default false.
    pub read_only: bool,
    /// When changes go to disk. Default [`default_persistence`].
    pub persistence: Arc<dyn PersistencePolicy>,
    /// How far back past states are kept, where the engine has
    /// [`PointInTime`](crate::PointInTime). Default [`KeepNothing`].
    pub retention: Arc<dyn RetentionPolicy>,
    /// Size limits. Default [`Limits::default`].
    pub limits: Limits,
    /// How large the engine's units are. Default [`Scale::Normal`].
    pub scale: Scale,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            create_if_missing: true,
            read_only: false,
            persistence: Arc::new(default_persistence()),
            retention: Arc::new(KeepNothing),
            limits: Limits::default(),
            scale: Scale::Normal,
        }
    }
}

/// How large an engine's units (segments, buffers, thresholds) are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// For real work.
    #[default]
    Normal,
    /// As small as the engine can run with, so that a few dozen operations roll segments over and
    /// set off compaction: for tests.
    Tiny,
}

/// The capabilities of an engine that decide which tests apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each set by its own name")]
pub struct Capabilities {
    /// All I/O goes through [`Env::fs`], so a simulated disk can stand in. Default true.
    pub simulated_fs: bool,
    /// [`Background::Inline`](crate::Background::Inline) makes runs reproducible. Default true.
    pub inline: bool,
    /// Has [`Checkpoint`](crate::Checkpoint). Default false.
    pub checkpoint: bool,
    /// Has [`PointInTime`](crate::PointInTime). Default false.
    pub point_in_time: bool,
    /// Has [`Compact`](crate::Compact). Default false.
    pub compact: bool,
    /// Opens stores for [reading only](OpenOptions::read_only). Default false.
    pub read_only: bool,
    /// Every change survives the death of the process from the moment its call returns, under any
    /// policy. Default false.
    pub process_safe: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Capabilities {
            simulated_fs: true,
            inline: true,
            checkpoint: false,
            point_in_time: false,
            compact: false,
            read_only: false,
            process_safe: false,
        }
    }
}

impl Capabilities {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `simulated_fs`.
    #[must_use]
    pub fn simulated_fs(mut self, yes: bool) -> Self {
        self.simulated_fs = yes;
        self
    }

    /// Sets `inline`.
    #[must_use]
    pub fn inline(mut self, yes: bool) -> Self {
        self.inline = yes;
        self
    }

    /// Sets `checkpoint`.
    #[must_use]
    pub fn checkpoint(mut self, yes: bool) -> Self {
        self.checkpoint = yes;
        self
    }

    /// Sets `point_in_time`.
    #[must_use]
    pub fn point_in_time(mut self, yes: bool) -> Self {
        self.point_in_time = yes;
        self
    }

    /// Sets `read_only`.
    #[must_use]
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// Sets `process_safe`.
    #[must_use]
    pub fn process_safe(mut self, yes: bool) -> Self {
        self.process_safe = yes;
        self
    }

    /// Sets `compact`.
    #[must_use]
    pub fn compact(mut self, yes: bool) -> Self {
        self.compact = yes;
        self
    }
}
