//! The price of a checkpoint for the writers that go on meanwhile.

use crate::failure::Failure;
use crate::load::{Dataset, KEY_LEN_MAX, Shape, Truth, sequence};
use crate::process::probe::{histogram, nanoseconds};
use crate::process::resident::{settled_bytes, with_peak};
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use fastrand::Rng;
use hdrhistogram::Histogram;
use kv_core::Engine;
use kv_log::{OnRequest, Options};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// One thread overwrites uniform keys. Another writes a checkpoint, waits, and repeats that.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    pub(crate) checkpoints: u64,
}

/// The wait before each checkpoint at least, and the time that it takes otherwise.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Puts between two looks at the phase.
const PUTS_A_LOOK: u64 = 64;
/// The phases.
const ALONE: usize = 0;
const MEANWHILE: usize = 1;
const OVER: usize = 2;

/// The puts of a phase.
struct Puts {
    latencies: Histogram<u64>,
    time: Duration,
}

impl Puts {
    fn per_s(&self) -> f64 {
        self.latencies.len() as f64 / self.time.as_secs_f64()
    }
}

impl Task for Checkpoint {
    const NAME: &'static str = "checkpoint";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Checkpoint { shape, keys, checkpoints } = self;
        // A compaction would run in one phase only, because it waits for a running checkpoint.
        let options = Options {
            checkpoint: Arc::new(OnRequest),
            compaction: Arc::new(kv_core::Never),
            slack_share: 1e3,
            ..Options::default()
        };
        let subject = KvEngine::open_log(&run.dir, options)?;
        let (data, mut truth) = (Dataset::new(shape), Truth::filled(keys));
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        subject.sync()?;
        let before = settled_bytes()?;
        let ((), peak) = with_peak(|| checkpoint(&*subject.0))?;
        let phase = AtomicUsize::new(ALONE);
        let puts = thread::scope(|scope| {
            let writer = scope.spawn(|| overwrite(&subject, &data, &mut truth, self, &phase));
            let mut last = PAUSE_MIN;
            let written = (0..checkpoints).try_for_each(|_| {
                thread::sleep(last.max(PAUSE_MIN));
                phase.store(MEANWHILE, Ordering::Relaxed);
                let start = Instant::now();
                let written = checkpoint(&*subject.0);
                last = start.elapsed();
                phase.store(ALONE, Ordering::Relaxed);
                written
            });
            phase.store(OVER, Ordering::Relaxed);
            let puts = writer.join().map_err(|_| Failure::Wrong("a thread panicked".to_owned()))?;
            written.and(puts)
        })?;
        let mut measured = Measured::default();
        for (name, puts) in ["put_alone", "put_meanwhile"].into_iter().zip(&puts) {
            measured.add(format!("{name}_per_s"), puts.per_s());
            measured.add_tail(name, &puts.latencies);
        }
        measured.add("more_memory_share", (peak - before).max(0.0) / before);
        measured.add("checkpoints", subject.0.stats().checkpoints as f64);
        truth.verify(&subject, &data)?;
        Ok(measured)
    }
}

fn checkpoint(engine: &dyn Engine) -> Result<(), Failure> {
    let checkpoint = engine.as_checkpoint();
    let checkpoint = checkpoint.ok_or_else(|| Failure::Worker("it writes no checkpoints".to_owned()))?;
    Ok(checkpoint.checkpoint().map(drop)?)
}

/// Overwrites until the phases are over. Returns the puts of the two phases. A group of puts during
/// which the phase changed counts for neither.
fn overwrite(
    subject: &KvEngine,
    data: &Dataset,
    truth: &mut Truth,
    task: Checkpoint,
    phase: &AtomicUsize,
) -> Result<[Puts; 2], Failure> {
    let mut rng = Rng::with_seed(task.shape.seed);
    let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
    let mut puts = [ALONE, MEANWHILE].map(|_| Puts { latencies: histogram(), time: Duration::ZERO });
    let mut group = Vec::new();
    for round in 0.. {
        let during = phase.load(Ordering::Relaxed);
        if during == OVER {
            break;
        }
        group.clear();
        let start = Instant::now();
        for place in round * PUTS_A_LOOK..(round + 1) * PUTS_A_LOOK {
            let index = rng.u64(..task.keys);
            data.value(index, sequence(1, 0, place), &mut value);
            let bytes = data.key(index, &mut key);
            let start = Instant::now();
            subject.put(bytes, &value)?;
            group.push(nanoseconds(start));
            truth.write(index, 0, sequence(1, 0, place));
        }
        let time = start.elapsed();
        if let Some(puts) = puts.get_mut(during).filter(|_| phase.load(Ordering::Relaxed) == during) {
            puts.time += time;
            for latency in &group {
                puts.latencies.saturating_record(*latency);
            }
        }
    }
    Ok(puts)
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn puts_count_for_both_phases() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        let measured = measured(&Checkpoint { shape, keys: 50_000, checkpoints: 2 });
        let of = |name: &str| measured.get(name).unwrap();
        assert!((of("checkpoints") - 3.0).abs() < f64::EPSILON, "{measured:?}");
        assert!(of("put_alone_per_s") > 0.0 && of("put_meanwhile_per_s") > 0.0, "{measured:?}");
        assert!(of("put_meanwhile_p999_us") > 0.0 && of("more_memory_share") >= 0.0, "{measured:?}");
    }
}
