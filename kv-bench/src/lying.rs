//! An engine that lies in one chosen way, to see that the harness notices.

use kv_core::{Batch, Checkpoint, Compact, Engine, Lsn, PointInTime, Result, ScanVisitor, Stats, Value};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

/// The lies, each told about one call in a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// None: what must pass.
    Honest,
    /// A put is acknowledged and not made.
    PutLost,
    /// A put stores another value.
    PutAltered,
    /// A delete is acknowledged and not made.
    DeleteLost,
    /// A read does not find what is there.
    ReadMisses,
    /// A scan shows a key that is not there.
    ScanInvents,
}

/// An engine around another.
#[derive(Debug)]
pub(crate) struct Lying {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) lie: Lie,
    calls: AtomicU64,
}

impl Lying {
    pub(crate) fn new(engine: Arc<dyn Engine>, lie: Lie) -> Self {
        Lying { engine, lie, calls: AtomicU64::new(0) }
    }

    fn lies(&self, lie: Lie) -> bool {
        self.lie == lie && self.calls.fetch_add(1, Ordering::Relaxed) % 100 == 99
    }
}

impl Engine for Lying {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        if self.lies(Lie::PutLost) {
            return Ok(self.engine.last_lsn());
        }
        if self.lies(Lie::PutAltered) {
            let mut altered = value.to_vec();
            if let Some(last) = altered.last_mut() {
                *last ^= 1;
            }
            return self.engine.put(key, &altered);
        }
        self.engine.put(key, value)
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        if self.lies(Lie::DeleteLost) { Ok(Some(self.engine.last_lsn())) } else { self.engine.delete(key) }
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        self.engine.apply(batch)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.engine.get(key)
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        if self.lies(Lie::ReadMisses) { Ok(false) } else { self.engine.read(key, visit) }
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.engine.read_many(keys, visit)
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        if self.lie == Lie::ScanInvents && visit(b"invented", b"") == ControlFlow::Break(()) {
            return Ok(());
        }
        self.engine.scan(visit)
    }

    fn sync(&self) -> Result<Lsn> {
        self.engine.sync()
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.engine.wait_durable(lsn)
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.engine.poll_durable(lsn, cx)
    }

    fn durable_lsn(&self) -> Lsn {
        self.engine.durable_lsn()
    }

    fn last_lsn(&self) -> Lsn {
        self.engine.last_lsn()
    }

    fn stats(&self) -> Stats {
        self.engine.stats()
    }

    fn close(&self) -> Result<()> {
        self.engine.close()
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        self.engine.as_checkpoint()
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        self.engine.as_point_in_time()
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        self.engine.as_compact()
    }
}

mod tests {
    use super::{Lie, Lying};
    use crate::dataset::Shape;
    use crate::engines::EngineName;
    use crate::experiments::mixed;
    use crate::failure::Failure;
    use crate::workload::Mix;
    use kv_core::Engine;
    use std::sync::Arc;

    /// A small mixed run on an engine that lies.
    fn run(name: EngineName, lie: Lie, read_fraction: f64) -> Result<(), Failure> {
        let dir = tempfile::tempdir().unwrap();
        let mix = Mix {
            shape: Shape { key_len: 24, value_len: 100, seed: 11 },
            commands: 3000,
            read_fraction,
            hit_rate: 0.9,
            hot_fraction: 0.2,
            hot_rate: 0.6,
        };
        let open = || -> Result<Arc<dyn Engine>, Failure> {
            Ok(Arc::new(Lying::new(name.standard().open(dir.path())?, lie)))
        };
        mixed::measure(&open, &mix, 2, 2, true).map(|measured| {
            assert!(measured.get("throughput_per_s").unwrap() > 0.0 && measured.samples.len() == 2);
        })
    }

    #[test]
    fn a_lying_engine_is_caught_and_an_honest_one_is_not() {
        for name in [EngineName::Log, EngineName::Naive] {
            for read_fraction in [0.05, 0.8] {
                run(name, Lie::Honest, read_fraction).unwrap();
                for lie in [Lie::PutLost, Lie::PutAltered, Lie::DeleteLost, Lie::ReadMisses, Lie::ScanInvents]
                {
                    // Too few deletes for this lie to be told.
                    if lie == Lie::DeleteLost && read_fraction > 0.5 {
                        continue;
                    }
                    let result = run(name, lie, read_fraction);
                    assert!(matches!(result, Err(Failure::Wrong(_))), "{name:?} {lie:?}: {result:?}");
                }
            }
        }
    }
}
