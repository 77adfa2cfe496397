//! A hash table made durable by whole-table snapshots: the traditional design, and the baseline
//! that a log-structured engine has to beat.
//!
//! The table is a `dashmap`. When the [`PersistencePolicy`] says so, the store writes a snapshot:
//! the whole table, with checksums, in a temporary file that then takes the place of the previous
//! snapshot. Writers go on meanwhile, and the snapshot is the state at one LSN. A crash loses the
//! changes after the last snapshot: the durable state is always exactly one snapshot.
//!
//! ```
//! use kv_naive::{Engine, NaiveEngine, OpenOptions};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path().join("store");
//! let store = NaiveEngine::open(&dir, OpenOptions::default())?;
//! store.put(b"planet", b"earth")?;
//! store.sync()?; // writes a snapshot
//! store.close()?;
//!
//! let store = NaiveEngine::open(&dir, OpenOptions::default())?;
//! assert_eq!(store.get(b"planet")?.as_deref(), Some(b"earth".as_slice()));
//! # Ok::<(), kv_naive::Error>(())
//! ```
//!
//! # Map
//!
//! | file | holds |
//! |---|---|
//! | `engine.rs` | [`NaiveEngine`]: answers the calls |
//! | `store.rs` | the parts of an open store, and the way of a change through them |
//! | `table/` | the hash table, LSNs, atomic batches, and the state at one LSN while writers go on |
//! | `snapshotter.rs` | durability: one thread writes a snapshot, the others wait |
//! | `snapshot/` | the snapshot file: writing and reading |
//! | `past/` | old snapshots and points: read, restored, backed up |
//! | `files.rs` | the files of the store, and their reserve |
//! | `identity.rs` | the file that marks the directory, and reserves LSNs |
//! | `directory.rs` | the classification of a directory by its names |
//! | `open.rs` | opening |
//!
//! # Past states
//!
//! A store can keep old snapshots. [`OpenOptions::retention`] says which, for example the last few
//! ([`KeepPast::count_max`]). By default it keeps none. [`PointInTime`] lists, reads, restores and
//! backs up their states. A target between two snapshots leads to the earlier one. A point keeps
//! the snapshot of its state.
//!
//! ```
//! use kv_naive::{Engine, KeepPast, NaiveEngine, OpenOptions, PointInTime, Target};
//! use std::sync::Arc;
//!
//! # let dir = tempfile::tempdir().unwrap();
//! let retention = Arc::new(KeepPast::all().count_max(3));
//! let store = NaiveEngine::open(dir.path(), OpenOptions { retention, ..OpenOptions::default() })?;
//! store.put(b"planet", b"earth")?;
//! let before = store.sync()?;
//! store.delete(b"planet")?;
//! store.sync()?;
//! let past = store.read_at(&Target::Lsn(before))?;
//! assert_eq!(past.engine.get(b"planet")?.as_deref(), Some(b"earth".as_slice()));
//! # Ok::<(), kv_naive::Error>(())
//! ```
//!
//! # Costs
//!
//! Each snapshot writes the whole table, even after a small change: with a policy that dumps every
//! `b` bytes, filling a table of `n` bytes writes about `n²/2b`. With `Always`, a put waits for a
//! snapshot, which it shares with the puts that wait at the same time. The engine carries out
//! [`Action::Write`] as `WriteAndSync`: an unsynced snapshot could not take the place of a synced
//! one.
//!
//! # Limits
//!
//! The table, its keys and its values are in memory, and so is a copy of the keys of one shard (of
//! 256) during a snapshot or a scan. Entries that writers replace stay while a running snapshot
//! needs them: on a slow disk up to a second copy of the data, which `Stats::retired_bytes` counts.
//! If the system has no memory for a change, the process ends (Rust's `handle_alloc_error`). Every
//! put allocates its key and its value, and dashmap's entry API grows a shard without a way to
//! refuse. `kv-log` refuses such a change.

#![forbid(unsafe_code)]

mod directory;
mod engine;
mod files;
mod identity;
mod open;
mod past;
mod snapshot;
mod snapshotter;
mod store;
mod table;

pub use engine::{NaiveEngine, NaiveFactory};

// The contract, for applications: they need no second dependency.
pub use kv_core::{
    Acknowledge, Action, Always, AnyOf, Background, BackupReport, Batch, Decision, Engine, EngineExt,
    EngineFactory, Env, Error, KeepNothing, KeepPast, Limits, Lsn, Manual, MaxLogSize, Moment, Op,
    OpenOptions, Past, Pending, Periodic, PersistencePolicy, Point, PointInTime, Reach, RecoveryReport,
    RestorePlan, Result, RetentionPolicy, RetentionView, Rounding, Scale, Stats, Superseded, Target, Value,
    Version, Window, default_persistence,
};

/// The examples of the README are tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
