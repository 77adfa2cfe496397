//! A log-structured key-value store in memory, whose durability you choose.
//!
//! The engine appends every change once to a log in memory segments. An index of 8-byte entries
//! points into the log. The engine dumps the log to disk when a [`PersistencePolicy`] says so, by
//! default every 100 ms or 8 MiB. Compaction frees the space of dead records. An open loads the
//! index from the newest checkpoint, and replays the log behind it.
//!
//! ```
//! use kv_log::{Engine, LogEngine, Options};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path().join("store");
//! let store = LogEngine::open(&dir, Options::default())?;
//! store.put(b"planet", b"earth")?; // visible now, durable within about 100 ms
//! let lsn = store.put(b"moon", b"luna")?;
//! store.wait_durable(lsn)?; // durable now
//! store.close()?;
//!
//! let store = LogEngine::open(&dir, Options::default())?;
//! assert_eq!(store.get(b"planet")?.as_deref(), Some(b"earth".as_slice()));
//! # Ok::<(), kv_log::Error>(())
//! ```
//!
//! # Durability
//!
//! A change is *visible* once its call returns, and *durable* once it survives a power cut. A crash
//! keeps a prefix of the changes: all durable ones, and perhaps newer ones. The policy decides when
//! changes become durable:
//!
//! | policy | a put returns | a power cut loses |
//! |---|---|---|
//! | [`default_persistence`] | at once | changes of up to 100 ms or 8 MiB, whichever comes first, and those that arrive during the dump |
//! | [`Always`] | once it is durable | nothing that returned |
//! | [`Periodic`], [`MaxLogSize`], [`AnyOf`] | at once | changes since the last dump with a sync |
//! | [`Manual`] | at once | changes since the last [`sync`](Engine::sync) |
//!
//! On Linux a change is also *process-safe* once its call returns, as long as shared memory has
//! room: it survives the death of the process under any policy. The undumped part of the log lies
//! in shared memory. [`Stats::process_safety`](kv_core::Stats::process_safety) says whether this
//! holds now, and [`Options::process_safe`] can require it.
//!
//! With any policy, [`sync`](Engine::sync) makes all visible changes durable, and
//! [`wait_durable`](Engine::wait_durable) those up to one LSN. Threads that wait at the same time
//! share one sync (group commit).
//!
//! ```
//! use kv_log::{Always, Engine, LogEngine, Options};
//! use std::sync::Arc;
//!
//! # let dir = tempfile::tempdir().unwrap();
//! let options = Options { persistence: Arc::new(Always), ..Options::default() };
//! let store = LogEngine::open(dir.path(), options)?;
//! store.put(b"balance", b"100")?; // durable on return
//! # Ok::<(), kv_log::Error>(())
//! ```
//!
//! # Errors
//!
//! A *refusal* changes nothing, and the store goes on: a full disk ([`Error::DiskFull`]), too few
//! file descriptors, too little memory, too many segments. [`Error::is_refusal`] tells them. Try
//! again once the cause is gone. A key, value or
//! batch above its limit is an error that changes nothing, too. Deletes work on a full disk,
//! because the store holds a reserve.
//!
//! Every other failed write or sync *poisons* the store. The call that met the failure returns it.
//! Later changes return [`Error::Poisoned`] with the cause, and reads go on. Close the store,
//! repair the cause, and open it again: recovery decides which changes are durable.
//!
//! # Async code
//!
//! Do not block an async worker thread on a sync. Put, and then await durability:
//!
//! ```
//! use kv_log::{Engine, EngineExt, LogEngine, Options};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let store = LogEngine::open(dir.path(), Options::default())?;
//! # let run = |task: std::pin::Pin<Box<dyn Future<Output = kv_log::Result<()>> + '_>>| {
//! #     let mut task = task;
//! #     let waker = std::task::Waker::noop();
//! #     while task.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending() {
//! #         std::thread::yield_now();
//! #     }
//! # };
//! let task = async {
//!     let lsn = store.put(b"key", b"value")?;
//!     store.durable(lsn).await
//! };
//! # run(Box::pin(task));
//! # Ok::<(), kv_log::Error>(())
//! ```
//!
//! # Sizing
//!
//! | resource | need |
//! |---|---|
//! | memory | live records, up to 0.3 more and 12 MiB ([`slack_share`](Options::slack_share), [`slack_bytes`](Options::slack_bytes)), and 9 to 15 bytes a key for the index |
//! | memory for unflushed changes | up to [`unflushed_bytes_max`](Options::unflushed_bytes_max), and a few segments |
//! | less memory | [`Options::with_memory_budget`]: cold records are read from files |
//! | disk | live records divided by 0.6, or with sixteen segments of dead ones while changes come, whichever is more; the reserve (up to one segment and 1/32 of the data); spares |
//! | file descriptors | [`open_files_max`](Options::open_files_max), and about ten under the default policy |
//! | small stores | lower [`segment_bytes`](Options::segment_bytes): the unit of allocation |
//!
//! # Map of the code
//!
//! docs/design.md follows one put, one read, one compaction and one recovery through these files.
//!
//! | stage | file |
//! |---|---|
//! | the engine handles a call | `engine.rs`, `factory.rs`, `store.rs` |
//! | a writer commits a change | `commit/` |
//! | into the active segment of the log | `log/` |
//! | into the index | `index/` |
//! | a reader looks it up | `read.rs`, `segments/`, `reclaim/` |
//! | the flusher writes and syncs the log | `workers.rs`, `flush.rs` |
//! | the catalog names segments in the manifest | `manifest/`, `directory.rs` |
//! | the compactor frees dead records | `compaction/`, `relocation.rs` |
//! | the evictor frees images | `eviction.rs` |
//! | a checkpoint stores the index, and the next open loads and verifies it | `checkpoint/`, `verification.rs` |
//! | undumped changes outlive the process | `tail/` |
//! | an open replays the log | `recovery/` |
//! | a caller goes back to a past state | `past/`, `new_store.rs` |
//! | a tool checks or repairs the files of a closed store | `inspect/` |
//!
//! The bytes are those of [`kv_wal_format`].

