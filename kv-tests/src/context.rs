use crate::sim::PowerCut;
use crate::watch::Calls;
use crate::{Explored, Settings};
use fastrand::Rng;
use kv_core::EngineFactory;
use std::sync::{Arc, Mutex, PoisonError};

/// The tools of a running case: the engine's factory, stores to open, a random generator and
/// counters.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
}

struct Shared {
    factory: Arc<dyn EngineFactory>,
    settings: Settings,
    id: &'static str,
    explored: Explored,
    doing: Mutex<Option<String>>,
    calls: Calls,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("engine", &self.shared.factory.name())
            .field("case", &self.shared.id)
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(factory: Arc<dyn EngineFactory>, settings: Settings, id: &'static str) -> Self {
        let (explored, doing, calls) = (Explored::default(), Mutex::default(), Calls::default());
        Context { shared: Arc::new(Shared { factory, settings, id, explored, doing, calls }) }
    }

    /// The engine under test.
    pub fn factory(&self) -> &dyn EngineFactory {
        &*self.shared.factory
    }

    /// Seed, effort and timeout.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The id of the running case.
    pub fn id(&self) -> &'static str {
        self.shared.id
    }

    /// The counts of this case so far.
    pub fn explored(&self) -> &Explored {
        &self.shared.explored
    }

    /// `count` times the effort, at least 1. Scale numbers of rounds and histories with it.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a budget, positive and small"
    )]
    pub fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.shared.settings.effort).round() as u64).max(1)
    }

    /// A random generator that draws the same in every run with this seed.
    pub fn rng(&self) -> Rng {
        Rng::with_seed(self.seed())
    }

    /// A seed of this case's own, derived from the seed of the run.
    pub fn seed(&self) -> u64 {
        // FNV-1a over the id, so that two cases draw different numbers.
        let id = self.shared.id.bytes();
        id.fold(0xcbf2_9ce4_8422_2325 ^ self.shared.settings.seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// A power cut: draw 0 loses all, 1 keeps all, and any other depends on the seed of the run.
    pub(crate) fn power_cut(&self, draw: u64) -> PowerCut {
        match draw {
            0 | 1 => PowerCut::seeded(draw),
            _ => PowerCut::seeded(
                self.settings().seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(draw) | 2,
            ),
        }
    }

    /// Notes the current step for the report of a panic or a deadlock.
    pub fn set_doing(&self, text: String) {
        *self.shared.doing.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    pub(crate) fn doing(&self) -> Option<String> {
        self.shared.doing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The calls of this case that are under way.
    pub(crate) fn calls(&self) -> &Calls {
        &self.shared.calls
    }
}
