//! RocksDB: no compression, because the values do not compress; a cache that holds all data; Bloom
//! filters; memtables of 128 MiB; otherwise its defaults.
//!
//! In the background: the log without sync, the default. Synced: each put syncs the log; concurrent
//! puts share a sync.

use super::subject::{Subject, Visit};
use crate::failure::Failure;
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, IteratorMode, Options, WriteOptions};
use std::path::Path;

const CACHE_BYTES: usize = 1 << 30;
const MEMTABLE_BYTES: usize = 128 << 20;

pub(crate) struct Store {
    db: DB,
    synced: bool,
}

fn failed<E: std::fmt::Display>(error: E) -> Failure {
    Failure::foreign("RocksDB", error)
}

impl Store {
    pub(crate) fn open(dir: &Path, synced: bool) -> Result<Self, Failure> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(MEMTABLE_BYTES);
        options.set_block_based_table_factory(&table);
        let db = DB::open(&options, dir.join("rocksdb")).map_err(failed)?;
        Ok(Store { db, synced })
    }

    fn write_options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.synced);
        options
    }
}

impl Subject for Store {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.db.put_opt(key, value, &self.write_options()).map_err(failed)
    }

    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.db.get_pinned(key).map_err(failed)?.map(|value| visit(&value)).is_some())
    }

    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.db.get(key).map_err(failed)?.map(|value| visit(&value)).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.db.delete_opt(key, &self.write_options()).map_err(failed)
    }

    fn count(&self) -> Result<u64, Failure> {
        let mut keys = 0;
        for pair in self.db.iterator(IteratorMode::Start) {
            pair.map_err(failed)?;
            keys += 1;
        }
        Ok(keys)
    }

    fn sync(&self) -> Result<(), Failure> {
        self.db.flush_wal(true).map_err(failed)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.sync()
    }
}
