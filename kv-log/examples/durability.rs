//! The same changes under three persistence policies: how long they take, and how many of them a
//! power cut right after the last one would lose.
//!
//! Run it with `cargo run --release -p kv-log --example durability`.

use kv_log::{Always, Engine, LogEngine, Manual, Options, PersistencePolicy, default_persistence};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

const CHANGES: u64 = 1000;

#[allow(clippy::print_stdout, reason = "an example shows its results")]
fn main() -> Result<(), Box<dyn Error>> {
    let policies: [(&str, Arc<dyn PersistencePolicy>); 3] = [
        ("Always", Arc::new(Always)),
        ("default (100 ms or 8 MiB)", Arc::new(default_persistence())),
        ("Manual", Arc::new(Manual)),
    ];
    for (name, persistence) in policies {
        let dir = tempfile::tempdir()?;
        let store = LogEngine::open(dir.path(), Options { persistence, ..Options::default() })?;
        let start = Instant::now();
        for number in 0..CHANGES {
            store.put(&number.to_be_bytes(), &[7; 100])?;
        }
        let took = start.elapsed();
        let at_risk = store.last_lsn().get() - store.durable_lsn().get();
        println!("{name}: {CHANGES} changes in {took:.1?}, {at_risk} of them at risk");

        let start = Instant::now();
        store.sync()?;
        println!(
            "    after a sync of {:.1?}: {}",
            start.elapsed(),
            store.last_lsn().get() - store.durable_lsn().get()
        );
        store.close()?;
    }
    Ok(())
}
