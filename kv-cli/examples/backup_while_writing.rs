//! Backs a store up while another thread writes to it. The drill of the README uses it:
//! `backup_while_writing STORE BACKUP` prints the LSN of the backup's newest state.
//!
//! The change with the LSN n puts the key n, so the state at an LSN has the keys up to it.

use kv_log::{Engine, LogEngine, Options, PointInTime};
use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Changes before the backup begins, and at most.
const BEFORE: u64 = 20_000;
const MOST: u64 = 1_000_000;

#[allow(clippy::print_stdout, reason = "its output is the LSN")]
fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let dirs: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [store, backup] = dirs.as_slice() else { return Err("name a store and a backup".into()) };
    let store = LogEngine::open(store, Options::default())?;
    let is_done = AtomicBool::new(false);
    let report = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = store.last_lsn().get();
            while number < MOST && !is_done.load(Ordering::Relaxed) {
                number += 1;
                store.put(number.to_string().as_bytes(), b"written")?;
            }
            Ok::<_, kv_log::Error>(())
        });
        while store.last_lsn().get() < BEFORE && !writer.is_finished() {
            thread::yield_now();
        }
        let report = store.backup(backup);
        is_done.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        Ok::<_, Box<dyn Error + Send + Sync>>(report?)
    })?;
    store.close()?;
    println!("{}", report.moment.lsn);
    Ok(())
}
