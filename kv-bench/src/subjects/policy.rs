//! The moments at which a subject's changes become durable.

use crate::units;
use kv_core::{Always, Manual, MaxLogSize, Periodic, PersistencePolicy, default_persistence};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// When a subject writes to disk. Volatile tables ignore it. A foreign store syncs each change
/// under `Always`, and writes without sync under every other policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Policy {
    /// 100 ms or 8 MiB, whichever comes first: `kv_core::default_persistence`.
    Default,
    /// Each change is durable when its call returns.
    Always,
    /// Only when the caller syncs.
    Manual,
    /// Each interval, milliseconds.
    Periodic(u64),
    /// Each number of bytes.
    MaxLogSize(u64),
}

impl Policy {
    /// The policy as the engines take it.
    pub(crate) fn build(self) -> Arc<dyn PersistencePolicy> {
        match self {
            Policy::Default => Arc::new(default_persistence()),
            Policy::Always => Arc::new(Always),
            Policy::Manual => Arc::new(Manual),
            Policy::Periodic(interval_ms) => Arc::new(Periodic::new(Duration::from_millis(interval_ms))),
            Policy::MaxLogSize(bytes) => Arc::new(MaxLogSize::new(bytes)),
        }
    }

    /// The policy's name in tables.
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

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::LossWindow;

    #[test]
    fn labels_tell_the_policies() {
        let default = Policy::Default.build().loss_window();
        assert_eq!(default, LossWindow { bytes: Some(8 << 20), age: Some(Duration::from_millis(100)) });
        assert_eq!(Policy::Default.label(), "100 ms or 8 MiB");
        assert_eq!(Policy::MaxLogSize(1 << 15).label(), "every 32 KiB");
    }
}
