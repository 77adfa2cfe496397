//! The contract of a key-value storage engine, and the types that engines and policies share.
//!
//! This crate holds no engine. An application names the traits; an engine implements them; a test
//! kit or a benchmark drives any engine through them. Durability is part of the contract: every
//! change has an [`Lsn`], and [`Engine::durable_lsn`] says exactly which changes a power cut can no
//! longer take away.
//!
//! ```
//! use kv_core::{AnyOf, Batch, MaxLogSize, PersistencePolicy, Periodic, Pending, Action};
//! use std::time::Duration;
//!
//! // Dump when 50 ms have passed or 4 MiB wait, whichever comes first.
//! let policy = AnyOf::new(vec![
//!     Box::new(Periodic::new(Duration::from_millis(50))),
//!     Box::new(MaxLogSize::new(4 << 20)),
//! ]);
//! let pending = Pending { bytes: 5 << 20, records: 10_000, ..Pending::default() };
//! assert_eq!(policy.decide(&pending).action, Action::WriteAndSync);
//!
//! // A batch is all or nothing.
//! let mut batch = Batch::new();
//! batch.put(b"from", b"90").put(b"to", b"110").delete(b"lock");
//! assert_eq!(batch.len(), 3);
//! ```
//!
//! # Map
//!
//! | file | holds |
//! |---|---|
//! | `engine.rs` | [`Engine`], **the contract** |
//! | `engine_ext.rs` | [`EngineExt`]: conveniences on top of any engine |
//! | `durable.rs` | [`Durable`]: the future that waits for an LSN |
//! | `capability.rs`, `point_in_time.rs` | abilities that only some engines have: [`Checkpoint`], [`Compact`], [`PointInTime`] |
//! | `factory.rs` | [`EngineFactory`], [`OpenOptions`], [`Capabilities`]: how a suite opens any engine |
//! | `persistence.rs` | [`PersistencePolicy`]: when changes go to disk |
//! | `checkpoint.rs` | [`CheckpointPolicy`]: when checkpoints are written |
//! | `compaction/` | [`CompactionPolicy`]: which segments are compacted |
//! | `retention.rs` | [`RetentionPolicy`]: how far back past states are kept |
//! | `clock.rs`, `env.rs` | [`Clock`], and [`Env`], which carries the injected file system and clock |
//! | `batch.rs`, `value.rs`, `lsn.rs`, `limits.rs`, `stats.rs`, `error.rs` | the vocabulary |
//! | [`fs`](mod@fs)`/` | [`Fs`], [`fs::Dir`], [`fs::File`] and [`OsFs`]: the only door to the disk; [`fs::SharedMemory`] |
//! | [`parts`]`/` | pieces for engine authors: group commit, pacing, poisoning, … |

#![deny(unsafe_code)]

mod batch;
mod capability;
mod checkpoint;
mod clock;
mod compaction;
mod durable;
mod engine;
mod engine_ext;
mod env;
mod error;
mod factory;
pub mod fs;
mod limits;
mod lsn;
pub mod parts;
mod persistence;
mod point_in_time;
mod retention;
mod stats;
mod value;

pub use batch::{Batch, Change};
pub use capability::{Checkpoint, Compact, CompactionReport};
pub use checkpoint::{AfterLogBytes, AfterTime, CheckpointPolicy, CheckpointView, OnRequest};
pub use clock::{Clock, ManualClock, SystemClock};
pub use compaction::{
    CompactionLevel, CompactionPlan, CompactionPolicy, CompactionView, CostBenefit, Greedy, Never, Occasion,
    SegmentId, SegmentStats, Usage,
};
pub use durable::Durable;
pub use engine::{Engine, ScanVisitor};
pub use engine_ext::EngineExt;
pub use env::{Background, Env};
pub use error::{Error, Op, Result};
pub use factory::{Capabilities, EngineFactory, OpenOptions, Scale};
pub use fs::{Fs, OsFs};
pub use limits::Limits;
pub use lsn::Lsn;
pub use persistence::{
    Acknowledge, Action, Always, AnyOf, Decision, LossWindow, Manual, MaxLogSize, Pending, Periodic,
    PersistencePolicy, default_persistence,
};
pub use point_in_time::{
    BackupReport, Moment, Past, Point, PointInTime, Reach, RestorePlan, Rounding, Target, Version, Window,
};
pub use retention::{KeepNothing, KeepPast, RetentionPolicy, RetentionView, Superseded};
pub use stats::{ProcessSafety, RecoveryReport, Stats};
pub use value::Value;

/// The examples of the README are tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
