//! Very many segments: their number stays bounded. This bounds the cost of a roll-over, which
//! rewrites the manifest.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::parts::MANY_SEGMENTS;
use kv_core::{Background, Engine, EngineExt, Env, ManualClock, MaxLogSize};
use kv_log::{LogEngine, Options};
use kv_tests::sim::{OpKind, SimFs};
use std::path::Path;
use std::sync::Arc;

#[test]
fn many_small_segments_are_merged_and_a_roll_costs_no_more_than_before() {
    let disk = SimFs::new();
    let env = Env {
        fs: Arc::new(disk.clone()),
        clock: Arc::new(ManualClock::new(0)),
        background: Background::Inline,
    };
    let options =
        Options { segment_bytes: 1024, persistence: Arc::new(MaxLogSize::new(2000)), ..Options::default() };
    let store = LogEngine::open_in(Path::new("/store"), &env, options.clone()).unwrap();
    let manifest_bytes = || {
        let ops = disk.ops();
        let writes = ops.iter().filter(|op| op.kind == OpKind::Write && op.path.ends_with("MANIFEST.tmp"));
        writes.map(|op| op.len).collect::<Vec<_>>()
    };
    let mut most = 0;
    // All records are live, so only merging reduces the number.
    for number in 0..30_000_u32 {
        store.put(&number.to_be_bytes(), &[7; 60]).unwrap();
        if number % 1000 == 0 {
            most = most.max(store.stats().segments);
        }
    }
    assert!(most > MANY_SEGMENTS * 9 / 10 && most < MANY_SEGMENTS + 100, "{most} segments");
    let longest = manifest_bytes().into_iter().max().unwrap();
    assert!(longest < 32 * (MANY_SEGMENTS + 100) + 1000, "{longest} bytes of manifest");
    store.close().unwrap();
    drop(store);
    let store = LogEngine::open_in(Path::new("/store"), &env, options).unwrap();
    assert_eq!(store.to_sorted_vec().unwrap().len(), 30_000);
}
