//! A log-structured key-value store in memory, whose durability you choose.
//!
//! Every change is appended once to a log in memory segments, and an index of 8-byte slots points into
//! it. The log is dumped to disk when a [`PersistencePolicy`](kv_core::PersistencePolicy) says so, by
//! default every 100 ms or 8 MiB; compaction gives space back; after a failure the index is rebuilt by
//! replay.
//!
//! ```
//! use kv_core::{Engine, EngineExt};
//! use kv_log::{LogEngine, Options};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path().join("store");
//! let store = LogEngine::open(&dir, Options::default())?;
//! store.put(b"planet", b"earth")?; // visible now, durable within 100 ms
//! let lsn = store.put(b"moon", b"luna")?;
//! store.wait_durable(lsn)?; // durable now
//! store.close()?;
//!
//! let store = LogEngine::open(&dir, Options::default())?;
//! assert_eq!(store.get(b"planet")?.as_deref(), Some(b"earth".as_slice()));
//! # Ok::<(), kv_core::Error>(())
//! ```
//!
//! # Map: the way of one write
//!
//! | stage | file |
//! |---|---|
//! | a call comes in | `engine.rs` |
//! | it takes its LSN, is encoded once, and becomes visible | `commit.rs`, `batch.rs`, `head.rs` |
//! | into the memory of a segment | `segment/`: `image.rs`, `table.rs`, `location.rs`, `file.rs` |
//! | which the index points at | `index/`: `shard.rs`, `table.rs`, `slot.rs` |
//! | which a read follows | `read.rs`, `segment/found.rs`, `readers/` |
//! | the policy asks for a dump; the log is written and synced | `background.rs`, `flush.rs`, `progress.rs` |
//! | a full segment is sealed, the next was made ahead and is named in the manifest | `spares.rs`, `catalog.rs`, `manifest.rs` |
//! | survivors of old segments move, in memory or on disk, the rest goes | `compaction/` |
//! | where memory is short, segments leave it for their files | `eviction.rs`, `segment/`: `residence.rs`, `cold.rs` |
//! | after a failure: replay | `open.rs`, `recovery.rs`, `directory.rs` |
//!
//! `store.rs` holds the parts together; `mapped.rs` has arrays that give their memory back. The bytes are those of [`kv_wal_format`]; who leads
//! a flush, and what a failure means for everybody after it, is in `kv_core`'s `Leadership` and `Health`.

mod commit;
mod compaction;
mod context;
mod counters;
mod directory;
mod engine;
mod eviction;
mod flush;
mod index;
mod log;
mod manifest;
mod mapped;
mod options;
mod prefetch;
mod progress;
mod read;
mod readers;
mod recovery;
mod refusal;
mod relocation;
mod segment;
mod signals;
mod store;
mod sync;
mod workers;

pub use engine::{LogEngine, LogFactory};
pub use options::{OnRecovery, Options, RecoveryProgress};

/// The examples of the README are tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
