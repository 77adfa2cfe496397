//! Any engine of this workspace.

use super::subject::{Subject, Visit};
use crate::failure::Failure;
use kv_core::Engine;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// An open engine.
#[derive(Debug)]
pub(crate) struct KvEngine(pub(crate) Arc<dyn Engine>);

impl KvEngine {
    /// Opens a store of the log engine in `dir`, under settings that no other engine has.
    pub(crate) fn open_log(dir: &Path, options: kv_log::Options) -> Result<Self, Failure> {
        Ok(KvEngine(Arc::new(kv_log::LogEngine::open(dir, options)?)))
    }
}

impl Subject for KvEngine {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.0.put(key, value)?;
        Ok(())
    }

    fn read(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        Ok(self.0.read(key, visit)?)
    }

    fn get(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<bool, Failure> {
        let value = self.0.get(key)?;
        Ok(value.map(|value| visit(&value)).is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        let deleted = self.0.delete(key)?;
        deleted.map(drop).ok_or_else(|| Failure::Wrong("a delete did not find its key".to_owned()))
    }

    fn count(&self) -> Result<u64, Failure> {
        let mut keys = 0;
        self.0.scan(&mut |_, _| {
            keys += 1;
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    }

    fn sync(&self) -> Result<(), Failure> {
        self.0.sync()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.0.close()?)
    }

    fn engine(&self) -> Option<&dyn Engine> {
        Some(&*self.0)
    }
}
