//! The contract of a key-value storage engine, and the vocabulary its plug-ins share.
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
//! | `engine.rs` | [`Engine`], **the contract**, and its sugar [`EngineExt`] |
//! | `durable.rs` | [`Durable`]: the future that waits for an LSN |
//! | `capability.rs` | what only some engines do: [`Checkpoint`], [`PointInTime`], [`Compact`] |
//! | `factory.rs` | [`EngineFactory`], [`OpenOptions`], [`Capabilities`]: how a suite opens any engine |
//! | `persistence.rs` | [`PersistencePolicy`]: when changes go to disk |
//! | `compaction.rs` | [`CompactionPolicy`]: which segments are compacted |
//! | `fs/` | [`Fs`], [`Dir`], [`File`] and [`OsFs`]: the only door to the disk |
//! | `clock.rs`, `env.rs` | [`Clock`], and [`Env`], which carries what is injected |
//! | `health.rs`, `leadership.rs`, `next_ask.rs`, `wakers.rs`, `reserve.rs`, `store_lock.rs`, `life.rs`, `at_exit.rs` | parts that engines share: [`Health`] (poisoning), [`Leadership`] (group commit), [`NextAsk`] (wake-ups), [`Wakers`] (waiting futures), [`Reserve`] (full disks), [`StoreLock`], [`Life`] (closing once), [`AtExit`] |
//! | `batch.rs`, `value.rs`, `lsn.rs`, `limits.rs`, `stats.rs`, `error.rs` | the vocabulary |

#![deny(unsafe_code)]

mod at_exit;
mod batch;
mod capability;
mod clock;
mod compaction;
mod durable;
mod engine;
mod env;
mod error;
mod factory;
mod fs;
mod health;
mod leadership;
mod life;
mod limits;
mod lsn;
mod next_ask;
mod persistence;
mod process;
mod reserve;
mod stats;
mod store_lock;
mod value;
mod wakers;

pub use at_exit::{AtExit, call_at_exit};
pub use batch::{Batch, Change};
pub use capability::{Checkpoint, Compact, CompactionReport, PointInTime, RecoveryWindow, RestoreTarget};
pub use clock::{Clock, ManualClock, SystemClock};
pub use compaction::{
    CompactionLevel, CompactionPlan, CompactionPolicy, CompactionView, CostBenefit, Greedy, MANY_SEGMENTS,
    MERGED_SEGMENT_BYTES, Never, SegmentId, SegmentStats, Usage,
};
pub use durable::Durable;
pub use engine::{Engine, EngineExt, ScanVisitor};
pub use env::{Background, Env};
pub use error::{Error, Result};
pub use factory::{Capabilities, EngineFactory, OpenOptions, Scale};
pub use fs::{
    Dir, DirExt, DirLock, File, FileExt, Fs, FsExt, LOCK_FILE, LockKind, OpenMode, OsFs, is_system_file,
};
pub use health::{Health, PoisonOnPanic};
pub use leadership::{Leadership, Leading};
pub use life::Life;
pub use limits::Limits;
pub use lsn::Lsn;
pub use next_ask::NextAsk;
pub use persistence::{
    Acknowledge, Action, Always, AnyOf, Decision, LossWindow, Manual, MaxLogSize, Pending, Periodic,
    PersistencePolicy, default_persistence,
};
pub use reserve::Reserve;
pub use stats::{RecoveryReport, Stats};
pub use store_lock::StoreLock;
pub use value::Value;
pub use wakers::{WakeAllOnDrop, Wakers};

/// The examples of the README are tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
