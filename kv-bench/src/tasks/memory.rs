//! Resident memory after a fill, and after five overwrites for each key.

use crate::failure::Failure;
use crate::load::{Dataset, KEY_LEN_MAX, Shape, Truth, sequence};
use crate::process::probe::resident_bytes;
use crate::process::{Measured, Run, Task};
use crate::subjects::{Policy, SubjectName};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A fill and overwrites.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) subject: SubjectName,
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

/// Overwrites for each key.
const OVERWRITES: u64 = 5;
/// Memory that changes by less than a hundredth for so long has settled.
const STILL: Duration = Duration::from_millis(200);
/// After this time memory counts even if it has not settled.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

impl Task for Memory {
    const NAME: &'static str = "memory";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Memory { subject, shape, keys } = self;
        let data = Dataset::new(shape);
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::with_capacity(shape.value_len));
        let mut measured = Measured::default();
        let live = (keys * shape.pair_len()) as f64;
        let before = resident_bytes()?;
        let background = subject.is_durable();
        let subject = subject.under(Policy::Default).open(&run.dir)?;
        let mut add = |name: &str| {
            subject.sync()?;
            let grown = settled(background)? - before;
            measured.add(format!("{name}_bytes"), grown);
            measured.add(format!("{name}_per_live"), grown / live);
            Ok::<_, Failure>(())
        };
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        add("filled")?;
        for (place, index) in overwrites(shape.seed, keys) {
            data.value(index, sequence(1, 0, place), &mut value);
            subject.put(data.key(index, &mut key), &value)?;
        }
        add("overwritten")?;
        // The ground truth takes memory, so it comes after the last measurement.
        let mut truth = Truth::filled(keys);
        overwrites(shape.seed, keys).for_each(|(place, index)| truth.write(index, 0, sequence(1, 0, place)));
        truth.verify(&*subject, &data)?;
        Ok(measured)
    }
}

fn overwrites(seed: u64, keys: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut rng = Rng::with_seed(seed);
    (0..OVERWRITES * keys).map(move |place| (place, rng.u64(..keys)))
}

/// Resident memory once background work no longer changes it.
fn settled(background: bool) -> Result<f64, Failure> {
    let start = Instant::now();
    let (mut since, mut still) = (Instant::now(), resident_bytes()?);
    while background && since.elapsed() < STILL && start.elapsed() < SETTLE_LIMIT {
        std::thread::sleep(Duration::from_millis(20));
        let now = resident_bytes()?;
        if (now - still).abs() > still / 100.0 {
            (since, still) = (Instant::now(), now);
        }
    }
    resident_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_small_run_of_each() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        for subject in [SubjectName::Log, SubjectName::Dashmap] {
            let measured = measured(&Memory { subject, shape, keys: 2000 });
            assert!(measured.get("filled_bytes").is_some() && measured.get("overwritten_per_live").is_some());
        }
    }
}
