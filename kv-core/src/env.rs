use crate::{Clock, Fs, OsFs, SystemClock};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, RandomState};
use std::path::Path;
use std::sync::Arc;

/// The threads that do an engine's background work (dump, compaction, checkpoint).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// Threads of the engine.
    #[default]
    Threads,
    /// The thread of the caller, inside the call after which a policy asks for the work. Given one
    /// calling thread, a [`ManualClock`](crate::ManualClock) and a deterministic [`Fs`], a run is
    /// then reproducible operation for operation.
    Inline,
}

/// The environment that is injected into an engine, apart from its settings.
///
/// The shared memory of the machine comes with its file system: [`Fs::shared_memory`].
#[derive(Clone, Debug)]
pub struct Env {
    /// The file system. All I/O of an engine goes through it.
    pub fs: Arc<dyn Fs>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The threads that do the background work.
    pub background: Background,
}

impl Env {
    /// The operating system's file system and clock, and background threads.
    pub fn os() -> Self {
        Env { fs: Arc::new(OsFs), clock: Arc::new(SystemClock::new()), background: Background::Threads }
    }

    /// A number for a new store in `dir`, that tells its files from those of other stores: random,
    /// and never 0. In inline mode it follows from the directory and the time.
    pub fn draw_store_id(&self, dir: &Path) -> u32 {
        let drawn = self.draw((dir, self.clock.unix_time_ms()));
        u32::try_from(drawn >> 32).map_or(1, |id| id.max(1))
    }

    /// A random number. In inline mode it follows from `what`.
    pub fn draw(&self, what: impl Hash) -> u64 {
        match self.background {
            Background::Threads => RandomState::new().hash_one(what),
            Background::Inline => BuildHasherDefault::<DefaultHasher>::default().hash_one(what),
        }
    }
}

impl Default for Env {
    fn default() -> Self {
        Self::os()
    }
}
