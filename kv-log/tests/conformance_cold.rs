//! The conformance suite against this engine with the smallest memory budget, so that readers read
//! most records from files.

mod short_of_memory;

use kv_core::{Capabilities, Engine, EngineFactory, Env, OpenOptions, Result};
use kv_log::{LogEngine, LogFactory};
use short_of_memory::short_of_memory;
use std::path::Path;
use std::sync::Arc;

struct ShortOfMemory;

impl EngineFactory for ShortOfMemory {
    fn name(&self) -> &'static str {
        "log, short of memory"
    }

    fn capabilities(&self) -> Capabilities {
        LogFactory.capabilities()
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(LogEngine::open_in(dir, env, short_of_memory(options))?))
    }
}

kv_tests::main!(ShortOfMemory);
