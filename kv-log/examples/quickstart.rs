//! Opens a store, changes it, and reads it back after closing it.
//!
//! Run it with `cargo run -p kv-log --example quickstart -- DIRECTORY`. Without a directory it uses
//! one that it removes at the end.

use kv_log::{Batch, Engine, EngineExt, LogEngine, Options};
use std::env;
use std::error::Error;
use std::path::PathBuf;

#[allow(clippy::print_stdout, reason = "an example shows its results")]
fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let dir = env::args_os().nth(1).map_or_else(|| temporary.path().join("store"), PathBuf::from);

    let store = LogEngine::open(&dir, Options::default())?;
    store.put(b"planet", b"earth")?; // visible now, durable within 100 ms
    let lsn = store.put(b"moon", b"luna")?;
    store.wait_durable(lsn)?; // both are durable now

    // All or nothing, also after a power cut.
    let mut move_ten = Batch::new();
    move_ten.put(b"account/a", b"90").put(b"account/b", b"110").delete(b"planet");
    store.apply(&move_ten)?;
    store.close()?; // makes everything durable, and reports errors

    let store = LogEngine::open(&dir, Options::default())?;
    for (key, value) in store.to_sorted_vec()? {
        println!("{} = {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
    }
    let report = store.recovery_report();
    println!("recovered {} records in {:?}", report.records, report.duration);
    Ok(store.close()?)
}
