//! The context of an open store: its settings and environment, and the state that every part
//! shares.

use kv_core::fs::Dir;
use kv_core::parts::Health;
use kv_core::{Acknowledge, Background, Env, Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::counters::Counters;
use crate::options::Options;
use crate::signals::Signals;
use crate::tail::Tail;

/// Parts read the settings and the health. They write only counters and wake-ups, which lie in
/// allocations of their own, so that a write does not slow down the readers of the rest.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) env: Env,
    pub(crate) options: Options,
    /// Where the images of undumped segments lie.
    pub(crate) tail: Tail,
    /// Longest key that can be looked up, bytes. This is the limit of the options, or the length of
    /// a longer key that the store held before the limit was lowered.
    pub(crate) key_len_max: usize,
    /// Length of the longest key that was ever put, bytes. It changes seldom.
    longest_key: AtomicUsize,
    /// The answer of the persistence policy, asked once.
    pub(crate) acknowledge: Acknowledge,
    pub(crate) health: Health,
    pub(crate) counters: Arc<Counters>,
    pub(crate) signals: Arc<Signals>,
}

impl Context {
    /// For a store in `dir` whose longest key has `longest_key` bytes.
    pub(crate) fn new(dir: Arc<dyn Dir>, env: Env, options: Options, tail: Tail, longest_key: usize) -> Self {
        Context {
            dir,
            env,
            longest_key: AtomicUsize::new(longest_key),
            tail,
            key_len_max: longest_key.max(options.limits.key_len_max),
            acknowledge: options.persistence.acknowledge(),
            health: if options.read_only { Health::read_only() } else { Health::default() },
            counters: Arc::default(),
            signals: Arc::default(),
            options,
        }
    }

    /// The directory's path, for errors.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether background workers serve the store.
    pub(crate) fn has_workers(&self) -> bool {
        self.env.background == Background::Threads && !self.options.read_only
    }

    /// Calls `wait`, and counts its time as a stall of a writer.
    pub(crate) fn stalling<R>(&self, wait: impl FnOnce() -> R) -> R {
        let start = self.env.clock.monotonic();
        let result = wait();
        self.counters.stalled(self.env.clock.monotonic().saturating_sub(start));
        result
    }

    /// Poisons the store, unless `error` is a [refusal](Error::is_refusal).
    pub(crate) fn poison_unless_refused(&self, error: Error) -> Error {
        if error.is_refusal() { error } else { self.health.poison(error) }
    }

    /// Notes the length of a key that is put.
    #[inline]
    pub(crate) fn note_key_len(&self, len: usize) {
        if len > self.longest_key.load(Ordering::Relaxed) {
            self.longest_key.fetch_max(len, Ordering::Relaxed);
        }
    }

    /// Length of the longest key, bytes.
    pub(crate) fn longest_key(&self) -> usize {
        self.longest_key.load(Ordering::Relaxed)
    }

    /// Refuses a key that is longer than `key_len_max`.
    #[inline]
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        self.options.limits.check_key_with(key, self.key_len_max)
    }
}
