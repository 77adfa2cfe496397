//! `fjall`, a log-structured merge tree. No compression, because the values do not compress; a
//! cache that holds all data; otherwise its defaults.
//!
//! In the background: each put hands the journal to the operating system without sync, the default.
//! Synced: each put also syncs the journal's data.

use super::subject::{Subject, Visit};
use crate::failure::Failure;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;

const CACHE_BYTES: u64 = 1 << 30;

pub(crate) struct Store {
    database: Database,
    table: Keyspace,
    synced: bool,
}

fn failed<E: std::fmt::Display>(error: E) -> Failure {
    Failure::foreign("fjall", error)
}

impl Store {
    pub(crate) fn open(dir: &Path, synced: bool) -> Result<Self, Failure> {
        let database = Database::builder(dir).cache_size(CACHE_BYTES).open().map_err(failed)?;
        let options = || KeyspaceCreateOptions::default().expect_point_read_hits(true);
        let table = database.keyspace("table", options).map_err(failed)?;
        Ok(Store { database, table, synced })
    }

    fn changed(&self) -> Result<(), Failure> {
        if self.synced { self.database.persist(PersistMode::SyncData).map_err(failed) } else { Ok(()) }
    }
}

impl Subject for Store {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.table.insert(key, value).map_err(failed)?;
        self.changed()
    }

    /// A value shares the cache's memory, so borrowing would cost no less.
    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.table.get(key).map_err(failed)?.map(|value| visit(&value)).is_some())
    }

    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        self.read(key, visit)
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.table.remove(key).map_err(failed)?;
        self.changed()
    }

    fn count(&self) -> Result<u64, Failure> {
        Ok(self.table.len().map_err(failed)? as u64)
    }

    fn sync(&self) -> Result<(), Failure> {
        self.database.persist(PersistMode::SyncAll).map_err(failed)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.sync()
    }
}
