//! LMDB, through `heed`. Each put is one write transaction, because it must be visible at its
//! return.
//!
//! In the background: no sync, and writes through the map. This is LMDB's fastest mode, and the
//! kernel keeps a killed process's writes. Synced: the defaults, at most two syncs a commit.
#![allow(unsafe_code, reason = "LMDB maps a file that other processes could change")]

use super::subject::{Subject, Visit};
use crate::failure::Failure;
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};
use std::path::Path;

/// Limit of the store, bytes: address space, not memory.
const MAP_BYTES: usize = 32 << 30;

#[derive(Debug)]
pub(crate) struct Store {
    env: Env,
    table: Database<Bytes, Bytes>,
}

fn failed<E: std::fmt::Display>(error: E) -> Failure {
    Failure::foreign("LMDB", error)
}

impl Store {
    pub(crate) fn open(dir: &Path, synced: bool) -> Result<Self, Failure> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        if !synced {
            // SAFETY: the flags give up consistency after a power cut; the bench removes the store,
            // so no code relies on it. WRITE_MAP exposes the map to stray writes; no code of this
            // program writes outside its own memory.
            unsafe { options.flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP | EnvFlags::MAP_ASYNC) };
        }
        // SAFETY: the directory belongs to this run; no other process opens or changes the file.
        let env = unsafe { options.open(dir) }.map_err(failed)?;
        let mut writer = env.write_txn().map_err(failed)?;
        let table = env.create_database(&mut writer, None).map_err(failed)?;
        writer.commit().map_err(failed)?;
        Ok(Store { env, table })
    }
}

impl Subject for Store {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let mut writer = self.env.write_txn().map_err(failed)?;
        self.table.put(&mut writer, key, value).map_err(failed)?;
        writer.commit().map_err(failed)
    }

    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        let reader = self.env.read_txn().map_err(failed)?;
        Ok(self.table.get(&reader, key).map_err(failed)?.map(visit).is_some())
    }

    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        let reader = self.env.read_txn().map_err(failed)?;
        let value = self.table.get(&reader, key).map_err(failed)?.map(<[u8]>::to_vec);
        drop(reader);
        Ok(value.map(|value| visit(&value)).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        let mut writer = self.env.write_txn().map_err(failed)?;
        self.table.delete(&mut writer, key).map_err(failed)?;
        writer.commit().map_err(failed)
    }

    fn count(&self) -> Result<u64, Failure> {
        let reader = self.env.read_txn().map_err(failed)?;
        self.table.len(&reader).map_err(failed)
    }

    fn sync(&self) -> Result<(), Failure> {
        self.env.force_sync().map_err(failed)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.env.force_sync().map_err(failed)?;
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}