mod checkpoint;
mod commit;
mod compaction;
mod context;
mod counters;
mod directory;
mod engine;
mod eviction;
mod factory;
mod flush;
mod index;
pub mod inspect;
mod log;
mod manifest;
mod memory;
mod new_store;
mod options;
mod partition;
mod past;
mod processors;
mod progress;
mod read;
mod reclaim;
mod recovery;
mod refusal;
mod relocation;
mod segments;
mod signals;
mod slack;
mod store;
mod sync;
pub mod tail;
mod verification;
mod workers;
mod working;

pub use engine::LogEngine;
pub use factory::{ConfiguredLogFactory, LogFactory};
pub use options::{OnRecovery, Options, ProcessSafe, RecoveryProgress};

// The contract, for applications: they need no second dependency.
pub use kv_core::{
    Acknowledge, Action, AfterLogBytes, AfterTime, Always, AnyOf, Background, Batch, Checkpoint,
    CheckpointPolicy, CheckpointView, Compact, CompactionLevel, CompactionPlan, CompactionPolicy,
    CompactionReport, CompactionView, CostBenefit, Decision, Engine, EngineExt, EngineFactory, Env, Error,
    Greedy, KeepNothing, KeepPast, Limits, Lsn, Manual, MaxLogSize, Moment, Never, Occasion, OnRequest, Op,
    OpenOptions, Past, Pending, Periodic, PersistencePolicy, Point, PointInTime, ProcessSafety,
    RecoveryReport, RestorePlan, Result, RetentionPolicy, RetentionView, Rounding, Scale, SegmentId,
    SegmentStats, Stats, Superseded, Target, Value, Version, Window, default_persistence,
};

/// The examples of the README are tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
