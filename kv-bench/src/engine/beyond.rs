//! Reads of more data than memory may hold: the log engine with a memory budget of a quarter of the data, and a peer with
//! the same data.

use super::access::{Access, Planner};
use super::truth::Truth;
use crate::dataset::{Dataset, KEY_LEN_MAX, Shape, touch};
use crate::engines::open_log;
use crate::failure::Failure;
use crate::subjects::{KvEngine, Mode, Subject, SubjectName};
use crate::worker::{Measured, resident_bytes};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// What one run does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Beyond {
    pub(crate) subject: SubjectName,
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

/// Keys and values, for each byte of the budget.
const DATA_PER_BUDGET: u64 = 4;
/// Reads, and their warm-up.
const READS_MAX: u64 = 1_000_000;
/// Looks at the memory of the process, in each phase.
const LOOKS: usize = 64;

pub(crate) fn measure(dir: &Path, job: &Beyond) -> Result<Measured, Failure> {
    let &Beyond { subject: name, shape, keys } = job;
    let data = Dataset::new(shape);
    let budget = keys * shape.pair_len() / DATA_PER_BUDGET;
    // Everything of our own that takes memory is there before the store is.
    let mut planner = Planner::new(keys, shape.seed);
    let reads = keys.min(READS_MAX);
    let [warm_up, plan] = [1, 2].map(|phase| planner.plans(phase, Access::Zipfian, reads, 1, 0.0).concat());
    let mut truth = Truth::new(keys, 1);
    let (mut key, mut value, mut expected) = ([0; KEY_LEN_MAX], Vec::new(), 0);
    for index in &plan {
        data.value(u64::from(*index), u64::from(*index), &mut value);
        expected += touch(&value);
    }
    (0..keys).for_each(|index| truth.filled(index));
    let before = resident_bytes()?;
    let mut peak: f64 = 0.0;
    let mut look = || {
        peak = peak.max(resident_bytes()? - before);
        Ok::<_, Failure>(())
    };

    let subject: Box<dyn Subject> = match name {
        SubjectName::Log => {
            let options = kv_log::Options::default().with_memory_budget(budget);
            Box::new(KvEngine::new(open_log(dir, options)?))
        }
        name => name.open(dir, Mode::Background)?,
    };
    for index in 0..keys {
        data.value(index, index, &mut value);
        subject.put(data.key(index, &mut key), &value)?;
        if index % keys.div_ceil(LOOKS as u64) == 0 {
            look()?;
        }
    }
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
    let fetches = |subject: &dyn Subject| subject.engine().map(|engine| engine.stats().fetches);
    let fetches_before = fetches(&*subject);
    let (sum, time) = read(&plan)?;
    if sum != expected {
        return Err(Failure::Wrong("reads did not see the values that were put".to_owned()));
    }
    let mut measured = Measured::default();
    measured.add("read_zipfian_per_s", reads as f64 / time.as_secs_f64());
    if let Some((before, after)) = fetches_before.zip(fetches(&*subject)) {
        measured.add("fetched_share", (after - before) as f64 / reads as f64);
        measured.add("peak_per_budget", peak / budget as f64);
    }
    truth.verify(&*subject, &data)?;
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_reads_come_from_files() {
        let shape = Shape { key_len: 24, value_len: 500, seed: 1 };
        let dir = tempfile::tempdir().unwrap();
        let job = Beyond { subject: SubjectName::Log, shape, keys: 5000 };
        let measured = measure(dir.path(), &job).unwrap();
        let fetched = measured.get("fetched_share").unwrap();
        assert!(fetched > 0.5 && fetched <= 1.0, "{measured:?}");
        assert!(measured.get("peak_per_budget").unwrap() > 0.0, "{measured:?}");
    }
}
