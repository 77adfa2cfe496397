//! `scc`, a volatile table with locks in its buckets: default options, and the hash function of all
//! subjects.

use super::subject::{Subject, Visit};
use crate::failure::Failure;
use scc::HashMap;

#[derive(Debug, Default)]
pub(crate) struct Table(HashMap<Box<[u8]>, Box<[u8]>, foldhash::fast::RandomState>);

impl Subject for Table {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.0.upsert_sync(key.into(), value.into());
        Ok(())
    }

    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.0.read_sync(key, |_, value| visit(value)).is_some())
    }

    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        let value = self.0.read_sync(key, |_, value| value.clone());
        Ok(value.map(|value| visit(&value)).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.0.remove_sync(key);
        Ok(())
    }

    fn count(&self) -> Result<u64, Failure> {
        Ok(self.0.len() as u64)
    }
}
