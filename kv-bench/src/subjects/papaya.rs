//! `papaya`, a volatile table whose reads take no lock: default options, and the hash function of
//! all subjects.

use super::subject::{Subject, Visit};
use crate::failure::Failure;
use papaya::HashMap;

#[derive(Debug, Default)]
pub(crate) struct Table(HashMap<Vec<u8>, Vec<u8>, foldhash::fast::RandomState>);

impl Subject for Table {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.0.pin().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.0.pin().get(key).map(|value| visit(value)).is_some())
    }

    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        let value = self.0.pin().get(key).cloned();
        Ok(value.map(|value| visit(&value)).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        self.0.pin().remove(key);
        Ok(())
    }

    fn count(&self) -> Result<u64, Failure> {
        Ok(self.0.len() as u64)
    }
}
