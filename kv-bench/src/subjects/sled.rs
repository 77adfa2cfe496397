//! `sled`, with its defaults: a cache of 1 GiB, and a background sync every 500 ms, the cheapest
//! setting that keeps its log. Synced: each put flushes; concurrent puts share a flush.

use super::subject::{Subject, Visit};
use crate::failure::Failure;
use sled::{Config, Db};
use std::path::Path;

#[derive(Debug)]
pub(crate) struct Store {
    db: Db,
    synced: bool,
}

fn failed<E: std::fmt::Display>(error: E) -> Failure {
    Failure::foreign("sled", error)
}

impl Store {
    pub(crate) fn open(dir: &Path, synced: bool) -> Result<Self, Failure> {
        let db = Config::new().path(dir.join("sled")).open().map_err(failed)?;
        Ok(Store { db, synced })
    }

    fn changed(&self) -> Result<(), Failure> {
        if self.synced { self.sync() } else { Ok(()) }
    }
}

impl Subject for Store {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.db.insert(key, value).map_err(failed)?;
        self.changed()
    }

    /// A value shares the cache's memory, so borrowing would cost no less.
    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.db.get(key).map_err(failed)?.map(|value| visit(&value)).is_some())
    }

    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        self.read(key, visit)
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.db.remove(key).map_err(failed)?;
        self.changed()
    }

    fn count(&self) -> Result<u64, Failure> {
        Ok(self.db.len() as u64)
    }

    fn sync(&self) -> Result<(), Failure> {
        self.db.flush().map_err(failed)?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.sync()
    }
}
