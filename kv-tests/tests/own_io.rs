//! The suite against an engine that does its own I/O. It ignores the cases that need the simulated
//! disk, with the reason, and runs the others in temporary directories.

use kv_core::{Capabilities, Engine, EngineFactory, Env, OpenOptions, Result};
use kv_tests::reference::ReferenceFactory;
use std::path::Path;
use std::sync::Arc;

struct OwnIo;

impl EngineFactory for OwnIo {
    fn name(&self) -> &'static str {
        "own-io"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().simulated_fs(false).inline(false).read_only(true).point_in_time(true)
    }

    fn open(&self, dir: &Path, _: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        ReferenceFactory::default().open(dir, &Env::os(), options)
    }
}

kv_tests::main!(OwnIo);
