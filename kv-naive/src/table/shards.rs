use dashmap::DashMap;
use foldhash::fast::SeedableRandomState;
use kv_core::{Background, Error, Result};
use parking_lot::RwLock;
use std::sync::Arc;

/// A value and the LSN of the change that stored it.
///
/// Not a [`Value`](kv_core::Value): its reference count is a third allocation for each key, and one
/// more cache line at every look-up. That made `read` about 1.6 times slower.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) value: Arc<[u8]>,
    pub(crate) lsn: u64,
}

/// Whether the table takes changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Closed,
}

impl Gate {
    pub(super) fn check_open(self) -> Result<()> {
        match self {
            Gate::Open => Ok(()),
            Gate::Closed => Err(Error::Closed),
        }
    }
}

/// Keeps memory that writers change off the cache lines that readers read.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct CacheLine<T>(pub(super) T);

/// A cut or a scan copies one shard at a time, and the shard's writers wait for the copy. So there
/// are many small ones.
const SHARDS: usize = 256;

/// The entries, in shards with a lock each, and the gate in front of them.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) map: DashMap<Box<[u8]>, Entry, SeedableRandomState>,
    pub(super) gate: CacheLine<RwLock<Gate>>,
}

impl Shards {
    /// In inline mode the order of the entries is the same in every run: runs can be reproduced.
    pub(super) fn new(background: Background) -> Self {
        let hasher = match background {
            Background::Threads => SeedableRandomState::random(),
            Background::Inline => SeedableRandomState::fixed(),
        };
        Shards {
            map: DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher, SHARDS),
            gate: CacheLine(RwLock::new(Gate::Open)),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.map.shards().len()
    }

    /// A copy of one shard, never from the middle of a batch. Values are shared with the table,
    /// keys are copied. `copied` is called under the shard's read lock.
    pub(super) fn copy<F: FnOnce()>(
        &self,
        shard: usize,
        copied: F,
    ) -> impl Iterator<Item = (Box<[u8]>, Entry)> + use<F> {
        let _no_batch = self.gate.0.read();
        let copy = self.map.shards().get(shard).map(|shard| {
            let shard = shard.read();
            let copy = (*shard).clone();
            copied();
            copy
        });
        copy.into_iter().flatten().map(|(key, entry)| (key, entry.into_inner()))
    }
}
