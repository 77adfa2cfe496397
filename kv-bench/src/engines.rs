//! The only place that names engines, and the policies they are run under.

use crate::failure::Failure;
use crate::units;
use clap::ValueEnum;
use kv_core::{
    Always, Engine, EngineFactory, Env, Manual, MaxLogSize, OpenOptions, Periodic, PersistencePolicy,
    default_persistence,
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The engines that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineName {
    /// The log-structured engine.
    Log,
    /// The hash table with snapshots.
    Naive,
}

impl EngineName {
    fn factory(self) -> &'static dyn EngineFactory {
        match self {
            EngineName::Log => &kv_log::LogFactory,
            EngineName::Naive => &kv_naive::NaiveFactory,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        self.factory().name()
    }

    /// Its place in a palette.
    pub(crate) fn place(self) -> usize {
        match self {
            EngineName::Log => 0,
            EngineName::Naive => 1,
        }
    }

    /// As it is run where nothing else is said: the log engine with its default policy, the naive one
    /// with the middle threshold of the study.
    pub(crate) fn standard(self) -> Contender {
        match self {
            EngineName::Log => Contender::new(self, Policy::Default),
            EngineName::Naive => Contender::new(self, Policy::MaxLogSize(1 << 20)),
        }
    }
}

/// When an engine dumps to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Policy {
    /// 100 ms or 8 MiB, whichever comes first: `kv_core::default_persistence`.
    Default,
    /// Each change is durable when its call returns.
    Always,
    /// Only when told to.
    Manual,
    /// Each interval, milliseconds.
    Periodic(u64),
    /// Each number of bytes.
    MaxLogSize(u64),
}

impl Policy {
    fn build(self) -> Arc<dyn PersistencePolicy> {
        match self {
            Policy::Default => Arc::new(default_persistence()),
            Policy::Always => Arc::new(Always),
            Policy::Manual => Arc::new(Manual),
            Policy::Periodic(interval_ms) => Arc::new(Periodic::new(Duration::from_millis(interval_ms))),
            Policy::MaxLogSize(bytes) => Arc::new(MaxLogSize::new(bytes)),
        }
    }

    /// For people.
    pub(crate) fn label(self) -> String {
        match self {
            Policy::Default => "100 ms or 8 MiB".to_owned(),
            Policy::Always => "every change".to_owned(),
            Policy::Manual => "never".to_owned(),
            Policy::Periodic(interval_ms) => format!("every {interval_ms} ms"),
            Policy::MaxLogSize(bytes) => format!("every {}", units::binary_bytes(bytes)),
        }
    }
}

/// An engine under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contender {
    pub(crate) engine: EngineName,
    pub(crate) policy: Policy,
}

impl Contender {
    pub(crate) const fn new(engine: EngineName, policy: Policy) -> Self {
        Contender { engine, policy }
    }

    /// `log (100 ms or 8 MiB)`.
    pub(crate) fn label(self) -> String {
        format!("{} ({})", self.engine.name(), self.policy.label())
    }

    /// Opens its store in `dir`.
    pub(crate) fn open(self, dir: &Path) -> Result<Arc<dyn Engine>, Failure> {
        let options = OpenOptions { persistence: self.policy.build(), ..OpenOptions::default() };
        Ok(self.engine.factory().open(dir, &Env::os(), &options)?)
    }
}

/// Opens a store of the log engine in `dir`, with settings that only it has.
pub(crate) fn open_log(dir: &Path, options: kv_log::Options) -> Result<Arc<dyn Engine>, Failure> {
    Ok(Arc::new(kv_log::LogEngine::open(dir, options)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::LossWindow;

    #[test]
    fn labels_tell_the_policies() {
        let default = Policy::Default.build().loss_window();
        assert_eq!(default, LossWindow { bytes: Some(8 << 20), age: Some(Duration::from_millis(100)) });
        assert_eq!(EngineName::Log.standard().label(), "log (100 ms or 8 MiB)");
        assert_eq!(EngineName::Naive.standard().label(), "naive (every 1 MiB)");
        assert_eq!(Policy::MaxLogSize(1 << 15).label(), "every 32 KiB");
    }
}
