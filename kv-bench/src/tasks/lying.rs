//! Mixed runs on subjects that lie in one chosen way: the bench must notice every lie.

use super::mixed;
use crate::failure::Failure;
use crate::load::{Mix, Shape};
use crate::subjects::{Subject, SubjectName};
use std::sync::atomic::{AtomicU64, Ordering};

/// The lies. All but `CountInvents` falsify one call in a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// No lie: the run must pass.
    Honest,
    /// Acknowledges a put and does not make it.
    PutLost,
    /// Stores another value.
    PutAltered,
    /// Acknowledges a delete and does not make it.
    DeleteLost,
    /// Does not find an existing key.
    ReadMisses,
    /// Counts an absent key.
    CountInvents,
}

/// A subject around another.
struct Lying {
    subject: Box<dyn Subject>,
    lie: Lie,
    calls: AtomicU64,
}

impl Lying {
    fn lies(&self, lie: Lie) -> bool {
        self.lie == lie && self.calls.fetch_add(1, Ordering::Relaxed) % 100 == 99
    }
}

impl Subject for Lying {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        if self.lies(Lie::PutLost) {
            return Ok(());
        }
        if self.lies(Lie::PutAltered) {
            let mut altered = value.to_vec();
            if let Some(last) = altered.last_mut() {
                *last ^= 1;
            }
            return self.subject.put(key, &altered);
        }
        self.subject.put(key, value)
    }

    fn read(&self, key: &[u8], visit: &mut (dyn FnMut(&[u8]) + '_)) -> Result<bool, Failure> {
        if self.lies(Lie::ReadMisses) { Ok(false) } else { self.subject.read(key, visit) }
    }

    fn get(&self, key: &[u8], visit: &mut (dyn FnMut(&[u8]) + '_)) -> Result<bool, Failure> {
        self.subject.get(key, visit)
    }

    fn delete(&self, key: &[u8]) -> Result<(), Failure> {
        if self.lies(Lie::DeleteLost) { Ok(()) } else { self.subject.delete(key) }
    }

    fn count(&self) -> Result<u64, Failure> {
        Ok(self.subject.count()? + u64::from(self.lie == Lie::CountInvents))
    }

    fn sync(&self) -> Result<(), Failure> {
        self.subject.sync()
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.subject.close()
    }
}

/// A small mixed run.
fn run(name: SubjectName, lie: Lie, read_fraction: f64) -> Result<(), Failure> {
    let dir = tempfile::tempdir().unwrap();
    let mix = Mix {
        shape: Shape { key_len: 24, value_len: 100, seed: 11 },
        commands: 3000,
        read_fraction,
        hit_rate: 0.9,
        hot_fraction: 0.2,
        hot_rate: 0.6,
    };
    let open = || -> Result<Box<dyn Subject>, Failure> {
        let subject = name.standard().open(dir.path())?;
        Ok(Box::new(Lying { subject, lie, calls: AtomicU64::new(0) }))
    };
    mixed::measure(&open, &mix, 2, 2, true).map(|measured| {
        assert!(measured.get("throughput_per_s").unwrap() > 0.0 && measured.samples.len() == 2);
    })
}

#[test]
fn the_bench_catches_every_lie_and_passes_an_honest_engine() {
    for name in [SubjectName::Log, SubjectName::Naive] {
        for read_fraction in [0.05, 0.8] {
            run(name, Lie::Honest, read_fraction).unwrap();
            for lie in [Lie::PutLost, Lie::PutAltered, Lie::DeleteLost, Lie::ReadMisses, Lie::CountInvents] {
                // The read-intensive mix has too few deletes to tell this lie.
                if lie == Lie::DeleteLost && read_fraction > 0.5 {
                    continue;
                }
                let result = run(name, lie, read_fraction);
                assert!(matches!(result, Err(Failure::Wrong(_))), "{name:?} {lie:?}: {result:?}");
            }
        }
    }
}
