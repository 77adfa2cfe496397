//! Reads of more data than memory can hold: the log engine under a memory budget of a quarter of
//! the data, and a foreign store with the same data.

use crate::failure::Failure;
use crate::load::{Access, Dataset, KEY_LEN_MAX, Planner, Shape, Truth, touch};
use crate::process::resident::resident_bytes;
use crate::process::{Measured, Run, Task};
use crate::subjects::{KvEngine, Policy, Subject, SubjectName};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A fill, and zipfian reads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Beyond {
    pub(crate) subject: SubjectName,
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

/// Keys and values, for each byte of the budget.
const DATA_PER_BUDGET: u64 = 4;
/// Most reads, and most reads of the warm-up.
const READS_MAX: u64 = 1_000_000;
/// Looks at the memory of the process in each phase.
const LOOKS: usize = 64;

impl Task for Beyond {
    const NAME: &'static str = "beyond";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Beyond { subject: name, shape, keys } = self;
        let data = Dataset::new(shape);
        let budget = keys * shape.pair_len() / DATA_PER_BUDGET;
        // The bench allocates its own memory before it opens the subject.
        let mut planner = Planner::new(keys, shape.seed);
        let reads = keys.min(READS_MAX);
        let [warm_up, plan] =
            [1, 2].map(|phase| planner.plans(phase, Access::Zipfian, reads, 1, 0.0).concat());
        let truth = Truth::filled(keys);
        let (mut key, mut value, mut expected) = ([0; KEY_LEN_MAX], Vec::new(), 0);
        for index in &plan {
            data.value(u64::from(*index), u64::from(*index), &mut value);
            expected += touch(&value);
        }
        let before = resident_bytes()?;
        let mut peak: f64 = 0.0;
        let mut look = || {
            peak = peak.max(resident_bytes()? - before);
            Ok::<_, Failure>(())
        };

        let subject: Box<dyn Subject> = match name {
            SubjectName::Log => {
                let options = kv_log::Options::default().with_memory_budget(budget);
                Box::new(KvEngine::open_log(&run.dir, options)?)
            }
            name => name.under(Policy::Default).open(&run.dir)?,
        };
        data.fill(0..keys, |index, key, value| {
            subject.put(key, value)?;
            if index % keys.div_ceil(LOOKS as u64) == 0 { look() } else { Ok(()) }
        })?;
        subject.sync()?;
        let mut read = |plan: &[u32]| {
            let (mut sum, mut time) = (0, Duration::ZERO);
            for part in plan.chunks(plan.len().div_ceil(LOOKS).max(1)) {
                let start = Instant::now();
                for index in part {
                    subject.read(data.key(u64::from(*index), &mut key), &mut |value| sum += touch(value))?;
                }
                time += start.elapsed();
                look()?;
            }
            Ok::<_, Failure>((sum, time))
        };
        read(&warm_up)?;
        let fetches = || subject.engine().map(|engine| engine.stats().fetches);
        let fetches_before = fetches();
        let (sum, time) = read(&plan)?;
        if sum != expected {
            return Err(Failure::Wrong("the reads did not see the values of the puts".to_owned()));
        }
        let mut measured = Measured::default();
        measured.add("read_zipfian_per_s", reads as f64 / time.as_secs_f64());
        if let Some((before, after)) = fetches_before.zip(fetches()) {
            measured.add("fetched_share", (after - before) as f64 / reads as f64);
            measured.add("peak_per_budget", peak / budget as f64);
        }
        truth.verify(&*subject, &data)?;
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn most_reads_come_from_files() {
        let shape = Shape { key_len: 24, value_len: 500, seed: 1 };
        let measured = measured(&Beyond { subject: SubjectName::Log, shape, keys: 5000 });
        let fetched = measured.get("fetched_share").unwrap();
        assert!(fetched > 0.5 && fetched <= 1.0, "{measured:?}");
        assert!(measured.get("peak_per_budget").unwrap() > 0.0, "{measured:?}");
    }
}
