//! `redb`, a copy-on-write B-tree. Each put is one write transaction, because it must be visible
//! when it returns. The cache, 1 GiB by default, holds all data.
//!
//! In the background: commits without durability. Synced: the defaults, one sync a commit.

use super::subject::{Subject, Visit};
use crate::failure::Failure;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use std::path::Path;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("table");
const CACHE_BYTES: usize = 1 << 30;

pub(crate) struct Store {
    database: Database,
    durability: Durability,
}

fn failed<E: std::fmt::Display>(error: E) -> Failure {
    Failure::foreign("redb", error)
}

impl Store {
    pub(crate) fn open(dir: &Path, synced: bool) -> Result<Self, Failure> {
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("redb")).map_err(failed)?;
        let durability = if synced { Durability::Immediate } else { Durability::None };
        let store = Store { database, durability };
        let writer = store.database.begin_write().map_err(failed)?;
        drop(writer.open_table(TABLE).map_err(failed)?);
        writer.commit().map_err(failed)?;
        Ok(store)
    }

    fn writer(&self) -> Result<WriteTransaction, Failure> {
        let mut writer = self.database.begin_write().map_err(failed)?;
        writer.set_durability(self.durability).map_err(failed)?;
        Ok(writer)
    }
}

impl Subject for Store {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let writer = self.writer()?;
        writer.open_table(TABLE).map_err(failed)?.insert(key, value).map_err(failed)?;
        writer.commit().map_err(failed)
    }

    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        let reader = self.database.begin_read().map_err(failed)?;
        let table = reader.open_table(TABLE).map_err(failed)?;
        Ok(table.get(key).map_err(failed)?.map(|value| visit(value.value())).is_some())
    }

    /// The guard of a value keeps its page alive, so the caller can keep the value without a copy.
    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        self.read(key, visit)
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        let writer = self.writer()?;
        writer.open_table(TABLE).map_err(failed)?.remove(key).map_err(failed)?;
        writer.commit().map_err(failed)
    }

    fn count(&self) -> Result<u64, Failure> {
        let reader = self.database.begin_read().map_err(failed)?;
        reader.open_table(TABLE).map_err(failed)?.len().map_err(failed)
    }

    /// A durable commit makes all earlier commits durable.
    fn sync(&self) -> Result<(), Failure> {
        self.database.begin_write().map_err(failed)?.commit().map_err(failed)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.sync()
    }
}
