//! Compaction on request.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::{Compact, Engine};
use kv_log::{LogEngine, Options};

#[test]
fn the_report_counts_what_the_call_gave_back_whatever_the_background_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), Options::default()).unwrap();
    for round in 0..200 {
        for _ in 0..20 {
            store.put(b"key", &[round; 200]).unwrap();
        }
        let report = store.compact().unwrap();
        assert!(report.victims > 0 && report.freed_bytes > 0, "round {round}: {report:?}");
    }
}
