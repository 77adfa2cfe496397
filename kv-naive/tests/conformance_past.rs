//! The conformance suite against stores that keep their last three snapshots, if those are small.
//! So every case of crashes and faults also meets old snapshots, and snapshots that expire.

use kv_core::{Capabilities, Engine, EngineFactory, Env, KeepPast, OpenOptions, Result};
use kv_naive::{NaiveEngine, NaiveFactory};
use std::path::Path;
use std::sync::Arc;

struct WithAPast;

impl EngineFactory for WithAPast {
    fn name(&self) -> &'static str {
        "naive, with a past"
    }

    fn capabilities(&self) -> Capabilities {
        NaiveFactory.capabilities()
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        let mut options = options.clone();
        // A case of past states chooses itself.
        if format!("{:?}", options.retention) == "KeepNothing" {
            options.retention = Arc::new(KeepPast::all().count_max(3).bytes_max(6000));
        }
        Ok(Arc::new(NaiveEngine::open_in(dir, env, options)?))
    }
}

kv_tests::main!(
    WithAPast,
    skip = [
        ("moments::required_kv952_expired_states_go", "the case wants a store that keeps nothing"),
        ("moments::required_kv955_points_hold_their_states", "the case wants a store that keeps nothing"),
    ]
);
