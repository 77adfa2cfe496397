//! RocksDB: no compression, as the values cannot be compressed; a cache that holds everything, Bloom filters,
//! and memtables of 128 MiB; else its defaults.
//!
//! In the background: its log without sync, its default. Synced: a sync of the log with each put, which
//! concurrent ones share.

use super::{Mode, Subject, Visit};
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
    Failure::peer("RocksDB", error)
}

impl Store {
    pub(crate) fn open(dir: &Path, mode: Mode) -> Result<Self, Failure> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(MEMTABLE_BYTES);
        options.set_block_based_table_factory(&table);
        let db = DB::open(&options, dir.join("rocksdb")).map_err(failed)?;
        Ok(Store { db, synced: mode == Mode::Synced })
    }

    fn how(&self) -> WriteOptions {
        let mut how = WriteOptions::default();
        how.set_sync(self.synced);
        how
    }
}

impl Subject for Store {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.db.put_opt(key, value, &self.how()).map_err(failed)
    }

    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.db.get_pinned(key).map_err(failed)?.map(|value| visit(&value)).is_some())
    }

    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.db.get(key).map_err(failed)?.map(|value| visit(&value)).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.db.delete_opt(key, &self.how()).map_err(failed)
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
