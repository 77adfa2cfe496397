//! Puts with the tail in shared memory, and with it in ordinary memory.

use crate::failure::Failure;
use crate::load::{Dataset, Shape, Truth};
use crate::process::probe::{histogram, nanoseconds};
use crate::process::threads::concurrently;
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Subject};
use kv_core::ProcessSafety;
use kv_log::{Options, ProcessSafe};
use serde::{Deserialize, Serialize};
use std::sync::Barrier;
use std::time::Instant;

/// Each thread puts new keys: half of them by a clock around all, half with a clock around each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tail {
    pub(crate) shape: Shape,
    /// Keys of each half.
    pub(crate) keys: u64,
    pub(crate) threads: u64,
    /// Whether the tail lies in shared memory.
    pub(crate) is_shared: bool,
}

impl Task for Tail {
    const NAME: &'static str = "tail";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Tail { shape, keys, is_shared, .. } = self;
        let process_safe = if is_shared { ProcessSafe::Required } else { ProcessSafe::Off };
        let subject = KvEngine::open_log(&run.dir, Options { process_safe, ..Options::default() })?;
        let data = Dataset::new(shape);
        let times = self.on_each_thread(|indexes, barrier| {
            barrier.wait();
            let start = Instant::now();
            data.fill(indexes, |_, key, value| subject.put(key, value))?;
            Ok((start, Instant::now()))
        })?;
        let first = times.iter().map(|(start, _)| *start).min();
        let last = times.iter().map(|(_, end)| *end).max();
        let time = first.zip(last).map(|(first, last)| last - first).unwrap_or_default();
        let histograms = self.on_each_thread(|indexes, barrier| {
            let mut puts = histogram();
            barrier.wait();
            data.fill(indexes.map(|index| keys + index), |_, key, value| {
                let start = Instant::now();
                subject.put(key, value)?;
                puts.saturating_record(nanoseconds(start));
                Ok::<_, Failure>(())
            })?;
            Ok(puts)
        })?;
        let mut puts = histogram();
        for of_thread in &histograms {
            // All have the same bounds.
            let _ = puts.add(of_thread);
        }
        let safety = subject.0.stats().process_safety;
        let expected = if is_shared { ProcessSafety::Safe } else { ProcessSafety::NotPromised };
        if safety != expected {
            return Err(Failure::Wrong(format!("its process safety is {safety:?}, not {expected:?}")));
        }
        let mut measured = Measured::default();
        measured.add("put_per_s", keys as f64 / time.as_secs_f64());
        measured.add_tail("put", &puts);
        Truth::filled(2 * keys).verify(&subject, &data)?;
        Ok(measured)
    }
}

impl Tail {
    /// The results of `work` on each thread, which gets every `threads`th of the keys.
    fn on_each_thread<T: Send>(
        &self,
        work: impl Fn(std::iter::StepBy<std::ops::Range<u64>>, &Barrier) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>, Failure> {
        let threads = usize::try_from(self.threads).unwrap_or(1);
        let barrier = Barrier::new(threads);
        concurrently(0..self.threads, |thread| work((thread..self.keys).step_by(threads), &barrier))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn every_key_is_put_by_some_thread_with_and_without_shared_memory() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        for (threads, is_shared) in [(1, true), (2, true), (2, false), (3, false)] {
            let measured = measured(&Tail { shape, keys: 1001, threads, is_shared });
            let of = |name: &str| measured.get(name).unwrap();
            assert!(of("put_per_s") > 0.0 && of("put_p50_us") <= of("put_p999_us"), "{measured:?}");
        }
    }
}
