//! Compaction on request.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kv_core::{
    Background, Compact, CompactionLevel, CompactionPlan, CompactionPolicy, CompactionView, Engine, Env,
    Error, Fs, Manual, ManualClock,
};
use kv_log::{LogEngine, Options};
use kv_tests::sim::{Edge, Fault, FaultKind, Gate, OpKind, PowerCut, Repeat, SimFs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// A policy that names the oldest segment once.
#[derive(Debug, Default)]
struct OldestOnce(AtomicBool);

impl CompactionPolicy for OldestOnce {
    fn plan(&self, view: &CompactionView<'_>) -> Option<CompactionPlan> {
        let oldest = view.segments.first().filter(|_| self.0.swap(false, Ordering::SeqCst))?;
        Some(CompactionPlan { level: CompactionLevel::Disk, victims: vec![oldest.id] })
    }
}

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

/// The sync that fails covers the directory entry of the compaction's output. A later sync of the
/// directory succeeds, and proves nothing about that entry.
#[test]
fn a_compaction_keeps_its_victims_after_a_failed_sync_of_the_directory() {
    let (disk, policy) = (SimFs::new(), Arc::<OldestOnce>::default());
    let (gate, gated) = Gate::before(disk.clone());
    let open = |fs: Arc<dyn Fs>| {
        let env = Env { fs, clock: Arc::new(ManualClock::new(0)), background: Background::Inline };
        let (persistence, compaction) = (Arc::new(Manual), Arc::clone(&policy) as _);
        let options = Options { segment_bytes: 4096, persistence, compaction, ..Options::default() };
        LogEngine::open_in(Path::new("/store"), &env, options).unwrap()
    };
    let store = open(gated);
    for number in 0..200_u32 {
        store.put(&number.to_be_bytes(), &[7; 60]).unwrap();
    }
    store.sync().unwrap();
    let durable = thread::scope(|scope| {
        // A panic of the test drops the gate, which ends the compaction.
        let gate = gate;
        gate.shut(|kind| kind == OpKind::Create);
        policy.0.store(true, Ordering::SeqCst);
        let compaction = scope.spawn(|| store.compact());
        // The first file is the next active segment, and the second one the output.
        let mut files = 0;
        let created = loop {
            let stop = gate.stop(Duration::from_secs(20)).expect("a compaction creates two segments");
            files += u32::from(stop.edge == Edge::After && stop.name.ends_with(".segment"));
            if files == 2 {
                break stop;
            }
            gate.release(&stop);
        };
        gate.shut(|_| false);
        let durable = store.durable_lsn();
        // The sync of the new segment's file succeeds.
        disk.inject(Fault { kind: FaultKind::Sync, nth: 1, repeat: Repeat::Once });
        // It is too long for the active segment.
        let failed = store.put(b"key", &[9; 5000]).unwrap_err();
        assert!(failed.to_string().contains("cannot sync /store"), "{failed}");
        gate.release(&created);
        let answer = compaction.join().unwrap();
        assert!(matches!(answer, Err(Error::Poisoned { .. })), "{answer:?}");
        durable
    });
    for cut in [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL].into_iter().chain((2..50).map(PowerCut::seeded)) {
        let store = open(Arc::new(disk.power_cut(cut)));
        assert!(store.last_lsn() >= durable);
        for number in 0..200_u32 {
            let found = store.get(&number.to_be_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some([7; 60].as_slice()), "{number} after {cut}");
        }
    }
}
