//! The standard hash map in one reader-writer lock, with the hash function of all subjects: the
//! table that an application has without any crate.

use super::subject::{Subject, Visit};
use crate::failure::Failure;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

type Map = HashMap<Vec<u8>, Vec<u8>, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
pub(crate) struct Table(RwLock<Map>);

impl Table {
    fn reader(&self) -> RwLockReadGuard<'_, Map> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> RwLockWriteGuard<'_, Map> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject for Table {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        // The writer allocates before it takes the lock, and frees the replaced value after it.
        let (key, value) = (key.to_vec(), value.to_vec());
        let replaced = self.writer().insert(key, value);
        drop(replaced);
        Ok(())
    }

    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.reader().get(key).map(|value| visit(value)).is_some())
    }

    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        let value = self.reader().get(key).cloned();
        Ok(value.map(|value| visit(&value)).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.writer().remove(key);
        Ok(())
    }

    fn count(&self) -> Result<u64, Failure> {
        Ok(self.reader().len() as u64)
    }
}
