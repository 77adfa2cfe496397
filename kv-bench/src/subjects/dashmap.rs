//! `dashmap`, the volatile table to beat: default shards, the fast hash function of our engines,
//! keys and values in boxes, which take less memory than vectors.

use super::subject::{Subject, Visit};
use crate::failure::Failure;
use dashmap::DashMap;

#[derive(Debug, Default)]
pub(crate) struct Table(DashMap<Box<[u8]>, Box<[u8]>, foldhash::fast::RandomState>);

impl Subject for Table {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.0.insert(key.into(), value.into());
        Ok(())
    }

    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.0.get(key).map(|value| visit(value.value())).is_some())
    }

    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        let value = self.0.get(key).map(|value| value.value().clone());
        Ok(value.map(|value| visit(&value)).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.0.remove(key);
        Ok(())
    }

    fn count(&self) -> Result<u64, Failure> {
        Ok(self.0.len() as u64)
    }
}
